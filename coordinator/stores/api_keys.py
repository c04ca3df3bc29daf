"""What a lane's database has for its gateways, for operators: API keys, and the secrets of idempotency keys.

Gateways read them by coordinator/client/api_keys.py and idempotency_secrets.py.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Protocol

import msgspec

from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import ApiKey, IdempotencySecret

KEYS_MAX: Final = 10_000
"""How many keys a database may have: gateways keep all of them in memory."""

SECRETS_MAX: Final = 10
"""How many secrets of idempotency keys: a gateway looks for each key under the ids of all that were made before."""


class ApiKeys(Protocol):
    """The keys in one lane's database, for operators. Raises DatabaseUnavailable and ConfigurationError.

    `act` is who changes something, and why: see `LaneAdmin`.
    """

    def clock(self) -> datetime | None:
        """What the clock of its server says; None: there is no server, and this machine's is the only one."""

    def connect(self) -> None:
        """Connect, and see that the database is the lane's: nothing is changed, and the next error is of a change."""

    def every(self) -> list[ApiKey]:
        """All of them, in order of their ids."""

    def add(self, key: ApiKey, act: OperatorAct | None = None) -> None:
        """Keep a new one. Raises TooManyKeys."""

    def revoke(self, key_id: str, now: datetime, by: str, act: OperatorAct | None = None) -> ApiKey | None:
        """End one, unless it has ended, and return it as it is then; None: there is none."""

    def forget(self, subject: str, tenant: str | None, now: datetime, act: OperatorAct | None = None) -> int:
        """Delete the keys of somebody, which have all ended, and tell how many there were.

        The acts by which they were made no longer say whose they are. Raises KeyCounts where one has not ended.
        """

    def secrets(self) -> list[IdempotencySecret]:
        """Those of idempotency keys, in order of their ids."""

    def add_secret(self, secret: IdempotencySecret, act: OperatorAct | None = None) -> None:
        """Keep a new one, which is in use from now on. Raises SecretTaken."""

    def remove_secrets(self, below: int, act: OperatorAct | None = None) -> int:
        """Forget those with lower ids than this, and tell how many there were."""

    def fingerprint_keys(self) -> list[FingerprintKey]:
        """Those of fingerprints, in order of their ids."""

    def add_fingerprint_key(self, key: FingerprintKey, act: OperatorAct) -> None:
        """Keep a new one, which the lane uses from its next transaction on. Raises SecretTaken."""

    def close(self) -> None:
        """Close the connections. Never raises."""


class TooManyKeys(Exception):
    """Raised where `KEYS_MAX` are there already."""


class KeyCounts(Exception):
    """Raised with the id of a key that has not ended."""


class SecretTaken(Exception):
    """Raised where somebody else has just made a secret of the same id; nothing was changed."""


CREATE_ACT: Final = "keys create"
"""The name of the act by which a key is made: its details say whose it is."""


def ended_ids(keys: Iterable[ApiKey], now: datetime) -> list[str]:
    """The ids of keys that have all ended. Raises KeyCounts for one that has not."""
    ids = []
    for key in keys:
        if key.revoked_at is None and (key.expires_at is None or key.expires_at > now):
            raise KeyCounts(key.id)
        ids.append(key.id)
    return ids


def without_subject(details: str, subject: str, tenant: str | None) -> str | None:
    """The details of an act without whom they name; None: they do not name him."""
    found = msgspec.json.decode(details)
    if (found.get("subject"), found.get("tenant")) != (subject, tenant):
        return None
    return msgspec.json.encode(found | {"subject": None, "tenant": None}, order="deterministic").decode()
