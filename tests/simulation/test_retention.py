"""What the simulated log must not forget: the guarantee is about what nobody sends any more."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pika
import pytest

from coordinator.service.options import Options
from coordinator.stores.lane_tables import DeadLetter
from tests.simulation.broker import public_message, system_message
from tests.simulation.letters import MISMATCH, continuation_of_mismatch
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


def test_the_continuation_of_a_copy_whose_id_is_another_s_may_be_emitted_again(world: World) -> None:
    """Its letter, which could tell that it is a copy, may be forgotten by then."""
    letter = DeadLetter(
        id=1,
        source=f"{COMMAND} fingerprint",
        target="ledger",
        command_id=COMMAND,
        type="ledger.deposit",
        origin="system",
        code=MISMATCH,
        reason="the id is that of another command",
        traceback=None,
        sequence=None,
        arguments=b"{}",
        size_bytes=2,
        options=Options(continuation="journal.audited").encode(),
        copies=1,
        dead_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    child = continuation_of_mismatch(letter)
    assert child is not None
    world.databases["ledger"].book.ever[letter.id] = letter
    journal = world.databases["journal"]
    assert child.command_id not in Retention(world)._may_come(journal)
    world.broker.put("ledger", system_message(COMMAND, "ledger.deposit", b"{}"))
    assert child.command_id in Retention(world)._may_come(journal)
