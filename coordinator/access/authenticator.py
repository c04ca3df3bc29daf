"""The seam between a gateway and whatever checks credentials."""

from typing import Final, Protocol

from coordinator.service.errors import CoordinatorError
from coordinator.service.principal import Principal

BEARER: Final = "Bearer "
"""Before the credential, in the value of `Authorization`."""


class NotAuthentic(CoordinatorError):
    """Raised for a credential that proves nothing. The message is for its sender, and holds nothing of it."""


class Authenticator(Protocol):
    """Finds out whose a credential is."""

    def known(self, authorization: str, /) -> Principal | None:
        """The principal that a value of `Authorization` proves, where that takes no wait: `Bearer`, a space, and a
        credential. None: ask `principal_of`, which says why."""

    async def principal_of(self, credential: str) -> Principal:
        """The principal that a credential proves. Raises NotAuthentic, and Unavailable while nothing can be checked."""

    @property
    def knows_anybody(self) -> bool:
        """Whether there is anything now by which a caller is known: else each request is refused."""

    async def problem(self) -> str | None:
        """Why it cannot check as it should, in words for anybody; None: it can."""

    async def start(self) -> None:
        """Fetch what it needs, and go on doing so. Raises ConfigurationError."""

    async def close(self) -> None:
        """Stop. Never raises."""
