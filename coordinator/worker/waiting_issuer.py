"""The side of an issuer of commands that waits in the process of the lane."""

import asyncio

from coordinator.service.outcome import Outcome


class WaitingIssuer:
    """An issuer that waits for the outcome of a command that was handed to a lane."""

    __slots__ = ("_loop", "command_id", "lane", "outcome")

    def __init__(self, lane: str, command_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self.lane = lane
        self.command_id = command_id
        self._loop = loop
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        """Set by the lane's side. Another one takes its place when a wait is over."""

    async def wait(self, timeout_s: float) -> Outcome | None:
        """Return the outcome, or None if it has not come in time: then `outcome` waits on.

        Every command passes here: `asyncio.wait` takes several times as long.
        """
        timer = self._loop.call_later(timeout_s, self._end_wait)
        try:
            return await self.outcome
        except TimeoutError:
            return None
        finally:
            timer.cancel()

    def _end_wait(self) -> None:
        if not self.outcome.done():
            waited, self.outcome = self.outcome, self._loop.create_future()
            waited.set_exception(TimeoutError())
