"""What a lane's database has for its gateways, for operators: API keys, and the secrets of idempotency keys.

Gateways read them by coordinator/client/api_keys.py and idempotency_secrets.py.
"""

from datetime import datetime
from typing import Final, Protocol

from coordinator.stores.audit_tables import OperatorAct
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

    def secrets(self) -> list[IdempotencySecret]:
        """Those of idempotency keys, in order of their ids."""

    def add_secret(self, secret: IdempotencySecret, act: OperatorAct | None = None) -> None:
        """Keep a new one, which is in use from now on. Raises SecretTaken."""

    def remove_secrets(self, below: int, act: OperatorAct | None = None) -> int:
        """Forget those with lower ids than this, and tell how many there were."""

    def close(self) -> None:
        """Close the connections. Never raises."""


class TooManyKeys(Exception):
    """Raised where `KEYS_MAX` are there already."""


class SecretTaken(Exception):
    """Raised where somebody else has just made a secret of the same id; nothing was changed."""
