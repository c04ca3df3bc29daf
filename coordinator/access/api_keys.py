"""API keys: their text, and the ring of those that count, which a gateway has in memory.

    wck_5f3e0c9ab2d14e7f_hN0cT5Jx0H8m3jcl2W0QJwXvZ2wq3u8uTTm7B0bT1zE

is the id of a key and its secret, of 256 random bits. Only SHA-256 of the secret is kept: a secret that nobody can
guess needs no slow digest.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Final

import structlog

from coordinator.access.authenticator import BEARER, NotAuthentic
from coordinator.client.database import LaneElsewhere
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.descriptions import described
from coordinator.service.errors import DatabaseUnavailable, Unavailable, UnreadableRow
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import ApiKey

PREFIX: Final = "wck_"
_SECRET_BYTES: Final = 32
_TEXT = re.compile(r"wck_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_AUTHORIZATION = re.compile(BEARER + _TEXT.pattern)
_SHOWN: Final = 10

log = structlog.get_logger("access")


class MadeKey:
    """A new key. Its text is shown once, and not kept."""

    def __init__(self) -> None:
        self._take(secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES))

    def _take(self, key_id: str, secret: str) -> None:
        self.id = key_id
        self.digest = _digest_of(secret)
        self.text = f"{PREFIX}{key_id}_{secret}"

    @classmethod
    def of(cls, text: str) -> "MadeKey | None":
        """The key that has this text; None: none has."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        made = cls.__new__(cls)
        made._take(*found.groups())  # noqa: SLF001  # its own
        return made


class KeysUnknown(Unavailable):
    """Raised while the keys could never be read, or not for too long."""

    code = "authentication_unavailable"


class _KnownKey:
    """A key of the database, with whose it is."""

    __slots__ = ("principal", "row")

    def __init__(self, row: ApiKey) -> None:
        self.row = row
        # Made once: the same object is found faster wherever it is remembered.
        self.principal = Principal(subject=row.subject, tenant=row.tenant, scopes=frozenset(row.scopes.split()))

    def defect(self) -> str | None:
        """Why it does not count now; None: it does."""
        if self.row.revoked_at is not None:
            return "it is revoked"
        is_over = self.row.expires_at is not None and self.row.expires_at <= datetime.now(UTC)
        return "it has expired" if is_over else None


class KeyRing:
    """Implements `Authenticator`: the keys of one lane's database, read again and again.

    `disconnect` is the last call.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Sequence[ApiKey]]],
        refresh_s: float,
        disconnect: Callable[[], Awaitable[None]] | None = None,
        *,
        age_s_max: float = inf,
    ) -> None:
        self._read = read
        self._disconnect = disconnect
        self._refresh_s = refresh_s
        self._age_s_max = age_s_max
        self._keys: Mapping[str, _KnownKey] = {}
        self._revoked: Mapping[str, datetime] = {}
        """Those that the database has, or had once, as revoked: none of them counts again here."""
        self._good_until_s = -inf
        self._why: str | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._line = RepeatedLine()
        self._fallen_back: list[str] = []
        self._line_of_fallen_back = RepeatedLine()

    async def start(self) -> None:
        await self._refresh()
        self._refreshing = asyncio.create_task(self._refresh_for_ever(), name="API keys")

    async def close(self) -> None:
        await end_tasks(self._refreshing)
        if self._disconnect is not None:
            await self._disconnect()

    async def problem(self) -> str | None:
        if self._why is not None or not self.knows_anybody:
            return "the API keys cannot be read"
        return "API keys that were revoked are so in the database no more" if self._fallen_back else None

    @property
    def knows_anybody(self) -> bool:
        """Whether keys count: they were read, and not too long ago."""
        return time.monotonic() <= self._good_until_s

    def known(self, authorization: str, /) -> Principal | None:
        # A look into the ring takes no longer than one into a memory of it would.
        found = _AUTHORIZATION.fullmatch(authorization)
        key = None if found is None or not self.knows_anybody else self._with_secret(*found.groups())
        return None if key is None or key.defect() is not None else key.principal

    async def principal_of(self, credential: str) -> Principal:
        found = _TEXT.fullmatch(credential)
        if found is None:
            raise NotAuthentic("it is no API key")
        if not self.knows_anybody:
            raise KeysUnknown("API keys cannot be checked now")
        key = self._with_secret(*found.groups())
        if key is None:
            raise NotAuthentic("no API key is known by it")
        if (defect := key.defect()) is not None:
            raise NotAuthentic(defect)
        return key.principal

    def _with_secret(self, key_id: str, secret: str) -> _KnownKey | None:
        key = self._keys.get(key_id)
        # Of an unknown id, too: how long it takes tells nothing.
        is_right = hmac.compare_digest(_digest_of(secret), key.row.digest if key is not None else "")
        return key if is_right else None

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            await self._refresh()

    async def _refresh(self) -> None:
        began_s = time.monotonic()
        try:
            keys = await self._read()
        except LaneElsewhere as error:
            # Which of them were revoked, or made, is known elsewhere only.
            self._keys, self._good_until_s = {}, -inf
            self._not_read(str(error))
            return
        except (DatabaseUnavailable, UnreadableRow) as error:
            self._not_read(str(error))
            return
        except Exception as error:  # noqa: BLE001  # a defect: revoked keys must not count on
            self._not_read(described(error), error)
            return
        if self._why is not None:
            log.info("api_keys_read", keys=len(keys))
        self._why = None
        self._good_until_s = began_s + self._age_s_max
        self._take({key.id: key for key in keys})

    def _take(self, keys: dict[str, ApiKey]) -> None:
        """What the database says counts, but for a key that it had as revoked: nobody takes that back. It was restored
        from a copy of before, or another server has taken its place that lacks its last changes."""
        self._fallen_back = sorted(key_id for key_id in self._revoked.keys() & keys if keys[key_id].revoked_at is None)
        if self._fallen_back and self._line_of_fallen_back.is_due("", time.monotonic()):
            log.error("api_key_revocations_lost", keys=self._fallen_back[:_SHOWN], number=len(self._fallen_back))
        lost = sorted(key_id for key_id, key in self._keys.items() if key_id not in keys and key.defect() is None)
        if lost:
            log.error("api_keys_lost", keys=lost[:_SHOWN], number=len(lost))
        known = keys | {key_id: keys[key_id].replace(revoked_at=self._revoked[key_id]) for key_id in self._fallen_back}
        self._revoked = {key_id: key.revoked_at for key_id, key in known.items() if key.revoked_at is not None}
        self._keys = {key_id: _KnownKey(key) for key_id, key in known.items()}

    def _not_read(self, why: str, defect: Exception | None = None) -> None:
        self._why = why
        if self._line.is_due(why, time.monotonic()):
            log.error("api_keys_not_read", reason=why, exc_info=defect)


def _digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
