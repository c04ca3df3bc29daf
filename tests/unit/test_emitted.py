"""Emitted commands on their way to the broker, without a broker: what is asked for again, and what is called back."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from coordinator.service.errors import Overloaded
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.rabbitmq.emitted import EmittedCommands, properties_of
from coordinator.transports.rabbitmq.properties import app_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakePublisher:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.confirms: list[asyncio.Future[None]] = []

    def publish(self, _: str, target: str, properties: Any, __: bytes) -> "asyncio.Future[None]":
        self.sent.append((target, properties.message_id))
        self.confirms.append(asyncio.get_running_loop().create_future())
        return self.confirms[-1]


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def confirmed() -> list[int]:
    return []


@pytest.fixture
def emitted(publisher: FakePublisher, confirmed: list[int]) -> EmittedCommands:
    fake: Any = publisher
    # No timer of these tests ever comes.
    return EmittedCommands(fake, lambda entries: confirmed.extend(entry.id for entry in entries), 1000.0)


def entry(number: int, target: str = "ledger") -> OutboxEntry:
    return OutboxEntry(
        id=number, lane=target, command_id=f"c{number}", type="t", arguments=b"{}", created_at=NOW, options=None
    )


async def idle() -> None:
    """Whatever was done has been told."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_one_target_refuses_holds_up_no_other(
    emitted: EmittedCommands, publisher: FakePublisher, confirmed: list[int]
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
    emitted: EmittedCommands, publisher: FakePublisher, answer: str
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
    emitted: EmittedCommands, publisher: FakePublisher, confirmed: list[int]
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
