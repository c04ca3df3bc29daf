"""What pages ask of a lane blocks: it is done in threads, so many for each lane, and each wait is bounded.

A lane whose database hangs keeps its own threads waiting, and nobody else's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aiohttp import web

from coordinator.operate.open import lane_admin
from coordinator.service.errors import Overloaded
from coordinator.stores.admin import LaneAdmin

THREADS: Final = 3
WAITING_MAX: Final = 12
READ_S: Final = 10.0
T = TypeVar("T")


class LaneThreads:
    """The threads of all lanes."""

    def __init__(self, lanes: Sequence[str]) -> None:
        self._executors = {lane: ThreadPoolExecutor(THREADS, thread_name_prefix=f"ask-{lane}") for lane in lanes}
        self._waiting = dict.fromkeys(lanes, 0)

    async def read(self, lane: str, work: Callable[[LaneAdmin], T], timeout_s: float = READ_S) -> T:
        """Do something with the database of a lane, over a connection of its own. Raises as `run`."""

        def connected() -> T:
            with lane_admin(lane) as admin:
                return work(admin)

        return await self.run(lane, connected, timeout_s)

    async def run(self, lane: str, work: Callable[[], T], timeout_s: float = READ_S) -> T:
        """Do something that blocks. Raises what it raises, and Unavailable where it does not end in time, or too many
        wait already. What does not end in time goes on."""
        if self._waiting[lane] >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} requests wait for lane {lane} already: try again")
        self._waiting[lane] += 1
        future = asyncio.get_running_loop().run_in_executor(self._executors[lane], work)
        future.add_done_callback(lambda _: self._end(lane))
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
        if not done:
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Overloaded(
                f"lane {lane} has not answered within {timeout_s:g} s; what was asked for may still be done"
            )
        return future.result()

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        yield
        for executor in self._executors.values():
            executor.shutdown(wait=False, cancel_futures=True)

    def _end(self, lane: str) -> None:
        self._waiting[lane] -= 1
