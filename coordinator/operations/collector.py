"""One look at all lanes for all viewers, again and again.

Each lane's database has a thread of its own, and the broker another: what is away makes only its own part old. While
nobody watches, looks are rarer; they keep the charts.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from typing import Any, Final, TypeVar

import structlog
from aiohttp import web
from msgspec import Struct, UnsetType

from coordinator.operate.conditions import (
    LaneCondition,
    cause_of,
    full_queues,
    outbox_age_s,
    own_processes,
    state_of,
)
from coordinator.operate.effects_conditions import effects_condition, unsaid_depth
from coordinator.operate.lane_status import LaneStatus, estimate_lag, note_queue
from coordinator.operate.move_status import in_words
from coordinator.operate.one_process import socket_of
from coordinator.operate.processes import TELL_HELD, SeenProcess
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operations.broker_watch import BrokerWatch, LaneDepth
from coordinator.operations.coordinators import Coordinators
from coordinator.operations.lane_watch import LaneWatch, Look
from coordinator.operations.views import LanePoint, LaneView
from coordinator.runtime.ending import end_tasks
from coordinator.service.outside_calls import effects_key

FIRST_LOOK_S: Final = 1.5
"""How long whoever asks for readiness waits for the first look: less than a gateway's check may last."""
LOOK_TIMEOUT_S: Final = 3.0
"""What has not answered after this time is shown as away; its thread goes on to wait."""
UNWATCHED_S: Final = 5.0
REST_S_MIN: Final = 0.05
"""Between two looks that take long."""
POINTS_MAX: Final = 600
POINT_EVERY_S: Final = 1.0
RATE_S: Final = 5.0

log = structlog.get_logger("operations")
T = TypeVar("T")


class Arrived(Struct, frozen=True):
    """At this time, by a clock that never jumps, so many commands had come: those settled, and those that waited. None:
    nobody could count these."""

    at_s: float
    commands: int | None
    sequence: int


class _Thread:
    """A thread that does one thing at a time. While it still does the last one, it is asked for nothing more."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._going_on: asyncio.Future[Any] | None = None

    async def ask(self, work: Callable[[], T]) -> T | None:
        """Its result; None: it takes too long."""
        if self._going_on is not None and not self._going_on.done():
            return None
        future = self._going_on = asyncio.get_running_loop().run_in_executor(self._executor, work)
        # One that fails after nobody waits for it any more, as when the gateway stops, is no news.
        future.add_done_callback(_heard)
        done, _ = await asyncio.wait({future}, timeout=LOOK_TIMEOUT_S)
        return future.result() if done else None

    def end(self, work: Callable[[], None]) -> None:
        """Do this last. It does not wait for what hangs."""
        self._executor.submit(work)
        self._executor.shutdown(wait=False, cancel_futures=False)


class LaneCollector:
    """The lanes as they were at the last look, and over the last minutes."""

    def __init__(self, lanes: Sequence[str], coordinators: Sequence[str], refresh_s: float) -> None:
        self.lanes = tuple(lanes)
        self._refresh_s = refresh_s
        self._watches = {lane: LaneWatch(lane) for lane in lanes}
        self._brokered = [lane for lane in lanes if socket_of(lane) is None]
        self._threads = {lane: _Thread(f"look-{lane}") for lane in lanes}
        self._broker, self._broker_thread = BrokerWatch(), _Thread("look-broker")
        self._coordinators = Coordinators(coordinators)
        self._arrived: dict[str, deque[Arrived]] = {lane: deque(maxlen=10_000) for lane in lanes}
        self._looks: dict[str, Look] = {}
        self.points: dict[str, deque[LanePoint]] = {lane: deque(maxlen=POINTS_MAX) for lane in lanes}
        self.views: dict[str, LaneView] = {}
        self.number = 0
        """Of looks. It grows."""
        self.watching = 0
        """How many watch."""
        self._seen = asyncio.Condition()
        self._woken = asyncio.Event()
        self._is_hurried = False
        self._looked_s = -inf

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        looking = asyncio.create_task(self._look_for_ever(), name="operations: looks")
        try:
            yield
        finally:
            await end_tasks(looking)
            await self._coordinators.close()
            for lane, thread in self._threads.items():
                thread.end(self._watches[lane].close)
            self._broker_thread.end(self._broker.close)

    async def problem(self) -> str | None:
        """For readiness. What is away of the lanes' servers is shown, and is no reason not to show it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.next(0)
        return None if self.number else "the lanes have not been looked at yet"

    async def next(self, number: int) -> None:
        """Return once there was another look than the one of this number."""
        async with self._seen:
            await self._seen.wait_for(lambda: self.number != number)

    def hurry(self) -> None:
        """Look now: somebody has done something."""
        self._is_hurried = True
        self._woken.set()

    async def recent(self) -> None:
        """Return once the last look is no older than whoever watches would see it; a look that hangs is not waited for.

        All who ask meanwhile share one.
        """
        if time.monotonic() - self._looked_s <= self._refresh_s:
            return
        self.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await self.next(self.number)

    def see_viewer(self) -> None:
        """One more watches. He is shown the last look, and the next one when it is due while somebody watches.

        Whoever comes again and again does not have it look more often.
        """
        self._woken.set()

    async def _look_for_ever(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await self._look()
            except Exception:
                # A defect. The pages show old values, and say how old.
                log.exception("internal_error", service="operations")
            await self._rest(began_s)

    async def _rest(self, began_s: float) -> None:
        """Until the next look is due; the last one began then."""
        ended_s = time.monotonic()
        while not self._is_hurried:
            every_s = self._refresh_s if self.watching else max(UNWATCHED_S, self._refresh_s)
            until_s = max(began_s + every_s, ended_s + REST_S_MIN)
            self._woken.clear()
            try:
                async with asyncio.timeout(until_s - time.monotonic()):
                    await self._woken.wait()
            except TimeoutError:
                return
        self._is_hurried = False

    async def _look(self) -> None:
        processes, depths, looks = await asyncio.gather(
            self._coordinators.look(),
            _or_away("the broker", self._broker_thread.ask(lambda: self._broker.look(self._brokered))),
            asyncio.gather(
                *(_or_away(f"lane {lane}", self._threads[lane].ask(self._watches[lane].look)) for lane in self.lanes)
            ),
        )
        now_s = time.monotonic()
        for lane, found in zip(self.lanes, looks, strict=True):
            look = self._looks[lane] = found or self._late(lane)
            if lane in self._brokered:
                _note_depth(look, lane, "the broker does not answer" if depths is None else depths)
        local = [lane for lane in self.lanes if self._looks[lane].is_local]
        full = full_queues({lane: self._looks[lane].status for lane in self.lanes}, local)
        for lane in self.lanes:
            self.views[lane] = self._view(lane, self._looks[lane], processes, now_s, full.get(lane), depths)
        self.number += 1
        self._looked_s = time.monotonic()
        async with self._seen:
            self._seen.notify_all()

    def _late(self, lane: str) -> Look:
        """In the place of a look that has not ended: nothing is asked, since that may be what hangs."""
        before = self._looks.get(lane)
        is_local = lane not in self._brokered if before is None else before.is_local
        status = LaneStatus(lane=lane, errors=[f"the database of lane {lane} does not answer"])
        return Look(status=status, recent=[], latency=None, kinds=[], is_local=is_local)

    def conditions(self) -> dict[str, LaneCondition]:
        """How the lanes did at the last look; those that it has not seen yet are left out."""
        return {
            lane: LaneCondition(
                lane=lane,
                state=view.state,
                why=view.why,
                waiting=view.backlog,
                cause=cause_of(view.state, view.status, view.processes),
                full=view.full,
                effects=view.effects,
                can_be_asked=view.status.sequence is not None,
                is_local=self._looks[lane].is_local,
            )
            for lane, view in self.views.items()
        }

    def _view(
        self,
        lane: str,
        look: Look,
        every: list[SeenProcess],
        now_s: float,
        full: str | None,
        depths: dict[str, LaneDepth] | str | None,
    ) -> LaneView:
        own = [each for each in every if each.lane == lane]
        processes = [each for each in own if not each.is_worker]
        status, arrived = look.status, self._arrived[lane]
        held = sum(each.held for each in processes)
        backlog = None if status.ready is None else status.ready + held
        if status.sequence is not None:
            commands = None if backlog is None else status.sequence + backlog
            arrived.append(Arrived(now_s, commands, status.sequence))
        status.rate = _rate(arrived, now_s)
        estimate_lag(status)
        p95_ms = look.latency.p95_ms if look.latency is not None else None
        point = LanePoint(round(time.time(), 2), backlog, status.rate, p95_ms)
        _keep(self.points[lane], point)
        is_local = look.is_local
        perhaps_own = own_processes(lane, every)
        state, why = state_of(status, backlog, perhaps_own, _still_s(arrived, now_s), is_local=is_local)
        return LaneView(
            state=state,
            why=why,
            status=status,
            backlog=backlog,
            is_least=not is_local and not any(each.state in TELL_HELD for each in processes),
            oldest_s=_oldest_s(arrived, backlog, now_s),
            latency=look.latency,
            kinds=look.kinds,
            full=full,
            effects=status.effects
            if is_local
            else effects_condition(_effects_in(depths, lane), perhaps_own, outbox_age_s(status, effects_key(lane))),
            processes=own,
            point=point,
            recent=look.recent,
            move=None if status.move is None else in_words(status.move),
        )


async def _or_away(what: str, asked: Awaitable[T]) -> T | None:
    """What one of those asked has said; None: it has not, in time or for a defect, which hides nobody else."""
    try:
        return await asked
    except Exception:
        log.exception("internal_error", service="operations", asked=what)
        return None


def _effects_in(depths: dict[str, LaneDepth] | str | None, lane: str) -> EffectsDepth | UnsetType | None:
    return depths[lane].effects if isinstance(depths, dict) else unsaid_depth(lane)


def _note_depth(look: Look, lane: str, depths: dict[str, LaneDepth] | str) -> None:
    status = look.status
    if isinstance(depths, str):
        status.errors.append(depths)
        return
    depth = depths[lane]
    status.dead_in_broker = depth.dead
    if depth.queue is None:
        status.errors.append(f"there is no queue of lane {lane}: no coordinator has run yet")
    else:
        note_queue(status, depth.queue, is_local=look.is_local)


def _keep(points: deque[LanePoint], point: LanePoint) -> None:
    """Add a point to a chart, unless the last one is of just now. The chart of a clock that was ahead ends where this
    one is."""
    while points and points[-1].at_s > point.at_s:
        points.pop()
    if not points or point.at_s - points[-1].at_s >= POINT_EVERY_S:
        points.append(point)


def _rate(arrived: deque[Arrived], now_s: float) -> float | None:
    """Commands settled a second, of the last seconds; None: it is not known."""
    if len(arrived) < 2 or arrived[-1].at_s != now_s:  # noqa: PLR2004
        return None
    last = arrived[-1]
    first = last
    for each in reversed(arrived):
        first = each
        if now_s - each.at_s >= RATE_S:
            break
    return round((last.sequence - first.sequence) / max(last.at_s - first.at_s, 0.001), 1)


def _oldest_s(arrived: deque[Arrived], backlog: int | None, now_s: float) -> float | None:
    """How long the command at the head of the queue has waited, at least; None: none waits, or it is not known."""
    if not backlog or not arrived or arrived[-1].at_s != now_s:
        return None
    oldest_s, settled = now_s, arrived[-1].sequence
    for each in reversed(arrived):
        if each.commands is None or each.commands <= settled:
            break
        oldest_s = each.at_s
    return round(now_s - oldest_s, 1)


def _still_s(arrived: deque[Arrived], now_s: float) -> float:
    """For how long nothing has been settled while something waited, as far as is known."""
    if not arrived or arrived[-1].at_s != now_s:
        return 0.0
    last, since_s = arrived[-1], now_s
    for each in reversed(arrived):
        if each.sequence != last.sequence or each.commands is None or each.commands == each.sequence:
            break
        since_s = each.at_s
    return now_s - since_s


def _heard(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
