"""Publishing what handlers emitted: a target that takes nothing holds up nobody else, and is not asked all the time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pika
import pytest

from coordinator.rabbitmq import emitted
from coordinator.rabbitmq.emitted import EmittedCommands, properties_of
from shared.errors import BrokerUnavailable
from shared.lane_tables import OutboxEntry
from shared.messaging.options import Options
from tests.support.store_contract import NOW


class Broker:
    """Takes what is for targets that it has. Its loop's clock is the test's."""

    def __init__(self, *targets: str) -> None:
        self.targets = set(targets)
        self.tried: list[str | None] = []
        self.confirmed: list[int] = []

    def publish(
        self, exchange: str, routing_key: str, properties: pika.BasicProperties, body: bytes
    ) -> "asyncio.Future[None]":
        assert exchange == "writes.system"
        self.tried.append(properties.message_id)
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if routing_key in self.targets:
            confirm.set_result(None)
        else:
            confirm.set_exception(BrokerUnavailable(f"no queue takes messages for {routing_key!r}"))
        return confirm

    def note(self, entries: Sequence[OutboxEntry]) -> None:
        self.confirmed += [entry.id for entry in entries]


class Timers:
    """Runs what the loop was asked to call later, when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[tuple[float, Any, tuple[Any, ...]]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(
            loop, "call_later", lambda delay_s, call, *given: self.waiting.append((delay_s, call, given))
        )

    async def run(self) -> list[float]:
        """Run all that wait; how long each would have waited."""
        waiting, self.waiting = self.waiting, []
        for _, call, given in waiting:
            call(*given)
        await settle()
        return [delay_s for delay_s, *_ in waiting]


async def settle() -> None:
    """Let the loop run what is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


def entry(number: int, target: str, options: Options | None = None) -> OutboxEntry:
    return OutboxEntry(
        id=number,
        lane=target,
        command_id=f"{number}",
        type="t.t",
        arguments=b"{}",
        created_at=NOW,
        options=None if options is None else options.encode(),
    )


async def test_a_missing_target_is_asked_with_one_command_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, timers = Broker("there"), Timers(monkeypatch)
    commands = EmittedCommands(broker, broker.note, 1.0)  # type: ignore[arg-type]
    commands.publish([entry(1, "nowhere"), entry(2, "there"), entry(3, "nowhere")])
    await settle()
    commands.publish([entry(number, "nowhere") for number in range(4, 1004)])
    commands.publish([entry(2000, "there")])
    await settle()
    assert broker.confirmed == [2, 2000]
    broker.tried.clear()
    pauses = [await timers.run() for _ in range(8)]
    assert broker.tried == ["1"] * 8
    assert pauses == [[1.0], [2.0], [4.0], [8.0], [16.0], [30.0], [30.0], [30.0]]
    broker.targets.add("nowhere")
    await timers.run()
    assert broker.confirmed[2:] == [1, *range(3, 1004)]


async def test_a_missing_target_is_one_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, timers = Broker(), Timers(monkeypatch)
    now_s = 100.0
    monkeypatch.setattr(emitted, "monotonic", lambda: now_s)
    lines: list[str] = []
    monkeypatch.setattr(emitted.log, "error", lambda event, **_: lines.append(event))
    commands = EmittedCommands(broker, broker.note, 1.0)  # type: ignore[arg-type]
    commands.publish([entry(number, "nowhere") for number in range(1100)])
    await settle()
    for _ in range(20):
        await timers.run()
    assert len(lines) == 1
    now_s += 60
    await timers.run()
    assert len(lines) == 2


async def test_what_is_withdrawn_is_not_sent_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, timers = Broker(), Timers(monkeypatch)
    commands = EmittedCommands(broker, broker.note, 1.0)  # type: ignore[arg-type]
    commands.publish([entry(1, "later"), entry(2, "later"), entry(3, "later")])
    await settle()
    commands.withdraw([1, 3])
    broker.targets.add("later")
    broker.tried.clear()
    await timers.run()
    assert (broker.tried, broker.confirmed) == (["2"], [2])


async def test_a_stop_leaves_what_waits_in_the_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, timers = Broker(), Timers(monkeypatch)
    commands = EmittedCommands(broker, broker.note, 1.0)  # type: ignore[arg-type]
    commands.publish([entry(1, "later")])
    await settle()
    commands.stop()
    broker.tried.clear()
    await timers.run()
    assert (broker.tried, timers.waiting) == ([], [])


def test_what_a_stranger_caused_does_not_travel_as_the_system_s_own() -> None:
    assert properties_of(entry(1, "users")).headers == {}
    assert properties_of(entry(1, "users", Options(origin="public"))).headers == {"origin": "public"}
    options = Options(deadline_ms=5, expected_version=2, replayed=True)
    assert properties_of(entry(1, "users", options)).headers == {
        "deadline": 5,
        "expected-version": 2,
        "replayed": True,
    }
