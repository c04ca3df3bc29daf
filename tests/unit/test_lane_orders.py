"""Orders about dead letters, on a lane in memory: what would only fail again is refused."""

import msgspec
import pytest

from coordinator.lane.control import ReplayLetter
from coordinator.lane.delivery import Deposed, Suspension
from coordinator.lane.lane import Lane
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import Envelope
from coordinator.runtime.settings import LaneSettings
from coordinator.service.options import Options
from coordinator.service.principal import Principal
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Fragile, OpenAccount, Remark

BYTES_MAX = 1024
UNKNOWN = "ledger.unknown"


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def lane(database: MemoryDatabase) -> LaneUnderTest:
    lane = LaneUnderTest(MemoryStore(database))
    settings = LaneSettings(message_bytes_max=BYTES_MAX)
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "test", settings, lambda: 0.0)
    return lane


def test_a_command_that_is_too_large_is_replayed_with_other_arguments_only(lane: LaneUnderTest) -> None:
    body = msgspec.json.encode({"owner": "x" * BYTES_MAX})
    (message,) = decode(Envelope(message_id=command_id(1), type=OpenAccount.type), body, BYTES_MAX)
    large = msgspec.structs.replace(delivery(1, body), commands=(message,))
    assert codes(lane.outcomes(large)) == ["message_too_large"]
    [letter] = lane.rows(DeadLetter)
    assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["not_replayable"]
    assert lane.rows(DeadLetter) == [letter]
    assert codes(lane.do(ReplayLetter(letter=letter.id, args=msgspec.Raw(b'{"owner":"a"}')))) == ["applied"]
    assert lane.rows(DeadLetter) == []
    assert [entry.arguments for entry in lane.rows(OutboxEntry)] == [b'{"owner":"a"}']


def test_whoever_has_lost_the_lane_is_deposed_though_he_reads_letters_that_are_not_his(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    """What he knows of the numbers is over; his next one is taken."""
    lane.settle(delivery(1, b"{}", command_type=UNKNOWN))
    successor = LaneUnderTest(MemoryStore(database), "successor")
    successor.settle(delivery(2, b"{}", command_type=UNKNOWN))
    [_, foreign] = lane.rows(DeadLetter)
    batch = [delivery(3, ReplayLetter(letter=foreign.id)), delivery(4, b"{}", command_type=UNKNOWN)]
    decision = lane.lane.apply(batch, lane.channel_number)
    while isinstance(decision, Suspension):
        decision = lane.lane.apply(batch, lane.channel_number)
    assert isinstance(decision, Deposed)
    assert [letter.command_id for letter in lane.rows(DeadLetter)] == [command_id(1), command_id(2)]


def test_no_operator_borrows_the_scopes_of_whoever_sent_what_he_has_edited(lane: LaneUnderTest) -> None:
    """With one letter of somebody who may refund he could refund whatever he liked. The act tells of the edit."""
    ada = Principal(subject="ada", tenant="t1", scopes=frozenset({"payments"}))
    sent = [
        delivery(each, b'{"owner":7}', command_type=OpenAccount.type, actor=ada, origin="public") for each in (1, 2)
    ]
    assert codes(lane.outcomes(*sent)) == ["invalid_arguments"] * 2
    first, second = lane.rows(DeadLetter)
    assert codes(lane.do(ReplayLetter(letter=first.id))) == ["not_replayable"]
    edited = ReplayLetter(letter=second.id, args=msgspec.Raw(b'{"owner":"a"}'), by="olga")
    assert codes(lane.do(edited)) == ["applied"]
    (entry,) = lane.rows(OutboxEntry)
    assert Options.decode(entry.options).actor == Principal(subject="ada", tenant="t1")
    [act] = lane.rows(OperatorAct)
    assert (act.author, msgspec.json.decode(act.details)["with_arguments"]) == ("olga", True)


def test_what_is_replayed_as_it_came_has_the_scopes_that_it_came_with(lane: LaneUnderTest) -> None:
    ada = Principal(subject="ada", scopes=frozenset({"payments"}))
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    lane.settle(delivery(10, Fragile(id=1, amount=1), actor=ada, origin="public"))
    (letter,) = lane.rows(DeadLetter)
    assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["applied"]
    assert [Options.decode(entry.options).actor for entry in lane.rows(OutboxEntry)] == [ada]


def test_an_operator_may_vouch_for_what_he_has_edited(lane: LaneUnderTest) -> None:
    ada = Principal(subject="ada", scopes=frozenset({"payments"}))
    lane.settle(delivery(1, b'{"owner":7}', command_type=OpenAccount.type, actor=ada, origin="public"))
    (letter,) = lane.rows(DeadLetter)
    assert codes(lane.do(ReplayLetter(letter=letter.id, args=msgspec.Raw(b'{"owner":"a"}'), as_sender=True))) == [
        "applied"
    ]
    assert [Options.decode(entry.options).actor for entry in lane.rows(OutboxEntry)] == [ada]
    (act,) = lane.rows(OperatorAct)
    assert msgspec.json.decode(act.details)["as_sender"] is True
