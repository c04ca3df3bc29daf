"""What the collector makes of its looks: what could not be asked at the last one is told as not known."""

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from msgspec import UNSET

from coordinator.operate.effects_conditions import STUCK_S
from coordinator.operate.lane_status import LaneStatus, estimate_lag
from coordinator.operations import collector as of_collector
from coordinator.operations.collector import Arrived, LaneCollector, _effects_in, _oldest_s, _rate, _still_s
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)


def looks(*seen: tuple[float, int | None, int]) -> deque[Arrived]:
    return deque(Arrived(*each) for each in seen)


def test_the_rate_of_a_lane_that_was_not_asked_now_is_not_known() -> None:
    arrived = looks((0.0, 10, 10), (1.0, 30, 30))
    assert _rate(arrived, 1.0) == 20.0
    assert _rate(arrived, 2.0) is None, "its database did not answer"


def test_how_long_something_has_waited_is_not_known_of_a_lane_that_was_not_asked_now() -> None:
    arrived = looks((0.0, 7, 7), (1.0, 8, 7), (9.0, 8, 7))
    assert _oldest_s(arrived, 1, 9.0) == 8.0
    assert _oldest_s(arrived, 1, 12.0) is None
    assert (_still_s(arrived, 9.0), _still_s(arrived, 12.0)) == (8.0, 0.0)


def test_what_nobody_could_count_is_not_taken_for_none() -> None:
    """A look at which the broker was away does not say that the queue was empty, or full."""
    arrived = looks((0.0, 8, 7), (4.0, None, 7), (5.0, 8, 7))
    assert _still_s(arrived, 5.0) == 0.0 < STUCK_S
    assert _oldest_s(arrived, 1, 5.0) == 0.0
    assert _oldest_s(looks((0.0, 8, 7), (4.0, None, 7)), None, 4.0) is None


async def test_the_first_look_asks_the_broker_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AMQP_URL", "amqp://guest:guest@127.0.0.1:9/")
    collector = LaneCollector(["users"], [], 1.0)
    await collector._look()
    await collector._threads["users"].ask(collector._watches["users"].close)
    view = collector.views["users"]
    assert (view.state, view.backlog) == ("unknown", None)
    assert view.why is not None
    assert "127.0.0.1:9" in view.why
    # This service makes no calls to the outside, so that none are unknown.
    assert view.effects is None
    assert _effects_in("the broker is away", "payments") is UNSET
    assert _effects_in("the broker is away", "nobody") is UNSET


def test_a_lag_by_a_clock_that_is_behind_is_none() -> None:
    status = LaneStatus(lane="users", errors=[])
    status.is_paused, status.sequence, status.ready = False, 7, 3
    status.last_settled_at = datetime.now(UTC) + timedelta(hours=1)
    estimate_lag(status)
    assert status.lag_s == 0.0


async def test_a_clock_that_jumps_changes_no_rate_and_no_wait_and_the_chart_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AMQP_URL", "amqp://guest:guest@127.0.0.1:9/")
    collector = LaneCollector(["users"], [], 1.0)
    jumped_s = [0.0, 3600.0, 3602.0, 0.0, 2.0]
    began_s = time.time()
    for jump_s in jumped_s:
        monkeypatch.setattr(of_collector, "time", Clock(began_s + jump_s))
        await collector._look()
    await collector._threads["users"].ask(collector._watches["users"].close)
    assert [round(each.at_s - began_s) for each in collector.points["users"]] == [0, 2]
    seen = [each.at_s for each in collector._arrived["users"]]
    assert len(seen) == len(jumped_s)
    assert seen[-1] - seen[0] < 60


class Clock:
    """In place of the module: the machine's clock stands still at a time."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s

    def time(self) -> float:
        return self._now_s

    def monotonic(self) -> float:
        return time.monotonic()


def test_top_says_what_it_could_not_ask_from_its_first_round_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.environment, "AMQP_URL", "amqp://guest:guest@127.0.0.1:9/")
    shown = world.json("top", "users", "--rounds", 1, "--every-s", 0.1)["users"]
    assert (shown["state"], shown["status"]["rate"]) == ("unknown", 0.0)
    said = world.run("top", "users", "--rounds", 1, "--every-s", 0.1).stdout
    assert [line.split()[1] for line in said.splitlines() if line.startswith("users ")] == ["unknown"]
    assert "127.0.0.1:9" in said


async def test_who_asks_once_is_not_told_how_lanes_did_a_while_ago() -> None:
    """While nobody watches, looks are rare. All who ask share one, and it is soon enough again."""
    collector = LaneCollector((), (), 60.0)
    async with asynccontextmanager(collector.running)(web.Application()):
        await collector.next(0)
        before = collector.number
        await collector.recent()
        assert collector.number == before
        collector._looked_s -= 61.0
        await asyncio.gather(collector.recent(), collector.recent())
        assert collector.number == before + 1
