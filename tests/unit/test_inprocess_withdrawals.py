"""In one process an operator withdraws from an outbox only what no other lane has yet."""

import asyncio
from typing import Any

import msgspec
import pytest

from coordinator import Command, Service, UnitOfWork
from coordinator.lane.control import WithdrawEmitted, Withdrawn
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker.inprocess import InProcessWrites

one, two = Service("one"), Service("two")


class Go(Command, type="two.go"): ...


class Send(Command, type="one.send"): ...


@one.handles(Send)
def send(work: UnitOfWork, command: Send) -> None:
    work.emit(Go())


@two.handles(Go, on_failure="block")
def go(work: UnitOfWork, command: Go) -> None:
    raise ZeroDivisionError


async def issued(writes: InProcessWrites, command: Any) -> Outcome:
    message = CommandMessage(new_command_id(), command.type, msgspec.json.encode(command), "system")
    return await writes.issue("one", message, 10)


@pytest.fixture
async def database() -> MemoryDatabase:
    return MemoryDatabase()


async def test_what_another_lane_has_is_not_said_to_be_withdrawn(database: MemoryDatabase) -> None:
    stores = {"one": MemoryStore(database), "two": MemoryStore(MemoryDatabase())}
    async with InProcessWrites(stores, [one, two]) as writes:
        await issued(writes, Send())
        while not writes._under_way:  # noqa: ASYNC110  # it says so to nobody
            await asyncio.sleep(0)
        (entry,) = (row.id for row in database.tables[OutboxEntry].values() if isinstance(row, OutboxEntry))
        outcome = await issued(writes, WithdrawEmitted(entries=[entry]))
        assert outcome.error is not None
        assert outcome.error.code == "handed_over"
        assert entry in database.tables[OutboxEntry]


async def test_what_no_lane_has_is_withdrawn(database: MemoryDatabase) -> None:
    async with InProcessWrites({"one": MemoryStore(database)}, [one, two], targets={"one", "two"}) as writes:
        await issued(writes, Send())
        (entry,) = (row.id for row in database.tables[OutboxEntry].values() if isinstance(row, OutboxEntry))
        outcome = await issued(writes, WithdrawEmitted(entries=[entry]))
        assert len(msgspec.json.decode(outcome.result, type=Withdrawn).command_ids) == 1
        assert not database.tables[OutboxEntry]
