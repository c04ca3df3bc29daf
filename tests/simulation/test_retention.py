"""What the simulated log must not forget: the guarantee is about what nobody sends any more."""

from collections.abc import Iterator
from contextlib import closing

import pika
import pytest

from tests.simulation.broker import public_message
from tests.simulation.process import Process
from tests.simulation.retention import Retention
from tests.simulation.store import SimulatedStore
from tests.simulation.world import World

COMMAND = "0000000f-0000-7000-8000-000000000001"


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World(1)) as world:
        # Nothing happens but what a test does.
        world.is_calm = True
        yield world


def delivered_to(process: Process) -> None:
    """The broker delivers a command to a process, which now is the lane's consumer."""
    world = process.world
    process.connect()
    properties = pika.BasicProperties(message_id=COMMAND, type="ledger.keep")
    world.broker.put("ledger", public_message(properties, b'{"number":1}', (COMMAND,)))
    while not process.received_at:
        world.broker.step()
        process.step_io()


def settled_by_another(process: Process) -> None:
    """The process loses its channel, another one settles what came on that, and the process gets a new channel."""
    world = process.world
    assert process.channel is not None
    world.broker.drop_channel(process.channel)
    world.broker.queues["ledger"].ready.clear()
    while process.channel is None or not process.channel.is_open:
        process.step_io()
        world.now += 0.1


def test_what_a_stalled_thread_took_from_a_channel_of_before_may_be_applied_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = world.processes["ledger-0"]
    kept: list[set[str | None]] = []

    def stall(store: SimulatedStore, point: str) -> None:
        if point == "ask whose the lane is" and not kept:
            settled_by_another(process)
            kept.append(Retention(world)._may_come(store.database))

    monkeypatch.setattr(SimulatedStore, "call", stall)
    process.step_lane()
    delivered_to(process)
    process.step_lane()
    assert COMMAND in kept[0]
    process.step_lane()
    assert COMMAND not in Retention(world)._may_come(process.store.database)
