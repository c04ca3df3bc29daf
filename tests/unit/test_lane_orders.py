"""Orders about dead letters, on a lane in memory: what would only fail again is refused."""

import msgspec
import pytest

from coordinator.lane.control import ReplayLetter
from coordinator.lane.lane import Lane
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from shared.lane_tables import DeadLetter, OutboxEntry
from shared.messaging.wire import Envelope, decode
from shared.settings import LaneSettings
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, OpenAccount

BYTES_MAX = 1024


@pytest.fixture
def lane() -> LaneUnderTest:
    lane = LaneUnderTest(MemoryStore(MemoryDatabase()))
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
