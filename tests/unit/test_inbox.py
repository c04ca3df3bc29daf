"""What waits for a lane: in order, decoded shortly before its turn, void with its channel."""

from collections.abc import Callable

from coordinator.lane.delivery import Delivery
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.transports.inbox import DECODED_COMMANDS_MAX, Inbox

PACK = tuple(CommandMessage(command_id=None, type=None, arguments=b"{}") for _ in range(500))


class Decoded:
    """Counts what was decoded."""

    def __init__(self) -> None:
        self.tags: list[int] = []

    def message(self, tag: int) -> Callable[[], Delivery]:
        def decode() -> Delivery:
            self.tags.append(tag)
            return Delivery(tag=tag, commands=PACK, size_bytes=10)

        return decode


def filled(deliveries: int) -> tuple[Inbox, Decoded, int]:
    inbox, decoded = Inbox(), Decoded()
    channel_number = inbox.begin_channel()
    for tag in range(1, deliveries + 1):
        inbox.put(channel_number, decoded.message(tag))
    return inbox, decoded, channel_number


def test_of_a_long_backlog_only_what_comes_next_is_decoded() -> None:
    _, decoded, _ = filled(deliveries=100)
    assert decoded.tags == [1, 2, 3, 4]
    assert len(decoded.tags) * len(PACK) == DECODED_COMMANDS_MAX


def test_all_of_it_is_taken_in_order() -> None:
    inbox, decoded, _ = filled(deliveries=100)
    taken = [delivery.tag for _ in range(34) for delivery in inbox.take(1500, 1 << 20, 0)[1]]
    assert taken == decoded.tags == list(range(1, 101))
    assert inbox.take(1500, 1 << 20, 0)[1] == []


def test_a_batch_larger_than_what_is_decoded_is_full_all_the_same() -> None:
    inbox, _, _ = filled(deliveries=100)
    assert len(inbox.take(10_000, 1 << 20, 0)[1]) == 20


def test_what_arrives_has_those_before_it_decoded_as_soon_as_there_is_room() -> None:
    inbox, decoded, channel_number = filled(deliveries=10)
    inbox.take(1000, 1 << 20, 0)
    assert decoded.tags == [1, 2, 3, 4]
    inbox.put(channel_number, decoded.message(11))
    assert decoded.tags == [1, 2, 3, 4, 5, 6]


def test_a_new_channel_makes_what_was_not_decoded_void_too() -> None:
    inbox, decoded, old = filled(deliveries=10)
    channel_number = inbox.begin_channel()
    assert inbox.take(10_000, 1 << 20, 0) == (channel_number, [])
    inbox.put(old, decoded.message(11))
    inbox.put(channel_number, decoded.message(1))
    assert [delivery.tag for delivery in inbox.take(10_000, 1 << 20, 0)[1]] == [1]
    assert decoded.tags == [1, 2, 3, 4, 1]


def test_whoever_feeds_it_learns_once_that_the_lane_waits_for_more() -> None:
    inbox, _, _ = filled(deliveries=1)
    told: list[str] = []
    inbox.call_once_empty(lambda: told.append("first"))
    inbox.take(500, 1000, timeout_s=0)
    assert told == []
    inbox.take(500, 1000, timeout_s=0)
    inbox.take(500, 1000, timeout_s=0)
    assert told == ["first"]


def test_an_inbox_before_another_one_waits_for_the_lane_behind_both() -> None:
    lane = Inbox()
    bridge = Inbox(lane)
    told: list[str] = []
    bridge.call_once_empty(lambda: told.append("empty"))
    bridge.take(500, 1000, timeout_s=0)
    assert told == []
    lane.take(500, 1000, timeout_s=0)
    assert told == ["empty"]


def test_marks_that_come_from_two_sides_are_taken_together() -> None:
    inbox = Inbox()
    inbox.learn(Mark(sequence=7, epoch=1, series={"orders": 3}))
    inbox.learn(Mark(sequence=5, epoch=2, series={"orders": 2, "items": 1}))
    assert inbox.take_mark() == Mark(sequence=7, epoch=2, series={"orders": 3, "items": 1})
    assert inbox.take_mark() is None
