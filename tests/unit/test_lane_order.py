"""Publisher sessions, and what operators may do to a lane, on a lane in memory."""

import random
from collections.abc import Callable

import pytest
from msgspec import structs

from coordinator.lane.acknowledger import Acknowledgement, Acknowledger
from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.service.service import Service
from coordinator.stores.lane_tables import Cancellation, DeadLetter, OutboxEntry, PublisherPosition, Series
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, Forward, OpenAccount, Tamper
from tests.support.store_contract import NOW


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def lane(database: MemoryDatabase) -> LaneUnderTest:
    lane = LaneUnderTest(MemoryStore(database))
    lane.do(OpenAccount(owner="a"))
    return lane


def numbered(number: int, publisher: str = "p") -> Delivery:
    """The publisher's command of this number: it can be told from the balance in which order they were applied."""
    return delivery(
        1000 * (ord(publisher) - ord("a")) + number,
        Deposit(id=1, amount=number),
        publisher=publisher,
        publisher_seq=number,
    )


def tags_in_order(lane: LaneUnderTest) -> list[str]:
    return [entry.command_id for entry in lane.log()[1:]]


def test_a_command_ahead_of_its_predecessor_is_early_until_that_arrives(lane: LaneUnderTest) -> None:
    first, second, third = numbered(1), numbered(2), numbered(3)
    early = lane.settle(third, second)
    assert (early.tags, early.outcomes) == ([], [])
    settlement = lane.settle(first)
    assert settlement.tags == [first.tag, second.tag, third.tag]
    assert [outcome.sequence for outcome in settlement.outcomes] == [2, 3, 4]
    assert lane.rows(PublisherPosition)[0].sequence == 3


def test_an_early_command_that_arrives_twice_is_acknowledged_twice(lane: LaneUnderTest) -> None:
    second, again = numbered(2), numbered(2)
    assert lane.settle(second, again).tags == []
    first = numbered(1)
    assert sorted(lane.settle(first).tags) == sorted([first.tag, second.tag, again.tag])


def packed(*deliveries: Delivery) -> Delivery:
    """Their commands in one message, as they are given."""
    return structs.replace(
        deliveries[0], commands=tuple(message for each in deliveries for message in each.commands), reply_packs=True
    )


def ids(*deliveries: Delivery) -> list[str | None]:
    return [message.command_id for each in deliveries for message in each.commands]


def test_a_pack_with_its_numbers_in_another_order_is_applied_in_theirs(lane: LaneUnderTest) -> None:
    first, second, third = numbered(1), numbered(2), numbered(3)
    pack = packed(second, third, first)
    settlement = lane.settle(pack)
    assert tags_in_order(lane) == ids(first, second, third)
    assert settlement.tags == [pack.tag]
    replied = [outcome.command_id for reply in settlement.replies for outcome in reply.outcomes]
    assert replied == ids(first, second, third)


def test_a_number_that_a_pack_leaves_out_is_waited_for_and_the_pack_acknowledged_with_the_last(
    lane: LaneUnderTest,
) -> None:
    first, second, third, free = numbered(1), numbered(2), numbered(3), delivery(9, Deposit(id=1, amount=1))
    pack = packed(first, third, free)
    early = lane.settle(pack)
    assert ([outcome.command_id for outcome in early.outcomes], early.tags) == (ids(first), [])
    late = lane.settle(second)
    assert sorted(late.tags) == sorted([second.tag, pack.tag])
    assert tags_in_order(lane) == ids(first, second, third, free)


def test_a_pack_of_two_publishers_keeps_the_order_of_both(lane: LaneUnderTest) -> None:
    pack = packed(numbered(2, "p"), numbered(1, "q"), numbered(1, "p"), numbered(2, "q"))
    assert lane.settle(pack).tags == [pack.tag]
    assert tags_in_order(lane) == ids(numbered(1, "q"), numbered(1, "p"), numbered(2, "p"), numbered(2, "q"))


def test_a_number_twice_in_a_pack_is_settled_once(lane: LaneUnderTest) -> None:
    pack = packed(numbered(2), numbered(2), numbered(1))
    settlement = lane.settle(pack)
    assert settlement.tags == [pack.tag]
    assert [outcome.replayed for outcome in settlement.outcomes] == [False, False, True]


def test_a_pack_taken_apart_whose_channel_is_lost_comes_again_whole(lane: LaneUnderTest) -> None:
    pack = packed(numbered(1), numbered(3))
    assert lane.settle(pack).tags == []
    lane.channel_number += 1
    again = structs.replace(pack, redelivered=True)
    assert lane.settle(again).tags == []
    second = numbered(2)
    assert sorted(lane.settle(second).tags) == sorted([second.tag, again.tag])


def test_a_publisher_that_is_early_delays_no_other(lane: LaneUnderTest) -> None:
    settlement = lane.settle(numbered(2, "p"), numbered(1, "q"), delivery(9, Deposit(id=1, amount=1)))
    assert len(settlement.tags) == 2
    assert lane.lane.due_in_s() == LaneSettings().gap_timeout_s


def test_a_gap_that_is_never_filled_is_given_up_and_counted(lane: LaneUnderTest) -> None:
    assert lane.settle(numbered(2), numbered(4)).tags == []
    lane.elapsed_s = LaneSettings().gap_timeout_s - 0.001
    assert lane.settle().tags == []
    lane.elapsed_s = LaneSettings().gap_timeout_s
    assert lane.lane.due_in_s() == 0
    assert len(lane.settle().tags) == 2
    assert lane.lane.gaps == 2
    # The missing ones come after all: they are confirmed commands, and are applied.
    assert codes(lane.outcomes(numbered(1), numbered(3))) == ["applied", "applied"]
    assert codes(lane.outcomes(numbered(5))) == ["applied"]


def test_no_more_are_early_than_the_limit(database: MemoryDatabase) -> None:
    lane = LaneUnderTest(MemoryStore(database))
    lane.do(OpenAccount(owner="a"))
    limit = LaneSettings().early_max
    settlement = lane.settle(*(numbered(number) for number in range(2, limit + 3)))
    assert lane.lane.gaps == 1
    assert len(settlement.tags) == limit + 1


def test_a_successor_knows_how_far_a_publisher_was(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    lane.settle(numbered(1), numbered(2))
    successor = LaneUnderTest(MemoryStore(database), "successor")
    assert successor.settle(numbered(4)).tags == []
    assert [outcome.replayed for outcome in successor.settle(numbered(2), numbered(3)).outcomes] == [True, False, False]


def test_what_was_early_on_a_lost_channel_is_forgotten_and_delivered_again(lane: LaneUnderTest) -> None:
    lane.settle(numbered(2))
    lane.channel_number = 1
    settlement = lane.settle(numbered(1))
    assert len(settlement.tags) == 1
    assert codes(lane.outcomes(numbered(2))) == ["applied"]


def test_any_order_of_arrival_gives_the_publisher_s_order(lane: LaneUnderTest) -> None:
    chance = random.Random(7)
    for publisher in "bcdefg":
        stream = [numbered(number, publisher) for number in range(1, 60)]
        chance.shuffle(stream)
        before = lane.lane.gaps
        while stream:
            size = chance.randint(1, 9)
            lane.settle(*stream[:size])
            stream = stream[size:]
        expected = [command_id(1000 * (ord(publisher) - ord("a")) + number) for number in range(1, 60)]
        assert [entry for entry in tags_in_order(lane) if entry in set(expected)] == expected
        assert lane.lane.gaps == before


def test_acknowledgements_go_around_what_is_early() -> None:
    acknowledger = Acknowledger()
    for tag in range(1, 7):
        acknowledger.delivered(tag)
    assert acknowledger.acknowledge([1, 2]) == [Acknowledgement(2, multiple=True)]
    assert acknowledger.acknowledge([4, 6]) == [Acknowledgement(4, multiple=False), Acknowledgement(6, multiple=False)]
    assert acknowledger.acknowledge([3]) == [Acknowledgement(3, multiple=True)]
    assert acknowledger.acknowledge([]) == []
    assert acknowledger.acknowledge([5]) == [Acknowledgement(5, multiple=True)]
    # A delivery of an older channel has no meaning on this one.
    assert acknowledger.acknowledge([99]) == []


def pause(database: MemoryDatabase, reason: str | None) -> None:
    database.paused = reason
    database.revision += 1


def test_a_paused_lane_commits_nothing_and_goes_on_where_it_was(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    pause(database, "maintenance")
    batch = [delivery(1, Deposit(id=1, amount=5))]
    before = database.epoch, database.sequence
    decisions = [lane.lane.apply(batch) for _ in range(3)]
    assert isinstance(decisions[-1], Suspension)
    assert "paused by an operator: maintenance" in decisions[-1].reason
    assert (database.epoch, database.sequence) == before
    pause(database, None)
    assert codes(lane.outcomes()) == ["applied"]
    assert database.epoch == before[0], "nothing was uncertain"
    assert codes(lane.outcomes(delivery(2, Deposit(id=1, amount=5)))) == ["applied"]


def test_a_consumer_that_takes_a_paused_lane_over_stays_paused(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    pause(database, "maintenance")
    successor = LaneUnderTest(MemoryStore(database), "successor")
    batch = [delivery(1, Deposit(id=1, amount=5))]
    epoch = database.epoch
    assert isinstance(successor.lane.apply(batch), Suspension)
    assert isinstance(successor.lane.apply(batch), Suspension)
    assert database.epoch == epoch
    pause(database, None)
    assert codes(successor.outcomes(*batch)) == ["applied"]


def test_a_consumer_that_was_given_nothing_yet_says_that_the_lane_is_paused(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    del lane
    pause(database, "maintenance")
    fresh = LaneUnderTest(MemoryStore(database), "fresh")
    epoch = database.epoch
    verdict = fresh.lane.look()
    assert isinstance(verdict, Suspension)
    assert verdict.reason == "paused by an operator: maintenance"
    pause(database, None)
    assert fresh.lane.look() is None
    assert database.epoch == epoch


def cancel(database: MemoryDatabase, number: int) -> None:
    row = Cancellation(command_id=command_id(number), reason="a mistake", requested_at=NOW)
    database.tables.setdefault(Cancellation, {})[row.command_id] = row
    database.revision += 1


def test_a_cancelled_command_is_never_applied(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    cancel(database, 2)
    batch = [delivery(number, Deposit(id=1, amount=number)) for number in (1, 2, 3)]
    assert isinstance(lane.lane.apply(batch), Suspension)
    outcomes = lane.outcomes()
    assert codes(outcomes) == ["applied", "cancelled", "applied"]
    assert [outcome.sequence for outcome in outcomes] == [2, 3, 4]
    assert lane.rows(Account)[0].balance == 4
    assert lane.rows(Cancellation) == []
    assert codes(lane.outcomes(batch[1])) == ["cancelled"]


def blocking_lane(database: MemoryDatabase, settings: LaneSettings | None = None) -> LaneUnderTest:
    """A lane whose `ledger.tamper` blocks it when it fails."""
    handlers = tuple(
        structs.replace(handler, on_failure="block") if handler.command is Tamper else handler
        for handler in LEDGER.handlers
    )
    service = Service(name="ledger", models=LEDGER.models, handlers=handlers, metadata=LEDGER.metadata)
    lane = LaneUnderTest(MemoryStore(database))
    lane.lane = Lane(
        service, lane.store, lambda: lane.now, "blocking", settings or LaneSettings(), lambda: lane.elapsed_s
    )
    return lane


@pytest.fixture
def blocking(database: MemoryDatabase) -> LaneUnderTest:
    lane = blocking_lane(database)
    lane.do(OpenAccount(owner="a"))
    return lane


def test_a_command_that_blocks_keeps_back_what_comes_after_it_and_settles_what_came_before(
    blocking: LaneUnderTest, database: MemoryDatabase
) -> None:
    batch = [
        delivery(1, Deposit(id=1, amount=1)),
        delivery(2, Tamper(id=1, how="crash")),
        delivery(3, Deposit(id=1, amount=3)),
    ]
    before = blocking.lane.apply(batch)
    assert isinstance(before, Settlement)
    assert (before.tags, codes(before.outcomes)) == ([batch[0].tag], ["applied"])
    assert blocking.lane.has_batch
    blocked = blocking.lane.apply([])
    assert isinstance(blocked, Suspension)
    assert f"blocked by command {command_id(2)}" in blocked.reason
    assert blocking.rows(Account)[0].balance == 1
    assert len(blocking.log()) == 2
    assert blocking.rows(DeadLetter) == []
    assert blocking.rows(Series) == [Series(name="accounts", value=1)]
    cancel(database, 2)
    after: Settlement = blocking.settle()
    assert (after.tags, codes(after.outcomes)) == ([batch[1].tag, batch[2].tag], ["cancelled", "applied"])
    assert blocking.rows(Account)[0].balance == 4


def test_a_lane_that_is_blocked_at_once_publishes_what_was_emitted_before(database: MemoryDatabase) -> None:
    """Once, and page by page, though it claims its lease again and again meanwhile."""
    before = LaneUnderTest(MemoryStore(database))
    before.do(OpenAccount(owner="a"), *(Forward(id=1, amount=1) for number in range(5)))
    blocked = blocking_lane(database, LaneSettings(outbox_max=4))
    poison = delivery(7, Tamper(id=1, how="crash"))
    published: list[int] = []
    reasons: list[str] = []
    for _ in range(8):
        decision = blocked.lane.apply([] if blocked.lane.has_batch else [poison])
        if isinstance(decision, Settlement):
            assert decision.tags == []
            published += [entry.id for entry in decision.emitted]
            blocked.lane.confirm(decision.emitted)
        else:
            assert isinstance(decision, Suspension)
            reasons.append(decision.reason)
    assert published == [1, 2, 3, 4, 5]
    assert len(reasons) == 5
    assert blocked.rows(OutboxEntry) == []


def test_commands_of_a_pack_that_come_before_one_that_blocks_are_heard_of_elsewhere(database: MemoryDatabase) -> None:
    """Their outcomes wait for the pack; commands that they emitted do not."""
    lane = blocking_lane(database)
    lane.do(OpenAccount(owner="a"))
    pack = Delivery(
        tag=5,
        commands=(*delivery(2, Forward(id=1, amount=1)).commands, *delivery(3, Tamper(id=1, how="crash")).commands),
    )
    decision = lane.lane.apply([pack])
    assert isinstance(decision, Settlement)
    assert (decision.tags, decision.outcomes, len(decision.emitted)) == ([], [], 1)
    assert isinstance(lane.lane.apply([]), Suspension)
    cancel(database, 3)
    after = lane.settle()
    assert (after.tags, codes(after.outcomes), after.emitted) == ([pack.tag], ["applied", "cancelled"], [])


def test_a_repetition_of_what_was_settled_does_not_block(blocking: LaneUnderTest) -> None:
    """Nobody announced it, and it would fail now."""
    blocking.do(Deposit(id=1, amount=1))
    settled = delivery(1, Tamper(id=1, how="refuse"))
    blocking.settle(settled)
    blocking.do(Deposit(id=1, amount=1))
    message = structs.replace(settled.commands[0], arguments=b'{"id":1,"how":"crash"}')
    again = structs.replace(settled, commands=(message,))
    assert codes(blocking.outcomes(again)) == ["idempotency_mismatch"]


def test_a_rejection_blocks_nothing(blocking: LaneUnderTest) -> None:
    assert codes(blocking.do(Tamper(id=1, how="refuse"), Deposit(id=1, amount=1))) == ["refused", "applied"]


def test_a_marker_is_settled_after_everything_before_it(lane: LaneUnderTest) -> None:
    outcomes = lane.outcomes(delivery(1, Deposit(id=1, amount=1)), delivery(2, Marker()))
    assert codes(outcomes) == ["applied", "applied"]
    assert outcomes[1].sequence == 3


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_dead_letter_is_not_lost_when_the_answer_to_a_commit_is(
    lane: LaneUnderTest, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    from coordinator.stores import memory
    from coordinator.stores.port import StoreUnavailable

    commit: Callable[..., None] = memory.MemoryTransaction.commit
    times = iter([True])

    def commit_and_fail(self: memory.MemoryTransaction, *arguments: object) -> None:
        fail = next(times, False)
        if fail and fails == "before":
            raise StoreUnavailable("away")
        commit(self, *arguments)
        if fail:
            raise StoreUnavailable("away")

    monkeypatch.setattr(memory.MemoryTransaction, "commit", commit_and_fail)
    assert isinstance(lane.lane.apply([delivery(1, Tamper(id=1, how="crash"))]), Suspension)
    lane.settle()
    assert [letter.command_id for letter in lane.rows(DeadLetter)] == [command_id(1)]


def test_a_gap_of_a_lost_channel_does_not_take_the_lane_back(lane: LaneUnderTest) -> None:
    """Else a consumer that has become a standby would apply nothing, and depose the active one with it."""
    lane.settle(numbered(2))
    lane.elapsed_s = LaneSettings().gap_timeout_s
    assert lane.lane.due_in_s(0) == 0
    assert lane.lane.due_in_s(1) is None
