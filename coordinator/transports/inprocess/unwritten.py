"""A command that is to be written into a lane's journal."""

import asyncio
from typing import NamedTuple

from coordinator.service.errors import OutcomeUnknown


class UnwrittenCommand(NamedTuple):
    """A command that is to be written down, and the future of the issuer that waits for this."""

    number: int
    command_id: str
    message: bytes
    written: "asyncio.Future[None]"

    def is_safe(self) -> None:
        if not self.written.done():
            self.written.set_result(None)

    def fail(self, why: str) -> None:
        if not self.written.done():
            self.written.set_exception(OutcomeUnknown(f"command {self.command_id} is under way, and not safe: {why}"))
