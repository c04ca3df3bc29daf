"""How often the operations gateway looks at the lanes: not as often as anybody likes."""

import asyncio
import threading

import pytest

from coordinator.operations.collector import LaneCollector
from coordinator.operations.lane_routes import COLLECTOR
from tests.unit.test_operations_doors import Start, followed, start

__all__ = ["start"]


class Looks:
    """In place of the looks of a collector, which ask servers: their number."""

    def __init__(self, collector: LaneCollector, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        monkeypatch.setattr(collector, "_look", self.look)

    async def look(self) -> None:
        self.number += 1

    async def reach(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.number < number:  # noqa: ASYNC110  # it says so to nobody
                await asyncio.sleep(0)


async def test_who_opens_pages_again_and_again_has_it_look_no_more_often(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await start(OPERATIONS_REFRESH_S="60")
    collector = door.app[COLLECTOR]
    async with asyncio.timeout(10):
        await collector.next(0)
    looks = Looks(collector, monkeypatch)
    for _ in range(3):
        # What was seen at the last look comes at once.
        (await followed(door)).close()
    assert looks.number == 0
    # Whoever does something is shown what it has changed.
    for number in (1, 2):
        collector.hurry()
        await looks.reach(number)
    assert looks.number == 2


async def test_the_next_look_comes_sooner_once_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = LaneCollector((), [], 0.2)
    looks, loop = Looks(collector, monkeypatch), asyncio.get_running_loop()
    looking = collector.running(None)  # type: ignore[arg-type]  # of which it knows nothing
    await anext(looking)
    await looks.reach(1)
    began_s = loop.time()
    collector.watching += 1
    for _ in range(5):
        collector.see_viewer()
        await asyncio.sleep(0)
    assert looks.number == 1
    await looks.reach(2)
    assert loop.time() - began_s < 4
    await anext(looking, None)


async def test_a_broker_that_hangs_is_not_called_by_the_name_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a Redis."""
    monkeypatch.setenv("AMQP_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setattr("coordinator.operations.collector.LOOK_TIMEOUT_S", 0.05)
    released = threading.Event()
    collector = LaneCollector(("users",), [], 0.2)
    monkeypatch.setattr(collector._broker, "look", lambda _: released.wait(10))
    looking = collector.running(None)  # type: ignore[arg-type]  # of which it knows nothing
    await anext(looking)
    async with asyncio.timeout(10):
        await collector.next(0)
    released.set()
    await anext(looking, None)
    assert "the broker does not answer" in collector.views["users"].status.errors
