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

from coordinator.operations.kept_admins import KeptAdmins
from coordinator.operations.lane_access import LaneRights
from coordinator.service.errors import Overloaded
from coordinator.stores.admin import LaneAdmin

THREADS: Final = 3
WAITING_MAX: Final = 12
READS_OF_ONE_MAX: Final = WAITING_MAX // 2
SEARCHES_OF_ONE_MAX: Final = THREADS - 1
"""A search goes through all lanes, and holds a thread for as long as the slowest of them."""
READ_S: Final = 10.0
_SEARCH: Final = "the search through all lanes"
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
        self._operators_reads = {lane: _Waiting(f"ask-{lane}-for-operators") for lane in lanes}
        self._acts = {lane: _Waiting(f"act-{lane}") for lane in lanes}
        self.admins = KeptAdmins()
        """The lanes' databases. Asking them blocks: it is for these threads."""
        self._searches, self._operators_searches = _Waiting("find"), _Waiting("find-for-operators")

    async def read(self, lane: str, rights: LaneRights, work: Callable[[LaneAdmin], T], timeout_s: float = READ_S) -> T:
        """Read from the database of a lane, for whoever has these rights. Raises as `run`. Whoever may only look keeps
        no operator of the lane waiting."""

        def connected() -> T:
            with self.admins.opened(lane) as admin:
                return work(admin)

        waiting = (self._operators_reads if lane in rights.operated else self._reads)[lane]
        _check_share(waiting, rights, READS_OF_ONE_MAX, f"lane {lane}")
        return await self._run(waiting, f"lane {lane}", rights.share, connected, timeout_s)

    async def run(self, lane: str, work: Callable[[], T], timeout_s: float = READ_S) -> T:
        """Do an act, which blocks. Raises what it raises, and Unavailable where it does not end in time, or too many
        wait already. What does not end in time goes on."""
        return await self._run(self._acts[lane], f"lane {lane}", "", work, timeout_s)

    async def search(self, rights: LaneRights, work: Callable[[], T], timeout_s: float) -> T:
        """Look for something in all lanes, for whoever has these rights. Raises as `run`. A lane that hangs keeps
        searches waiting, and nothing else; and whoever may only look keeps no operator waiting."""
        waiting = self._operators_searches if rights.operated else self._searches
        _check_share(waiting, rights, SEARCHES_OF_ONE_MAX, _SEARCH)
        return await self._run(waiting, _SEARCH, rights.share, work, timeout_s)

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        yield
        searches = (self._searches, self._operators_searches)
        for each in (*self._reads.values(), *self._operators_reads.values(), *self._acts.values(), *searches):
            each.executor.shutdown(wait=False, cancel_futures=True)
        self.admins.close()

    async def _run(self, waiting: _Waiting, what: str, who: str, work: Callable[[], T], timeout_s: float) -> T:
        if waiting.requests >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} requests wait for {what} already: try again")
        waiting.begin(who)
        future = asyncio.get_running_loop().run_in_executor(waiting.executor, work)
        future.add_done_callback(lambda _: waiting.end(who))
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
        if not done:
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Overloaded(f"{what} has not answered within {timeout_s:g} s; what was asked for may still be done")
        return future.result()


def _check_share(waiting: _Waiting, who: LaneRights, most: int, what: str) -> None:
    """Raises Overloaded where so many wait for one person that others would wait for them."""
    if waiting.of[who.share] >= most:
        raise Overloaded(f"{most} requests of {who.author} wait for {what} already: try again")
