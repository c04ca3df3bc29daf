"""Emitted commands on their way to the broker, without a broker: what is asked for again, and what is called back."""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from coordinator.protocol.decoding import decode
from coordinator.protocol.packing import PACK_BYTES_MAX
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage
from coordinator.service.errors import Overloaded
from coordinator.service.options import Options
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import Backoff, Target
from coordinator.transports.rabbitmq.emitted import EmittedCommands, properties_of
from coordinator.transports.rabbitmq.properties import app_id, envelope_of
from coordinator.transports.redis.emitted import RedisEmitted
from coordinator.transports.redis.entries import entry_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakePublisher:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.ids: list[list[str]] = []
        self.confirms: list[asyncio.Future[None]] = []

    def publish(self, _: str, target: str, properties: Any, body: bytes) -> "asyncio.Future[None]":
        self.sent.append((target, properties.message_id))
        is_pack = properties.content_type == PACK_CONTENT
        self.ids.append([each["id"] for each in json.loads(body)] if is_pack else [properties.message_id])
        self.confirms.append(asyncio.get_running_loop().create_future())
        return self.confirms[-1]


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def confirmed() -> list[int]:
    return []


class Emitted(EmittedCommands):
    """Its timers come when the test says so."""

    def __init__(self, publisher: Any, confirmed: list[int]) -> None:
        super().__init__(publisher, lambda entries: confirmed.extend(entry.id for entry in entries), 1000.0)
        self._later: list[tuple[Target, Backoff]] = []

    def ask_again(self) -> None:
        """The time of each backoff is over."""
        later, self._later = self._later, []
        for target, backoff in later:
            self._ask_again(target, backoff)

    def _ask_later(self, target: Target, backoff: Backoff) -> None:
        self._later.append((target, backoff))


@pytest.fixture
def emitted(publisher: FakePublisher, confirmed: list[int]) -> Emitted:
    return Emitted(publisher, confirmed)


def entry(number: int, target: str = "ledger") -> OutboxEntry:
    return OutboxEntry(
        id=number, lane=target, command_id=f"c{number}", type="t", arguments=b"{}", created_at=NOW, options=None
    )


def decoded(kind: str, *messages: list[OutboxEntry]) -> list[tuple[CommandMessage, ...]]:
    """What a lane makes of the messages in which these entries travel."""
    came: list[tuple[CommandMessage, ...]] = []

    class Keeping:
        def publish(self, *parts: Any) -> "asyncio.Future[None]":
            if kind == "rabbitmq":
                exchange, _, properties, body = parts
                came.append(decode(envelope_of(properties, exchange), body))
            else:
                _, _, head, body = parts
                came.append(decode(entry_of([b"1-0", [b"head", head, b"body", body]], is_system=True).envelope, body))
            return asyncio.get_running_loop().create_future()

    publisher: Any = Keeping()
    for entries in messages:
        made = EmittedCommands if kind == "rabbitmq" else RedisEmitted
        made(publisher, lambda _: None, 1000.0).publish(entries)
    return came


async def idle() -> None:
    """Whatever was done has been told."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_one_target_refuses_holds_up_no_other(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    emitted.publish([entry(1, "archive")])
    publisher.confirms[0].set_exception(Overloaded("full"))
    await idle()
    emitted.publish([entry(2, "archive"), entry(3)])
    assert publisher.sent == [("archive", "c1"), ("ledger", "c3")]
    publisher.confirms[1].set_result(None)
    await idle()
    assert confirmed == [3]


@pytest.mark.parametrize("answer", ["none", "taken", "refused"])
async def test_what_is_withdrawn_is_not_sent_again_whatever_its_answer(
    emitted: Emitted, publisher: FakePublisher, answer: str
) -> None:
    """Its answer may be there already, and nobody told of it yet."""
    emitted.publish([entry(1, "archive")])
    if answer == "taken":
        publisher.confirms[0].set_result(None)
    elif answer == "refused":
        publisher.confirms[0].set_exception(Overloaded("full"))
    emitted.withdraw([1])
    await idle()
    assert publisher.confirms[0].cancelled() == (answer == "none")
    # Nothing waits for this target, or the next one would have to.
    emitted.publish([entry(2, "archive")])
    assert publisher.sent == [("archive", "c1"), ("archive", "c2")]
    publisher.confirms[1].set_exception(Overloaded("full"))
    await idle()
    assert len(publisher.sent) == 2


async def test_what_is_read_anew_while_it_is_under_way_is_called_back_with_it(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    emitted.publish([entry(1)])
    emitted.publish([entry(1)])
    assert len(publisher.sent) == 1
    emitted.withdraw([1])
    await idle()
    assert publisher.confirms[0].cancelled()
    emitted.publish([entry(2), entry(2)])
    publisher.confirms[1].set_result(None)
    await idle()
    assert confirmed == [2]


def test_a_message_says_when_it_was_published_and_by_whom() -> None:
    """But an effect says when its lane emitted it, however often it is published."""
    before_s = int(time.time())
    command, effect = (properties_of(entry(1, target), "coordinator.ledger") for target in ("ledger", "effects.ledger"))
    assert before_s <= command.timestamp <= time.time()
    assert effect.timestamp == int(entry(1).created_at.timestamp())
    assert (command.app_id, effect.app_id) == ("coordinator.ledger", "coordinator.ledger")


@pytest.mark.parametrize(("name", "taken"), [("a", "a"), ("\u00e9" * 200, "\u00e9" * 127), ("x" * 300, "x" * 255)])
def test_a_name_that_is_too_long_for_amqp_is_cut(name: str, taken: str) -> None:
    assert app_id(name) == taken


async def test_what_a_full_queue_refuses_is_not_overtaken(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    emitted.publish([entry(1), entry(2), entry(3)])
    emitted.publish([entry(4)])
    assert publisher.ids == [["c1", "c2", "c3"]]
    publisher.confirms[0].set_exception(Overloaded("full"))
    await idle()
    emitted.publish([entry(5)])
    assert len(publisher.sent) == 1
    emitted.ask_again()
    # One command tells as well as many whether it is full.
    assert publisher.ids[1:] == [["c1"]]
    publisher.confirms[1].set_result(None)
    await idle()
    assert publisher.ids[2:] == [["c2", "c3", "c4", "c5"]]
    publisher.confirms[2].set_result(None)
    await idle()
    assert confirmed == [1, 2, 3, 4, 5]


async def test_a_queue_that_is_full_now_and_then_is_told_of_once(emitted: Emitted, publisher: FakePublisher) -> None:
    with capture_logs() as lines:
        for number in range(1, 4):
            emitted.publish([entry(number)])
            publisher.confirms[-1].set_exception(Overloaded("full"))
            await idle()
            emitted.ask_again()
            publisher.confirms[-1].set_result(None)
            await idle()
    assert [(line["event"], line["target"], line["command_id"]) for line in lines] == [
        ("emitted_commands_not_taken", "ledger", "c1")
    ]


async def test_effects_do_not_wait_for_each_other(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    emitted.publish([entry(number, "effects.ledger") for number in (1, 2, 3)])
    assert publisher.ids == [["c1"], ["c2"], ["c3"]]
    publisher.confirms[1].set_exception(Overloaded("full"))
    await idle()
    emitted.publish([entry(4, "effects.ledger")])
    assert len(publisher.sent) == 3
    publisher.confirms[0].set_result(None)
    await idle()
    assert publisher.ids[3:] == [["c2"], ["c4"]]
    assert confirmed == [1]


async def test_a_refused_effect_puts_the_others_in_no_order(
    emitted: Emitted, publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands may be refused at once: a look at all of them for each would hold the loop up for seconds."""
    emitted.publish([entry(number, "effects.ledger") for number in range(1, 4)])
    monkeypatch.setattr("coordinator.transports.emitting.sorted", None, raising=False)
    for confirm in publisher.confirms:
        confirm.set_exception(Overloaded("full"))
    await idle()
    emitted.ask_again()
    assert publisher.ids[3:] == [["c1"]]


async def test_a_confirm_that_somebody_else_has_cancelled_confirms_nothing(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    """What is confirmed is deleted: the command would be lost."""
    emitted.publish([entry(1), entry(2)])
    publisher.confirms[0].cancel()
    await idle()
    assert confirmed == []
    emitted.ask_again()
    assert publisher.ids[1:] == [["c1"]]


async def test_those_beside_a_withdrawn_one_go_on_without_it(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    emitted.publish([entry(1), entry(2), entry(3)])
    emitted.publish([entry(4)])
    emitted.withdraw([2, 4])
    await idle()
    assert publisher.confirms[0].cancelled()
    assert publisher.ids[1:] == [["c1", "c3"]]
    publisher.confirms[1].set_result(None)
    await idle()
    assert confirmed == [1, 3]
    assert len(publisher.sent) == 2


async def test_another_command_with_the_number_of_one_under_way_is_sent(
    emitted: Emitted, publisher: FakePublisher
) -> None:
    """The database has lost the commit of the first."""
    emitted.publish([entry(1)])
    emitted.publish([structs.replace(entry(1), command_id="other")])
    publisher.confirms[0].set_result(None)
    await idle()
    assert publisher.ids == [["c1"], ["other"]]


OPTIONS = (
    Options(),
    Options(actor=Principal(subject="ada", tenant="acme", scopes=frozenset({"cashier"}))),
    Options(actor=Principal(subject="bob"), origin="public"),
    Options(deadline_ms=1_790_000_000_000, expected_version=7),
    Options(traceparent=f"00-{'1' * 32}-{'2' * 16}-01", tracestate="dd=s:1"),
)


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
async def test_commands_in_one_message_are_what_each_is_alone(kind: str) -> None:
    entries = [
        structs.replace(entry(number), command_id=str(uuid4()), options=options.encode())
        for number, options in enumerate(OPTIONS, 1)
    ]
    entries.append(structs.replace(entry(9), command_id=str(uuid4()), continuation="ledger.noted"))
    together = decoded(kind, entries)
    assert len(together) == 1
    alone = decoded(kind, *[[each] for each in entries])
    assert together[0] == tuple(command for message in alone for command in message)
    assert [command.origin for command in together[0]].count("public") == 1


@pytest.mark.parametrize(
    "alone",
    [
        {"options": Options(replayed=True).encode()},
        {"options": Options(origin="public", sender="stranger").encode()},
        {"arguments": b"{nonsense"},
        {"arguments": b'{"x":"' + b"x" * PACK_BYTES_MAX + b'"}'},
    ],
    ids=["replayed", "a stranger's", "malformed", "large"],
)
async def test_what_a_pack_has_no_room_for_travels_alone(
    emitted: Emitted, publisher: FakePublisher, alone: dict[str, Any]
) -> None:
    emitted.publish([entry(1), structs.replace(entry(2), **alone), entry(3), entry(4)])
    for _ in range(2):
        publisher.confirms[-1].set_result(None)
        await idle()
    assert publisher.ids == [["c1"], ["c2"], ["c3", "c4"]]


async def test_after_the_stop_nothing_is_sent_nor_sent_again(
    emitted: Emitted, publisher: FakePublisher, confirmed: list[int]
) -> None:
    emitted.publish([entry(1, "archive"), entry(2), entry(3, "effects.shop")])
    emitted.publish([entry(4), entry(5, "effects.shop")])
    publisher.confirms[0].set_exception(Overloaded("full"))
    await idle()
    sent = list(publisher.sent)
    assert not emitted.is_idle
    emitted.stop()
    # Whoever publishes sends a cancelled one no more, not even with its next connection.
    assert [confirm.cancelled() for confirm in publisher.confirms] == [False, True, True, True]
    emitted.ask_again()
    emitted.withdraw([4])
    emitted.publish([entry(6)])
    await idle()
    assert (publisher.sent, confirmed, emitted.is_idle) == (sent, [], True)
