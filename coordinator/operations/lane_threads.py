"""What pages ask of a lane blocks: it is done in threads, so many for each lane, and each wait is bounded.

A lane whose database hangs keeps its own threads waiting, and nobody else's. Acts have threads of their own, and nobody
takes more than half of those for reads: whoever may only look does not keep operators from acting.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aiohttp import web

from coordinator.operate.open import lane_admin
from coordinator.service.errors import Overloaded
from coordinator.stores.admin import LaneAdmin

THREADS: Final = 3
WAITING_MAX: Final = 12
READS_OF_ONE_MAX: Final = WAITING_MAX // 2
READ_S: Final = 10.0
T = TypeVar("T")


class _Waiting:
    """Some threads of one lane, and who waits for them."""

    def __init__(self, name: str) -> None:
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix=name)
        self.requests = 0
        self.of = Counter[str]()

    def begin(self, who: str) -> None:
        self.requests += 1
        self.of[who] += 1

    def end(self, who: str) -> None:
        self.requests -= 1
        self.of[who] -= 1
        if not self.of[who]:
            del self.of[who]


class LaneThreads:
    """The threads of all lanes."""

    def __init__(self, lanes: Sequence[str]) -> None:
        self._reads = {lane: _Waiting(f"ask-{lane}") for lane in lanes}
        self._acts = {lane: _Waiting(f"act-{lane}") for lane in lanes}

    async def read(self, lane: str, who: str, work: Callable[[LaneAdmin], T], timeout_s: float = READ_S) -> T:
        """Do something with the database of a lane, over a connection of its own, for `who`. Raises as `run`."""

        def connected() -> T:
            with lane_admin(lane) as admin:
                return work(admin)

        if self._reads[lane].of[who] >= READS_OF_ONE_MAX:
            raise Overloaded(f"{READS_OF_ONE_MAX} requests of {who} wait for lane {lane} already: try again")
        return await self._run(self._reads[lane], lane, who, connected, timeout_s)

    async def run(self, lane: str, work: Callable[[], T], timeout_s: float = READ_S) -> T:
        """Do an act, which blocks. Raises what it raises, and Unavailable where it does not end in time, or too many
        wait already. What does not end in time goes on."""
        return await self._run(self._acts[lane], lane, "", work, timeout_s)

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        yield
        for each in (*self._reads.values(), *self._acts.values()):
            each.executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, waiting: _Waiting, lane: str, who: str, work: Callable[[], T], timeout_s: float) -> T:
        if waiting.requests >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} requests wait for lane {lane} already: try again")
        waiting.begin(who)
        future = asyncio.get_running_loop().run_in_executor(waiting.executor, work)
        future.add_done_callback(lambda _: waiting.end(who))
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
        if not done:
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Overloaded(
                f"lane {lane} has not answered within {timeout_s:g} s; what was asked for may still be done"
            )
        return future.result()
