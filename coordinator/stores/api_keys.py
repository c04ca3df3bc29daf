"""What a lane's database has for its gateways, for operators: API keys, and the secrets of idempotency keys.

Gateways read them by coordinator/client/api_keys.py and idempotency_secrets.py.
"""

from datetime import datetime
from typing import Final, Protocol

from coordinator.stores.lane_tables import ApiKey, IdempotencySecret

KEYS_MAX: Final = 10_000
"""How many keys a database may have: gateways keep all of them in memory."""


class ApiKeys(Protocol):
    """The keys in one lane's database, for operators. Raises DatabaseUnavailable and ConfigurationError."""

    def every(self) -> list[ApiKey]:
        """All of them, in order of their ids."""

    def add(self, key: ApiKey) -> None:
        """Keep a new one. Raises TooManyKeys."""

    def revoke(self, key_id: str, now: datetime, by: str) -> ApiKey | None:
        """End one, unless it has ended, and return it as it is then; None: there is none."""

    def secrets(self) -> list[IdempotencySecret]:
        """Those of idempotency keys, in order of their ids."""

    def add_secret(self, secret: IdempotencySecret) -> None:
        """Keep a new one, which is in use from now on. Raises SecretTaken."""

    def remove_secrets(self, below: int) -> int:
        """Forget those with lower ids than this, and tell how many there were."""

    def close(self) -> None:
        """Close the connections. Never raises."""


class TooManyKeys(Exception):
    """Raised where `KEYS_MAX` are there already."""


class SecretTaken(Exception):
    """Raised where somebody else has just made a secret of the same id; nothing was changed."""
