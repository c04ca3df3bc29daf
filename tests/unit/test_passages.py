"""What the log says of how a command came through its lane, as the lane writes it and as it is read."""

from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.lane.control import ReplayLetter
from coordinator.lane.delivery import Arrival, Delivery
from coordinator.lane.outbox import message_of
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import Envelope
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import continuation_command_id, derived_command_id, replay_command_id
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.passages import (
    CHILDREN_MAX,
    Child,
    Parent,
    Passage,
    child_of,
    child_text,
    first_of_transaction,
    parent_of,
    passage_of,
    passage_text,
)
from coordinator.stores.port import Changes, Lease, Transaction
from coordinator.transports.rabbitmq.incoming import delivery_of
from tests.support.lane_contract import LaneUnderTest, command_id, delivery
from tests.support.ledger import LEDGER, Deposit, Forward, Fragile, Note, OpenAccount, Postpone, Remark, Resume

COUNTS = st.none() | st.integers(0, 10**12)
TEXTS = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), max_size=3)


class SlowStore(MemoryStore):
    """Its commits take 7 ms."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.lane: LaneUnderTest | None = None

    def begin(self) -> Transaction:
        transaction, lane = super().begin(), self.lane
        real = transaction.commit

        def commit(lease: Lease, sequence: int, changes: Changes) -> None:
            assert lane is not None
            lane.elapsed_s += 0.007
            real(lease, sequence, changes)

        transaction.commit = commit  # type: ignore[method-assign]
        return transaction


@pytest.fixture
def lane() -> LaneUnderTest:
    store = SlowStore(MemoryDatabase())
    store.lane = LaneUnderTest(store)
    return store.lane


def emit_again(work: UnitOfWork, _: Note) -> None:
    work.emit(Deposit(id=1, amount=1))


def delivered(lane: LaneUnderTest, each: Delivery, before_ms: int, attempts: int = 1) -> Delivery:
    """The same, delivered so long before the lane's time."""
    at_ms = round(lane.now.timestamp() * 1000) - before_ms
    return msgspec.structs.replace(each, arrival=Arrival(at_ms, attempts))


def passages(lane: LaneUnderTest) -> list[Passage]:
    return [passage_of(entry.passage) for entry in lane.log()]


def sent(lane: LaneUnderTest, emitted: list[OutboxEntry]) -> None:
    lane.settle(*(Delivery(tag=7, commands=(message_of(entry),)) for entry in emitted))


def test_a_command_says_how_long_before_its_transaction_it_was_delivered(lane: LaneUnderTest) -> None:
    opens = [delivery(number, OpenAccount(owner=f"{number}")) for number in range(1, 5)]
    lane.settle(*(delivered(lane, each, ms) for each, ms in zip(opens[:3], (40, 3, 0), strict=True)), opens[3])
    assert [each.delivered_ms for each in passages(lane)] == [40, 3, 0, None]
    assert [entry.passage for entry in lane.log()] == ["[40,0]", "3", "0", None], "a few bytes, or none"


def test_a_clock_that_went_back_tells_no_time(lane: LaneUnderTest) -> None:
    lane.settle(*(delivered(lane, delivery(number, OpenAccount(owner=f"{number}")), -5) for number in (1, 2)))
    assert [entry.passage for entry in lane.log()] == ["[null,0]", None]


def test_the_first_of_a_transaction_has_when_the_one_before_was_committed(lane: LaneUnderTest) -> None:
    lane.settle(delivery(1, OpenAccount(owner="a")), delivery(2, OpenAccount(owner="b")))
    lane.now += timedelta(seconds=1)
    lane.settle(delivery(3, OpenAccount(owner="c")))
    assert [each.is_first for each in passages(lane)] == [True, False, True]
    assert [each.before_ms for each in passages(lane)] == [None, None, 7]


def test_a_process_that_has_not_committed_the_one_before_does_not_say_when(lane: LaneUnderTest) -> None:
    lane.settle(delivery(1, OpenAccount(owner="a")))
    store = lane.store
    assert isinstance(store, SlowStore)
    successor = store.lane = LaneUnderTest(store, "other")
    successor.settle(delivery(2, OpenAccount(owner="b")))
    lane.channel_number = 1
    store.lane = lane
    lane.settle(delivery(3, OpenAccount(owner="c")))
    assert [each.before_ms for each in passages(lane)] == [None, None, None]


def test_a_command_names_what_it_emitted_and_not_what_was_taken_back(lane: LaneUnderTest) -> None:
    lane.do(OpenAccount(owner="a"))
    settlement = lane.settle(delivery(5, Forward(id=1, amount=2)))
    (emitted,) = settlement.emitted
    (child,) = map(child_of, passages(lane)[-1].children)
    assert child == Child("ledger", Deposit.type, emitted.command_id)
    sent(lane, settlement.emitted)
    assert passages(lane)[-1].children == (), "what came next has none of it"
    lane.settle(delivery(6, Forward(id=1, amount=2)), delivery(7, Deposit(id=1, amount=2)))
    assert [len(each.children) for each in passages(lane)[-2:]] == [1, 0], "nor what is in the same transaction"


def test_a_continuation_names_the_command_whose_outcome_it_is(lane: LaneUnderTest) -> None:
    lane.do(OpenAccount(owner="a"))
    settlement = lane.settle(delivery(5, Deposit(id=1, amount=2), continuation="ledger.note"))
    sent(lane, settlement.emitted)
    entry = lane.log()[-1]
    assert entry.command_id == continuation_command_id(f"{Deposit.type} {command_id(5)}")
    assert parent_of(passage_of(entry.passage).parent or "") == Parent(Deposit.type, command_id(5))


def test_a_result_names_its_effect_and_no_stranger_s_command_does(lane: LaneUnderTest) -> None:
    lane.do(OpenAccount(owner="a"))
    named = f"ledger.call {command_id(5)}"
    headers = {"result-of": named, "command-id": derived_command_id(named, 0, b"")}
    body = Deposit(id=1, amount=2).arguments()
    for is_system in (True, False):
        envelope = Envelope(
            message_id=derived_command_id(named, int(is_system), b""), type=Deposit.type, headers=headers
        )
        lane.settle(Delivery(tag=7, commands=decode(msgspec.structs.replace(envelope, is_system=is_system), body)))
    (passage,) = [each for each in passages(lane) if each.parent is not None]
    assert (passage.is_result, parent_of(passage.parent or "")) == (True, Parent("ledger.call", command_id(5)))


@pytest.mark.parametrize("value", ["", "ledger.call", f"two words {command_id(5)}", "ledger.call 7", 7, None, ["x"]])
def test_a_malformed_name_of_an_effect_has_no_weight(value: object) -> None:
    envelope = Envelope(message_id=command_id(1), type="x.y", headers={"result-of": value}, is_system=True)
    (message,) = decode(envelope, b"{}")
    assert (message.result_of, message.defect) == (None, None)


def test_a_command_without_an_id_of_the_system_s_names_no_parent(lane: LaneUnderTest) -> None:
    lane.do(OpenAccount(owner="a"))
    forged = {"command_id": command_id(1), "command_type": "ledger.deposit", "status": "applied", "result": {"id": 1}}
    lane.settle(delivery(9, msgspec.json.encode(forged), command_type="ledger.note"))
    assert lane.log()[-1].status == "applied"
    assert passages(lane)[-1].parent is None
    emits = Handler(Note, emit_again, is_internal=True)
    others = [each for each in LEDGER.handlers if each.command is not Note]
    noting = LaneUnderTest(MemoryStore(MemoryDatabase()), service=LEDGER.replace(handlers=(*others, emits)))
    noting.settle(delivery(9, msgspec.json.encode(forged), command_type="ledger.note"))
    assert (passages(noting)[-1].parent, len(passages(noting)[-1].children)) == (None, 1)


def test_whoever_resumes_an_answer_leads_to_it(lane: LaneUnderTest) -> None:
    lane.do(OpenAccount(owner="a"))
    lane.settle(delivery(5, Postpone(id=1), continuation="ledger.note"))
    settlement = lane.settle(delivery(6, Resume(id=1)))
    (child,) = map(child_of, passages(lane)[-1].children)
    assert (child.type, child.command_id) == ("ledger.note", settlement.emitted[0].command_id)


def test_a_replay_is_the_child_of_the_order(lane: LaneUnderTest) -> None:
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    lane.settle(delivery(5, Fragile(id=1, amount=1)))
    lane.settle(delivery(6, ReplayLetter(letter=1, by="ada", reason="mended")))
    (child,) = map(child_of, passages(lane)[-1].children)
    assert child.command_id == replay_command_id(command_id(5))


@pytest.mark.parametrize(
    ("redelivered", "header", "attempts"),
    [(False, None, 1), (True, None, 2), (True, 1, 2), (True, 6, 7), (False, 6, 1), (True, "x", 2), (True, -1, 2)],
)
def test_the_broker_s_count_of_deliveries_is_believed_and_no_publisher_s(
    redelivered: bool, header: object, attempts: int
) -> None:
    method = SimpleNamespace(delivery_tag=1, exchange="writes", redelivered=redelivered)
    headers = {} if header is None else {"x-delivery-count": header}
    properties = pika.BasicProperties(message_id=command_id(1), type="ledger.open", headers=headers)
    found = delivery_of(method, properties, b"{}", LaneSettings(), 1234)
    assert found.arrival == Arrival(1234, attempts)


@pytest.mark.parametrize(
    ("exchange", "account"), [("writes.system", "operator"), ("writes", None), ("", None), ("lanes.dead", None)]
)
def test_the_account_of_what_is_the_systems_own_is_the_one_that_the_broker_has_checked(
    exchange: str, account: str | None
) -> None:
    method = SimpleNamespace(delivery_tag=1, exchange=exchange, redelivered=False)
    properties = pika.BasicProperties(message_id=command_id(1), type="lane.discard", user_id="operator")
    assert delivery_of(method, properties, b"{}", LaneSettings()).account == account
    unsaid = pika.BasicProperties(message_id=command_id(1), type="lane.discard", headers={"account": "operator"})
    assert delivery_of(method, unsaid, b"{}", LaneSettings()).account is None


def test_attempts_are_in_the_log(lane: LaneUnderTest) -> None:
    lane.settle(delivered(lane, delivery(1, OpenAccount(owner="a")), 2, attempts=3))
    assert passages(lane)[-1].attempts == 3


@given(COUNTS, st.integers(1, 99), st.none() | st.just(f"ledger.open {command_id(1)}"), TEXTS)
def test_what_is_written_is_read(
    delivered_ms: int | None, attempts: int, parent: str | None, children: list[str]
) -> None:
    text = passage_text(delivered_ms, attempts, parent, children)
    if delivered_ms is None and attempts == 1 and parent is None and not children:
        assert text is None
    found = passage_of(text)
    assert found == Passage(delivered_ms, None, None, attempts, parent, tuple(children))
    first = passage_of(first_of_transaction(text, 12, 5, "run:7"))
    assert first == msgspec.structs.replace(found, written_ms=12, before_ms=5, place="run:7")


def test_many_children_are_counted() -> None:
    found = passage_of(passage_text(1, children=["x"] * (CHILDREN_MAX + 7)))
    assert (len(found.children), found.unnamed) == (CHILDREN_MAX, 7)


@pytest.mark.parametrize("text", [None, "", "{", "[[]]", '"x"', "null", "{}", '[1,2,3,"x"]', "1.5", "x" * 100])
def test_what_cannot_be_read_says_nothing(text: str | None) -> None:
    assert passage_of(text) == Passage()


def test_a_later_release_may_say_more() -> None:
    known = Passage(1, 2, 3, 4, "a b", ("c d",), 5, is_result=True, place="run:7")
    assert passage_of('[1,2,3,4,"a b",["c d"],5,true,"run:7","news"]') == known


@pytest.mark.parametrize("target", ["seats", f"{EFFECTS_PREFIX}seats"])
def test_a_child_has_a_target(target: str) -> None:
    assert child_of(child_text(target, "seats.hold", command_id(1))) == Child(target, "seats.hold", command_id(1))
    assert child_of("") == Child("", "", "")
