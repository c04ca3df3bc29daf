"""Ids of the commands that principals ask for with idempotency keys."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import structlog
from msgspec import Struct

from coordinator.access.secret_times import SecretTimes
from coordinator.client.database import LaneElsewhere
from coordinator.client.idempotency_secrets import LaneSecrets
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.descriptions import described
from coordinator.service.errors import DatabaseUnavailable, Unavailable
from coordinator.service.ids import command_id_for, scoped_command_id_for
from coordinator.service.principal import Principal, of_broker_user
from coordinator.stores.idempotency import NEW_LANE_COUNTS_S, SECRET_COUNTS_S, SECRET_SETTLES_S
from coordinator.stores.lane_tables import IdempotencySecret

READ_AGAIN_S: Final = 1.0
"""How often they are read while they cannot be."""
REFRESH_S: Final = 5.0
"""How often they are read again."""
CLOCKS_DIFFER_S: Final = 10.0
"""By how much a lane's clock may be ahead of that of the machine where a secret was made."""

_FORMER_UNTIL: Final = timedelta(seconds=SECRET_COUNTS_S + SECRET_SETTLES_S + CLOCKS_DIFFER_S)
"""How long after the next secret was made a command may be settled that was asked for with the one before."""

log = structlog.get_logger("access")


class SecretsUnknown(Unavailable):
    """Raised while no secret counts: the same key would stand for another command at another gateway, or afterwards."""

    code = "idempotency_unavailable"


class FormerId(Struct, frozen=True):
    """An id that a principal's key stood for before, and which command of the log under it was asked for by that key.

    Anybody may give a command this id, who can make it. So it is one of those that `actors` asked for, as the log has
    them (None: nobody who was known), and that were settled by `until` (None: at whatever time).
    """

    command_id: str
    actors: tuple[str | None, ...]
    until: datetime | None = None

    @property
    def is_without_secret(self) -> bool:
        """Whether everybody can make it."""
        return None in self.actors

    def is_of(self, actor: str | None, settled_at: datetime, *, is_forgotten: bool = False) -> bool:
        """Whether the key stands for the command that the log has under this id.

        A forgotten one may have lost its actor: then whoever can make its id has it, and it is not applied again.
        """
        is_his = actor in self.actors or (is_forgotten and actor is None)
        return is_his and (self.until is None or settled_at <= self.until)


class KeyedIds:
    """Makes them with the secrets of one lane's database, which it reads again and again.

    All gateways of a lane use the same secret, or none (`SecretTimes`): one that could not read for long has none, and
    while another secret takes over there is none for some seconds. `account` is the broker's account of this gateway: a
    lane that does not believe it has that in the log, and not who asked.
    """

    def __init__(self, read: Callable[[], Awaitable[LaneSecrets]], *, account: str | None = None) -> None:
        self._read = read
        self._account = None if account is None else of_broker_user(account)
        self._times = SecretTimes()
        self._is_failing = False
        self._has_run = True
        self._reading: asyncio.Task[None] | None = None
        self._line = RepeatedLine()

    async def start(self) -> None:
        """Read them, and go on in the background."""
        await self._refresh()
        self._reading = asyncio.create_task(self._refresh_for_ever(), name="idempotency secrets")

    async def close(self) -> None:
        """Stop. Never raises."""
        await end_tasks(self._reading)

    async def problem(self) -> str | None:
        """Why it cannot make ids, in words for anybody; None: it can."""
        now = time.monotonic()
        if self._times.at(now):
            return None
        if self._times.is_old(now):
            return "the idempotency secrets cannot be read"
        return "another idempotency secret is about to count"

    def id_for(self, principal: Principal | None, lane: str, key: str) -> str:
        """The id that this key of this principal stands for, or of all who are not known, where that is None: none of
        a principal's. Raises SecretsUnknown and InvalidCommand."""
        return _scoped(self._known()[0], principal, lane, key)

    def former_ids_for(self, principal: Principal | None, lane: str, key: str) -> list[FormerId]:
        """The ids that it stood for with earlier secrets, and where everybody might ask; the latest first.

        With a secret it is the principal's own key, until the next secret counted. Without one it is that of all who
        were not known, and a gateway may have let them in at any time.
        """
        known = self._known()
        ids = list[FormerId]()
        for successor, former in pairwise(known):
            if not former.secret:
                ids.append(FormerId(command_id_for(lane, key), (None,)))
                continue
            command_id = _scoped(former, principal, lane, key)
            ids.append(FormerId(command_id, self._logged(principal), successor.made_at + _FORMER_UNTIL))
        return ids

    def _logged(self, principal: Principal | None) -> tuple[str | None, ...]:
        own = None if principal is None else principal.as_logged
        return (own,) if self._account is None else (own, self._account.as_logged)

    def _known(self) -> tuple[IdempotencySecret, ...]:
        known = self._times.at(time.monotonic())
        if not known:
            raise SecretsUnknown("idempotency keys cannot be told apart now: repeat the request later")
        return known

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(READ_AGAIN_S if self._is_failing else REFRESH_S)
            await self._refresh()

    async def _refresh(self) -> None:
        began = time.monotonic()
        try:
            found = await self._read()
        except LaneElsewhere as error:
            # The lane's are in another database. What was read here before may be none of them.
            self._times = SecretTimes()
            self._tell(str(error))
            return
        except DatabaseUnavailable as error:
            self._tell(str(error))
            return
        except Exception as error:  # noqa: BLE001  # a defect: the next try may succeed
            self._tell(described(error), error)
            return
        rows = found.rows
        if not rows or not rows[0].secret:
            self._tell("there is none: run `coordinator migrate`")
            return
        if found.has_run != self._has_run:
            # The lane may have come from another database, with others.
            self._has_run = found.has_run
            self._times = SecretTimes() if found.has_run else SecretTimes(NEW_LANE_COUNTS_S)
        if self._times.take(rows, began=began, ended=time.monotonic(), now=datetime.now(UTC)):
            log.info("idempotency_secret_changes", counts_in_s=SECRET_COUNTS_S + SECRET_SETTLES_S)
        if self._is_failing:
            self._is_failing = False
            log.info("idempotency_secrets_read")

    def _tell(self, reason: str, defect: Exception | None = None) -> None:
        self._is_failing = True
        if self._line.is_due(reason, time.monotonic()):
            log.error("idempotency_secrets_not_read", reason=reason, exc_info=defect)


def _scoped(secret: IdempotencySecret, principal: Principal | None, lane: str, key: str) -> str:
    subject, tenant = ("", None) if principal is None else (principal.subject, principal.tenant)
    return scoped_command_id_for(secret.secret, lane, key, subject=subject, tenant=tenant)
