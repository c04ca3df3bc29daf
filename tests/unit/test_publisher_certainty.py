"""What a publisher and its writes say of a command that they sent: that nothing was done only where that is certain."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pika
import pytest
from pika.exceptions import ChannelWrongStateError

import coordinator.transports.brokered_writes as writes_module
import coordinator.transports.lost_outcomes as lost_module
from coordinator.client.command_log import Asked, Passed
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.protocol.outcomes import encode_outcome
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage
from coordinator.runtime.awaited import LATE_S
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, CommandPending, OutcomeUnknown, Overloaded
from coordinator.service.outcome import Outcome
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import LogEntry
from coordinator.transports.in_flight import InFlight
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.writes import RabbitWrites

A, B, C, D, E = (f"00000000-0000-7000-8000-00000000000{number}" for number in range(5))


class Channel:
    """Takes everything."""

    def basic_publish(self, *_: Any, **__: Any) -> None:
        pass


def confirmed(publisher: Publisher, method: str) -> None:
    publisher._on_confirm(SimpleNamespace(method=SimpleNamespace(NAME=method, multiple=False, delivery_tag=1)))


def sent(publisher: Publisher, *, times: int) -> "asyncio.Future[None]":
    """A message that was sent on so many connections."""
    future = publisher.publish("writes", "users", pika.BasicProperties(), b"{}")
    (waiting,) = publisher._waiting.values()
    for _ in range(times):
        publisher._by_tag.clear()
        publisher._next_tag = 1
        publisher._send(Channel(), waiting)
    return future


class ClosedChannel:
    """Takes nothing: the broker has closed it."""

    def basic_publish(self, *_: Any, **__: Any) -> None:
        raise ChannelWrongStateError


async def test_what_a_closed_channel_did_not_take_counts_as_not_sent() -> None:
    publisher = Publisher(BrokerSettings(), "test")
    future = publisher.publish("writes", "users", pika.BasicProperties(), b"{}")
    (waiting,) = publisher._waiting.values()
    publisher._send(ClosedChannel(), waiting)
    publisher._give_up_unsent()
    with pytest.raises(BrokerUnavailable):
        await future


@pytest.mark.parametrize(("times", "expected"), [(1, Overloaded), (2, OutcomeUnknown)])
async def test_a_refusal_is_certain_only_of_what_was_sent_once(times: int, expected: type[Exception]) -> None:
    publisher = Publisher(BrokerSettings(), "test")
    future = sent(publisher, times=times)
    confirmed(publisher, "Basic.Nack")
    with pytest.raises(expected):
        await future
    assert isinstance(future.exception(), expected)


@pytest.mark.parametrize(("times", "expected"), [(1, BrokerUnavailable), (2, OutcomeUnknown)])
async def test_a_return_is_certain_only_of_what_was_sent_once(times: int, expected: type[Exception]) -> None:
    publisher = Publisher(BrokerSettings(), "test")
    future = sent(publisher, times=times)
    publisher._on_return(None, None, pika.BasicProperties(headers={"publish-number": 1}), b"")
    confirmed(publisher, "Basic.Ack")
    assert type((await asyncio.gather(future, return_exceptions=True))[0]) is expected


@pytest.mark.parametrize(("times", "expected"), [(0, BrokerUnavailable), (1, OutcomeUnknown)])
async def test_what_a_stop_finds_unconfirmed_is_unknown_once_sent(times: int, expected: type[Exception]) -> None:
    publisher = Publisher(BrokerSettings(), "test")
    future = sent(publisher, times=times)
    await publisher.close()
    assert type((await asyncio.gather(future, return_exceptions=True))[0]) is expected


class UnreadableLog:
    """A log with an entry of another release."""

    async def find(self, command_id: str) -> Any:
        raise TypeError(command_id)


async def test_an_entry_that_cannot_be_read_lets_nobody_wait_for_ever() -> None:
    log: Any = UnreadableLog()
    writes = RabbitWrites(BrokerSettings(), confirm_timeout_s=1, wait_s=1, in_flight_max=9, log=log)
    message = CommandMessage(command_id=A, type="users.create", arguments=b"{}")
    entry = InFlight(message, asyncio.get_running_loop().create_future(), 1.0)
    writes._outcome_is_late([entry])
    async with asyncio.timeout(5):
        with pytest.raises(CommandPending):
            await entry.outcome


ADA = Principal(subject="ada", tenant="acme")
KEYED = Fingerprints({1: "ab" * 32})


class AdasLog:
    """Has Ada's command."""

    def __init__(self, message: CommandMessage) -> None:
        self._entry = LogEntry(
            command_id=A,
            sequence=1,
            epoch=1,
            type="users.create",
            fingerprint=KEYED.of(message),
            status="applied",
            result='{"secret":1}',
            error_code=None,
            error_message=None,
            actor=ADA.as_logged,
            settled_at=datetime.now(UTC),
        )

    async def find_all(self, command_ids: Collection[str]) -> dict[str, Any]:
        return dict.fromkeys(command_ids, self._entry)

    async def fingerprints(self) -> Fingerprints:
        return KEYED


@pytest.mark.parametrize(
    ("actor", "origin", "is_told"),
    [
        (ADA, "public", True),
        (msgspec.structs.replace(ADA, scopes=frozenset({"a"})), "public", True),
        (Principal(subject="ada"), "public", False),
        (Principal(subject="bob", tenant="acme"), "public", False),
        (None, "public", False),
        (None, "system", True),
    ],
)
async def test_an_outcome_in_the_log_is_for_whoever_asked_for_it(actor: Any, origin: Any, is_told: bool) -> None:
    """As the lane would decide, which is too slow to be waited for."""
    message = CommandMessage(command_id=A, type="users.create", arguments=b"{}", origin=origin, actor=actor)
    log: Any = AdasLog(message)
    writes = RabbitWrites(BrokerSettings(), confirm_timeout_s=1, wait_s=1, in_flight_max=9, log=log)
    entry = InFlight(message, asyncio.get_running_loop().create_future(), 1.0)
    writes._outcome_is_late([entry])
    async with asyncio.timeout(5):
        (told,) = await asyncio.gather(entry.outcome, return_exceptions=True)
    assert isinstance(told, Outcome if is_told else CommandPending), told


class SlowLog:
    """Takes its time for each."""

    async def find(self, command_id: str) -> Any:
        raise NotImplementedError

    async def find_all(self, command_ids: Collection[str]) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {}

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        raise NotImplementedError

    async def fingerprints(self) -> Fingerprints:
        return UNKEYED

    async def passages(self, first: int, last: int) -> list[Passed]:
        raise NotImplementedError


async def test_many_whose_time_to_wait_is_over_do_not_wait_much_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_module, "LOOKUPS_S", 0.1)
    writes = RabbitWrites(BrokerSettings(), confirm_timeout_s=1, wait_s=1, in_flight_max=9, log=SlowLog())
    message = CommandMessage(command_id=A, type="users.create", arguments=b"{}")
    loop = asyncio.get_running_loop()
    entries = [InFlight(message, loop.create_future(), 1.0) for _ in range(8000)]
    writes._outcome_is_late(entries)
    async with asyncio.timeout(5):
        told = await asyncio.gather(*(entry.outcome for entry in entries), return_exceptions=True)
    assert {type(each) for each in told} == {CommandPending}


class Issuing:
    """Commands that are issued while more of them wait than are remembered, and what lanes answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writes_module, "UNSETTLED_MAX", 2)
        self.writes = RabbitWrites(BrokerSettings(), confirm_timeout_s=9, wait_s=9, in_flight_max=9, log=None)
        self.published: list[pika.BasicProperties] = []
        monkeypatch.setattr(self.writes._publisher, "publish", self._publish)
        monkeypatch.setattr(type(self.writes._publisher), "is_ready", True)

    def _publish(self, _: str, __: str, properties: pika.BasicProperties, ___: bytes, **____: Any) -> Any:
        self.published.append(properties)
        confirm = asyncio.get_running_loop().create_future()
        confirm.set_result(None)
        return confirm

    async def issue(self, command_id: str, lane: str = "users", wait_s: float | None = None) -> "asyncio.Task[Outcome]":
        """Issue it, and return when it is published."""
        before = len(self.published)
        message = CommandMessage(command_id=command_id, type=f"{lane}.create", arguments=b"{}")
        task = asyncio.create_task(self.writes.issue(lane, message, wait_s))
        while len(self.published) == before:  # noqa: ASYNC110  # in a later turn of the loop
            await asyncio.sleep(0)
        return task

    async def leave(self, *command_ids: str) -> None:
        """Issue them, and do not wait for their outcomes."""
        for command_id in command_ids:
            with pytest.raises(CommandPending):
                await (await self.issue(command_id, wait_s=0))

    def reply(
        self, command_id: str, message: int, status: str = "applied", *, is_pack: bool = False, is_told: bool = True
    ) -> None:
        """Its outcome comes; `is_told`: with the correlation of this message."""
        outcome = Outcome(command_id=command_id, type="users.create", status=status, sequence=1)  # type: ignore[arg-type]
        properties = pika.BasicProperties(
            correlation_id=self.published[message].correlation_id if is_told else None,
            content_type=PACK_CONTENT if is_pack else "application/json",
        )
        body = b"[" + encode_outcome(outcome) + b"]" if is_pack else encode_outcome(outcome)
        self.writes._on_reply(None, None, properties, body)


async def test_an_outcome_of_a_command_that_is_no_longer_remembered_is_nobody_else_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its id comes again with another content, while more commands wait than are remembered."""
    issuing = Issuing(monkeypatch)
    async with asyncio.timeout(9):
        await issuing.leave(A, B, C)
        again = await issuing.issue(A)
        for message, command_id in enumerate("abc"):
            issuing.reply(command_id, message)
        assert not again.done()
        issuing.reply(A, 3, "rejected")
        assert (await again).status == "rejected"
        # Those that were forgotten have been told: commands travel in packs again.
        assert not issuing.writes._is_expected(D)


async def test_an_outcome_of_another_lane_ends_no_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes have no order among them: those that were forgotten of this one may yet be told."""
    issuing = Issuing(monkeypatch)
    async with asyncio.timeout(9):
        await issuing.leave(A, B, C)
        other = await issuing.issue(D, "items")
        issuing.reply(D, 3)
        await other
        assert issuing.writes._is_expected(A)
        again = await issuing.issue(A)
        issuing.reply(A, 0, is_pack=True, is_told=False)
        assert not again.done()
        issuing.reply(A, 4, "rejected")
        assert (await again).status == "rejected"
        assert not issuing.writes._is_expected(E)


async def test_an_outcome_of_what_was_parked_goes_to_its_own_message_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes later than its lane's order has it, when those that were forgotten seem to be told."""
    issuing = Issuing(monkeypatch)
    async with asyncio.timeout(9):
        await issuing.leave(A, B, C)
        other = await issuing.issue(D)
        issuing.reply(D, 3)
        await other
        assert not issuing.writes._is_expected(A)
        again = await issuing.issue(A)
        issuing.reply(A, 0)
        assert not again.done()
        issuing.reply(A, 4, "rejected")
        assert (await again).status == "rejected"


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_late_outcome_that_comes_alone_is_not_a_later_command_s(
    monkeypatch: pytest.MonkeyPatch, *, is_told: bool
) -> None:
    issuing = Issuing(monkeypatch)
    async with asyncio.timeout(9):
        await issuing.leave(A)
        second = await issuing.issue(A)
        issuing.reply(A, 0, is_told=is_told)
        assert not second.done()
        # Nobody expects an outcome of this id any more but for the second: the third travels in a pack again.
        third = await issuing.issue(A)
        issuing.reply(A, 0, is_told=is_told)
        issuing.reply(A, 1)
        assert (await second).status == "applied"
        assert not third.done()
        issuing.reply(A, 2, "rejected")
        assert (await third).status == "rejected"


async def test_a_confirm_that_does_not_come_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("coordinator.transports.rabbitmq.publisher.time.monotonic", lambda: now_s)
    monkeypatch.setattr(Publisher, "is_ready", True)
    publisher = Publisher(BrokerSettings(), "test")
    future = sent(publisher, times=1)
    now_s += LATE_S - 0.1
    assert publisher.late is None
    now_s += 1.1
    assert str(publisher.late) == f"it has waited {LATE_S + 1:.0f} s for RabbitMQ (confirm)"
    confirmed(publisher, "Basic.Ack")
    await future
    assert publisher.late is None
    sent(publisher, times=1).cancel()
    now_s += LATE_S
    monkeypatch.setattr(Publisher, "is_ready", False)
    assert publisher.late is None, "the connection is lost: that is said already"


async def test_a_command_that_is_no_longer_remembered_is_not_said_to_be_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuing = Issuing(monkeypatch)
    async with asyncio.timeout(9):
        await issuing.leave(A, B)
        assert [issuing.writes.pending(each) for each in (A, B, E)] == [True, True, False]
        await issuing.leave(C)
        assert [issuing.writes.pending(each) for each in (A, B, C, E)] == [None, True, True, None]
        last = await issuing.issue(D)
        issuing.reply(D, 3)
        await last
        assert issuing.writes.pending(E) is False


async def test_the_places_of_the_last_outcomes_are_known_whether_or_not_somebody_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuing = Issuing(monkeypatch)
    monkeypatch.setattr(writes_module, "SETTLED_MAX", 2)
    async with asyncio.timeout(9):
        await issuing.leave(A)
        assert issuing.writes.settled_place(A) is None
        issuing.reply(A, 0)
        waited = await issuing.issue(B)
        issuing.reply(B, 1)
        await waited
        issuing.reply(E, 1)
        assert [issuing.writes.settled_place(each) for each in (A, B, E)] == [("users", 1), ("users", 1), None]
        await issuing.leave(C)
        issuing.reply(C, 2)
        assert [issuing.writes.settled_place(each) for each in (A, B, C)] == [None, ("users", 1), ("users", 1)]
