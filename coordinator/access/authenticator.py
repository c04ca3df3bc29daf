"""The seam between a gateway and whatever checks credentials."""

from typing import Protocol

from coordinator.service.errors import CoordinatorError
from coordinator.service.principal import Principal


class NotAuthentic(CoordinatorError):
    """Raised for a credential that proves nothing. The message is for its sender, and holds nothing of it."""


class Authenticator(Protocol):
    """Finds out whose a credential is."""

    def known(self, credential: str, /) -> Principal | None:
        """The principal that it proves, where that takes no wait; None: ask `principal_of`, which says why."""

    async def principal_of(self, credential: str) -> Principal:
        """The principal that it proves. Raises NotAuthentic, and Unavailable while nothing can be checked."""

    async def problem(self) -> str | None:
        """Why it cannot check as it should, in words for anybody; None: it can."""

    async def start(self) -> None:
        """Fetch what it needs, and go on doing so. Raises ConfigurationError."""

    async def close(self) -> None:
        """Stop. Never raises."""
