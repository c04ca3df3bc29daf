"""The API keys in a lane's database, for operators; gateways read them by coordinator/client/api_keys.py."""

from datetime import datetime
from typing import Final, Protocol

from coordinator.stores.lane_tables import ApiKey

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

    def close(self) -> None:
        """Close the connections. Never raises."""


class TooManyKeys(Exception):
    """Raised where `KEYS_MAX` are there already."""
