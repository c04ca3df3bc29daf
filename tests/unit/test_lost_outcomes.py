"""Outcomes that were lost on their way reach those who wait; the log is asked for many at once, and for no more."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from coordinator.client.command_log import CommandLog
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, DatabaseUnavailable
from coordinator.stores.lane_tables import LogEntry
from coordinator.transports import lost_outcomes
from coordinator.transports.in_flight import InFlight
from coordinator.transports.lost_outcomes import IDS_AT_ONCE, LostOutcomes
from coordinator.transports.rabbitmq import publisher
from coordinator.transports.rabbitmq.writes import RabbitWrites
from tests.support.fake_broker import FakeBroker, Published, Stream, confirm, fake_broker

WITHIN_S = 20.0
LONG_S = 600.0
SETTINGS = BrokerSettings(reconnect_delay_s=0.005, reconnect_delay_s_max=0.01, connect_timeout_s=WITHIN_S)


def command(number: int) -> CommandMessage:
    return CommandMessage(command_id=f"01900000-0000-7000-8000-{number:012}", type="seats.take", arguments=b"{}")


class SettledLog:
    """Has the commands that are settled, and notes how many it was asked for."""

    def __init__(self) -> None:
        self.settled: set[str] = set()
        self.asked: list[int] = []
        self.was_asked = asyncio.Event()
        self.error: Exception | None = None

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        self.asked.append(len(command_ids))
        self.was_asked.set()
        if self.error is not None:
            raise self.error
        return {each: entry_of(each) for each in command_ids if each in self.settled}


def entry_of(command_id: str) -> LogEntry:
    message = CommandMessage(command_id=command_id, type="seats.take", arguments=b"{}")
    return LogEntry(
        command_id=command_id,
        sequence=1,
        epoch=1,
        type="seats.take",
        fingerprint=UNKEYED.of(message, None),
        status="applied",
        result="{}",
        error_code=None,
        error_message=None,
        actor=None,
        settled_at=datetime.now(UTC),
    )


def waiting(count: int, confirmed_at: float | None) -> list[InFlight]:
    loop = asyncio.get_running_loop()
    entries = [InFlight(command(number), loop.create_future(), LONG_S) for number in range(count)]
    for entry in entries:
        entry.confirmed_at = confirmed_at
    return entries


def lost_among(log: Any, *parts: list[InFlight]) -> LostOutcomes:
    return LostOutcomes(log, lambda: parts)


async def test_the_log_is_asked_for_many_at_once_and_no_further_than_the_lane_has_come() -> None:
    log, entries = SettledLog(), waiting(5 * IDS_AT_ONCE, 0.0)
    log.settled = {entry.command_id for entry in entries[: IDS_AT_ONCE + 1]}
    before = lost_outcomes.FOUND._value.get()
    await lost_among(log).find(entries, in_order=True)
    assert lost_outcomes.FOUND._value.get() - before == IDS_AT_ONCE + 1
    assert log.asked == [IDS_AT_ONCE] * 3
    assert sum(entry.has_outcome for entry in entries) == IDS_AT_ONCE + 1
    log.error = DatabaseUnavailable("away")
    await lost_among(log).find(entries, in_order=True)


async def test_what_should_have_come_is_looked_for_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_outcomes, "LOOK_EVERY_S", 0.001)
    log, now = SettledLog(), time.perf_counter()
    overdue, new, unsent = waiting(3, now - LONG_S), waiting(1, now + LONG_S), waiting(1, None)
    looking = asyncio.create_task(lost_among(log, [*overdue, *new], unsent).keep_looking())
    log.settled = {entry.command_id for entry in overdue}
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(entry.outcome for entry in overdue))
    looking.cancel()
    assert set(log.asked) == {3}


async def test_after_a_loss_the_log_is_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_outcomes, "LOOK_EVERY_S", LONG_S)
    log, entries = SettledLog(), waiting(1, time.perf_counter())
    lost = lost_among(log, entries)
    looking = asyncio.create_task(lost.keep_looking())
    log.settled = {entries[0].command_id}
    lost.connection_is_back()
    async with asyncio.timeout(WITHIN_S):
        await entries[0].outcome
    looking.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Within some turns of the loop."""
    async with asyncio.timeout(WITHIN_S):
        for _ in range(1_000_000):
            if condition():
                return
            await asyncio.sleep(0)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with fake_broker() as broker:
        yield broker


@asynccontextmanager
async def writing(log: CommandLog | None) -> AsyncIterator[RabbitWrites]:
    async with RabbitWrites(SETTINGS, confirm_timeout_s=5, wait_s=LONG_S, in_flight_max=10, log=log) as writes:
        yield writes


@pytest.mark.parametrize("has_log", [True, False])
async def test_who_has_a_log_has_a_new_queue_on_each_connection(broker: FakeBroker, *, has_log: bool) -> None:
    """The old one may be on a node that is down. Who has no log needs what is in it."""
    log: Any = SettledLog() if has_log else None
    async with writing(log) as writes:
        broker.of("replies")[-1].lose(None)
        await until(lambda: len(broker.of("replies")) == 2 and writes.connected)
        first, second = (next(iter(stream.consumers)) for stream in broker.of("replies"))
        assert (first != second) == has_log
        assert writes._reply_queue == second


async def test_an_outcome_that_goes_down_with_its_connection_is_told_from_the_log(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_outcomes, "LOOK_EVERY_S", LONG_S)
    log: Any = SettledLog()
    confirmed = asyncio.Event()

    def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
        confirm(stream, channel, tag, message)
        confirmed.set()

    async with writing(log) as writes:
        broker.on_published = on_published
        issuing = asyncio.create_task(writes.issue("seats", command(1), None))
        await confirmed.wait()
        log.settled = {command(1).command_id}
        await until(lambda: bool(writes._unsettled))
        broker.of("replies")[-1].lose(None)
        async with asyncio.timeout(WITHIN_S):
            assert (await issuing).sequence == 1


async def test_a_command_between_two_connections_waits_for_the_next(broker: FakeBroker) -> None:
    async with writing(None) as writes:
        broker.of("publish")[-1].lose(None)
        await until(lambda: not writes._publisher.is_ready)
        issuing = asyncio.create_task(writes.issue("seats", command(1), 0))
        await until(lambda: issuing.done() or any(each.routing_key == "seats" for each in broker.published))
        assert not issuing.done()
        issuing.cancel()


async def test_a_command_that_no_connection_takes_in_time_was_certainly_not_sent(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "BRIDGED_S", 0.05)
    async with writing(None) as writes:
        broker.plan("", "AMQP", lambda stream, _, __: stream.lose(None), times=100_000)
        broker.of("publish")[-1].lose(None)
        await until(lambda: not writes._publisher.is_ready)
        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            await writes.issue("seats", command(1), None)
        assert not writes._publisher.takes_messages
        with pytest.raises(BrokerUnavailable):
            await writes.issue("seats", command(2), None)
        assert [each for each in broker.published if each.routing_key == "seats"] == []
