"""What those who publish need of a transport's publisher."""

import asyncio
from typing import NoReturn, Protocol

from coordinator.runtime.awaited import Late


class Publishing(Protocol):
    """A publisher that keeps itself connected, and repeats unconfirmed messages in order."""

    @property
    def is_ready(self) -> bool:
        """Whether it is connected, and the broker takes messages."""

    @property
    def takes_messages(self) -> bool:
        """Whether messages may be given to it: it is ready, or has lost its connection only now and may be back."""

    @property
    def is_healthy(self) -> bool:
        """Whether it is ready, or not for a moment only: another connection shows whether a queue is full."""

    @property
    def problem(self) -> str:
        """Why it is not ready, in words for anybody."""

    @property
    def unready_reason(self) -> str:
        """Why it is not ready, naming the broker's host and port."""

    @property
    def late(self) -> Late | None:
        """A confirm, or a sign of the connection's life, that is late."""

    def start(self) -> "asyncio.Task[NoReturn]":
        """Connect in the background, and again whenever the connection is lost."""

    async def wait_ready(self) -> None:
        """Return once connected."""

    async def close(self) -> None:
        """Disconnect."""
