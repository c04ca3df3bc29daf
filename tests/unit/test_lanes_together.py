"""What a process with several lanes does when they end; tests/e2e/test_lanes_together.py has real ones."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

import coordinator.worker.lanes_together as module
from coordinator.service.errors import ConfigurationError
from coordinator.worker.lanes_together import LanesTogether, NeighbourLane
from tests.support.ledger import LEDGER
from tests.support.seats import seats

WITHIN_S = 10
Script = Callable[["ScriptedLane", asyncio.Event], int]


class ScriptedLane:
    """In a CoordinatorProcess's place: what it does is what the test says."""

    scripts: dict[str, Script]

    def __init__(self, service: object, *, is_watched: bool, stop_hard: Callable[[], object]) -> None:
        self.name = str(getattr(service, "name", None))
        self.stop_hard = stop_hard
        self.is_stuck = False

    async def serve(self, stop: asyncio.Event) -> int:
        script = self.scripts[self.name]
        if script is runs:
            await stop.wait()
            return 0
        return script(self, stop)


def runs(_: ScriptedLane, __: asyncio.Event) -> int:
    raise AssertionError("it waits until it is stopped")


def ends(_: ScriptedLane, __: asyncio.Event) -> int:
    return 1


def is_wrong(_: ScriptedLane, __: asyncio.Event) -> int:
    raise ConfigurationError("its database has no tables")


def is_wrong_and_stuck(lane: ScriptedLane, __: asyncio.Event) -> int:
    lane.is_stuck = True
    raise ConfigurationError("its account is gone")


def has_a_defect(_: ScriptedLane, __: asyncio.Event) -> int:
    raise ZeroDivisionError


def is_stuck(lane: ScriptedLane, __: asyncio.Event) -> int:
    lane.stop_hard()
    return 1


class LeftHard(BaseException):
    pass


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script, Script], LanesTogether]:
    def left(status: int) -> None:
        raise LeftHard(status)

    def made(one: Script, other: Script) -> LanesTogether:
        ScriptedLane.scripts = {LEDGER.name: one, seats.name: other}
        return LanesTogether([LEDGER, seats], None)

    for service in (LEDGER, seats):
        monkeypatch.setenv(f"{service.name.upper()}_DATABASE_URL", "sqlite:///nowhere.sqlite")
    monkeypatch.setenv("AMQP_URL", "amqp://nobody:secret@localhost")
    monkeypatch.setattr(module, "CoordinatorProcess", ScriptedLane)
    monkeypatch.setattr(module, "stop_at_signals", lambda **_: asyncio.Event())
    monkeypatch.setattr(os, "_exit", left)
    return made


async def served(lanes: LanesTogether) -> int:
    async with asyncio.timeout(WITHIN_S):
        return await lanes.serve()


@pytest.mark.parametrize(("one", "other", "status"), [(ends, is_wrong, 2), (ends, ends, 1)])
async def test_the_process_ends_with_the_worst_once_no_lane_is_left(
    together: Callable[[Script, Script], LanesTogether], one: Script, other: Script, status: int
) -> None:
    assert await served(together(one, other)) == status


@pytest.mark.parametrize("script", [is_stuck, is_wrong_and_stuck, has_a_defect])
async def test_a_stuck_lane_ends_the_process_and_the_others_in_order(
    together: Callable[[Script, Script], LanesTogether], script: Script
) -> None:
    with pytest.raises(LeftHard):
        await served(together(script, runs))
    # A thread says that its lane has ended, and then ends itself.
    join_threads(seats.name)


def join_threads(*lanes: str) -> None:
    names = {f"coordinator {lane}" for lane in lanes}
    threads = [each for each in threading.enumerate() if each.name in names]
    for each in threads:
        each.join(WITHIN_S)
    assert not [each for each in threads if each.is_alive()]


@pytest.mark.parametrize(("one", "other"), [(is_stuck, runs), (ends, ends)])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_may_be_slower_than_the_process_to_see_its_end(
    together: Callable[[Script, Script], LanesTogether], one: Script, other: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_closed = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told = loop.call_soon_threadsafe

        def told_slowly(callback: Callable[..., object], *arguments: object) -> object:
            handle = told(callback, *arguments)
            if threading.current_thread().name.startswith("coordinator "):
                # What it goes on with comes when this loop is gone, or soon would be.
                is_closed.wait(WITHIN_S)
            return handle

        monkeypatch.setattr(loop, "call_soon_threadsafe", told_slowly)
        await served(together(one, other))

    with suppress(LeftHard):
        asyncio.run(main())
    is_closed.set()
    join_threads(LEDGER.name, seats.name)


@pytest.mark.parametrize("script", [ends, is_wrong])
async def test_a_lane_that_has_ended_leaves_the_others_running(
    together: Callable[[Script, Script], LanesTogether], script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, has_ended, noted = asyncio.Event(), threading.Event(), NeighbourLane._end

    def note(lane: NeighbourLane, status: int, reason: str) -> None:
        noted(lane, status, reason)
        has_ended.set()

    monkeypatch.setattr(NeighbourLane, "_end", note)
    monkeypatch.setattr(module, "stop_at_signals", lambda **_: stop)
    serving = asyncio.create_task(served(together(script, runs)))
    await asyncio.to_thread(has_ended.wait, WITHIN_S)
    done, _ = await asyncio.wait({serving}, timeout=0.1)
    assert not done
    stop.set()
    assert await serving in (1, 2)
