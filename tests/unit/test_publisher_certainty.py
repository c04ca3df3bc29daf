"""What a publisher and its writes say of a command that they sent: that nothing was done only where that is certain."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pika
import pytest

import coordinator.transports.rabbitmq.writes as writes_module
from coordinator.protocol.outcomes import encode_outcome
from coordinator.protocol.packing import InFlight
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, CommandPending, OutcomeUnknown, Overloaded
from coordinator.service.outcome import Outcome
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.writes import RabbitWrites


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
    message = CommandMessage(command_id="a", type="users.create", arguments=b"{}")
    entry = InFlight(message, asyncio.get_running_loop().create_future(), 1.0)
    writes._outcome_is_late([entry])
    async with asyncio.timeout(5):
        with pytest.raises(CommandPending):
            await entry.settled


async def test_an_outcome_of_a_command_that_is_no_longer_remembered_is_nobody_else_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its id comes again with another content, while more commands wait than are remembered."""
    monkeypatch.setattr(writes_module, "UNSETTLED_MAX", 2)
    writes = RabbitWrites(BrokerSettings(), confirm_timeout_s=9, wait_s=9, in_flight_max=9, log=None)
    published: list[pika.BasicProperties] = []

    def publish(_: str, __: str, properties: pika.BasicProperties, ___: bytes, **____: Any) -> Any:
        published.append(properties)
        confirm = asyncio.get_running_loop().create_future()
        confirm.set_result(None)
        return confirm

    monkeypatch.setattr(writes._publisher, "publish", publish)
    monkeypatch.setattr(type(writes._publisher), "is_ready", True)

    def issue(command_id: str, wait_s: float | None = None) -> "asyncio.Task[Outcome]":
        message = CommandMessage(command_id=command_id, type="users.create", arguments=b"{}")
        return asyncio.create_task(writes.issue("users", message, wait_s))

    def reply(command_id: str, properties: pika.BasicProperties, status: str = "applied") -> None:
        outcome = Outcome(command_id=command_id, type="users.create", status=status, sequence=1)  # type: ignore[arg-type]
        told = pika.BasicProperties(correlation_id=properties.correlation_id, content_type="application/json")
        writes._on_reply(None, None, told, encode_outcome(outcome))

    async with asyncio.timeout(9):
        for command_id in ("a", "b", "c"):
            with pytest.raises(CommandPending):
                await issue(command_id, wait_s=0)
        again = issue("a")
        while len(published) < 4:  # noqa: ASYNC110  # it is published in a later turn of the loop
            await asyncio.sleep(0)
        for command_id, properties in zip("abc", published, strict=False):
            reply(command_id, properties)
        assert not again.done()
        reply("a", published[3], "rejected")
        assert (await again).status == "rejected"
        # Those that were forgotten have been told: commands travel in packs again.
        assert not writes._is_expected("d")
