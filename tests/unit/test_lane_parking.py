"""Commands that wait for their key behind one that failed, on a lane in memory."""

import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from coordinator.lane.control import DiscardLetter, Release, ReplayLetter, WithdrawEmitted
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import message_of
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import replay_command_id
from coordinator.service.principal import Principal
from coordinator.service.unit_of_work import Handler
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry, OutboxEntry, ParkedCommand
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import Changes, Lease, StoreUnavailable, Transaction
from coordinator.worker.outbox_watch import Left, OutboxWatch, left_in_outbox, marker_id, marker_of
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, Note, OpenAccount, Remark, Tamper, fragile

_numbers = itertools.count(100)
KEY = "accounts.id=1"


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def lane(database: MemoryDatabase) -> LaneUnderTest:
    """Account 1 is broken, and command 10 has failed on it; account 2 is sound."""
    lane = LaneUnderTest(MemoryStore(database))
    lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"), Remark(id=1, note="broken"))
    failed = lane.settle(delivery(10, Fragile(id=1, amount=1)))
    assert codes(failed.outcomes) == ["handler_error"]
    assert [letter.command_id for letter in failed.dead_letters] == [command_id(10)]
    return lane


def deposit(number: int, key: int = 1) -> Delivery:
    return delivery(number, Deposit(id=key, amount=number))


def replay(number: int, amount: int = 1) -> Delivery:
    again = delivery(number, Fragile(id=1, amount=amount))
    [message] = again.commands
    return Delivery(
        tag=again.tag,
        commands=(
            type(message)(
                command_id=replay_command_id(command_id(number)), type=message.type, arguments=message.arguments
            ),
        ),
        reply_to="q",
        correlation_id="replay",
    )


def release(number: int) -> Delivery:
    return delivery(next(_numbers), Release(ordering_key=KEY, command_id=command_id(number)))


def mend(lane: LaneUnderTest) -> None:
    assert codes(lane.do(Remark(id=1, note=None))) == ["applied"]


def waiting(lane: LaneUnderTest) -> list[str]:
    rows = sorted(lane.rows(ParkedCommand), key=lambda row: row.position)
    return [row.command_id for row in rows if row.error_code is None]


def test_a_repetition_of_what_is_settled_does_not_wait(database: MemoryDatabase) -> None:
    """Though it is about the row that breaks in the same batch, and nobody announced it."""
    lane = LaneUnderTest(MemoryStore(database))
    lane.do(OpenAccount(owner="a"))
    lane.settle(deposit(5))
    lane.do(Remark(id=1, note="broken"))
    outcomes = lane.outcomes(delivery(10, Fragile(id=1, amount=1)), deposit(5), deposit(6))
    assert [(outcome.command_id, outcome.replayed) for outcome in outcomes] == [
        (command_id(10), False),
        (command_id(5), True),
    ]
    assert waiting(lane) == [command_id(6)]


def test_later_commands_of_the_key_wait_and_others_do_not(lane: LaneUnderTest) -> None:
    settlement = lane.settle(deposit(11), deposit(12, key=2), delivery(13, Fragile(id=1, amount=1)))
    assert [outcome.command_id for outcome in settlement.outcomes] == [command_id(12)]
    assert len(settlement.tags) == 3
    assert [reply.correlation_id for reply in settlement.replies] == ["12"]
    assert waiting(lane) == [command_id(11), command_id(13)]
    assert lane.balance(1) == 0


def test_after_the_replay_they_are_applied_in_their_order_before_anything_later(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11), deposit(12))
    mend(lane)
    settlement = lane.settle(replay(10), deposit(14), deposit(15, key=2))
    assert [reply.correlation_id for reply in settlement.replies] == ["replay", "15", "11", "12", "14"]
    order = [entry.command_id for entry in lane.log()]
    assert order[-5:] == [replay_command_id(command_id(10)), *(command_id(number) for number in (15, 11, 12, 14))]
    assert (waiting(lane), lane.rows(ParkedCommand)) == ([], [])
    assert lane.balance(1) == 1 + 11 + 12 + 14


def test_a_released_key_goes_on_without_the_failed_command(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11))
    assert codes(lane.outcomes(release(99))) == ["not_parked"]
    settlement = lane.settle(release(10))
    assert codes(settlement.outcomes) == ["applied", "applied"]
    assert lane.balance(1) == 11
    assert codes(lane.outcomes(release(10))) == ["not_parked"]


def test_what_frees_a_key_is_acknowledged_only_after_all_that_waited(database: MemoryDatabase) -> None:
    """Else nothing would be delivered to a successor, which takes an idle lane over only then."""
    lane = LaneUnderTest(MemoryStore(database))
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "test", LaneSettings(batch_commands_max=1), lambda: 0.0)
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    for sent in (delivery(10, Fragile(id=1, amount=1)), deposit(11), deposit(12)):
        lane.settle(sent)
    freeing = release(10)
    settlements = [lane.lane.apply([freeing])]
    while lane.lane.has_batch:
        settlements.append(lane.lane.apply([freeing]))
    assert [
        (settlement.tags, len(settlement.outcomes)) for settlement in settlements if isinstance(settlement, Settlement)
    ] == [([], 1), ([], 1), ([freeing.tag], 1)]
    assert lane.balance(1) == 11 + 12


def test_the_watch_wakes_a_lane_to_which_nothing_is_delivered_for_what_waited(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    """The broker has lost what freed the key, or the database what came after it, and the process has ended."""
    for sent in (deposit(11), deposit(12), deposit(13, key=2)):
        lane.settle(sent)
    markers: list[str] = []
    watch = OutboxWatch("ledger", lane.store, markers.append, 1.0)

    def look(second: int) -> list[str]:
        left = left_in_outbox(lane.store)
        assert left is not None
        watch._look_at_freed(left, float(second))
        return markers

    assert look(0) == look(1) == [], "the key waits"
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "ends", LaneSettings(batch_commands_max=1), lambda: 0.0)
    lane.lane.apply([release(10)])
    assert look(2) == [], "a process may be about to apply it"
    assert look(3) == look(4) == [marker_id(command_id(11))]
    left = left_in_outbox(lane.store)
    assert left is not None
    assert left.first_id == command_id(11)
    database.paused = "a backup"
    assert look(100) == markers[:1]
    database.paused = None
    assert len(look(101)) == 2
    successor = LaneUnderTest(lane.store, "successor")
    successor.settle(Delivery(tag=1, commands=(marker_of(command_id(11)),)))
    assert successor.balance(1) == 11 + 12
    left = left_in_outbox(lane.store)
    assert left is not None
    assert left.first_id is None


def test_what_waits_is_looked_through_once_for_each_place_where_the_lane_stands_still(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    lane.settle(deposit(11))
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "ends", LaneSettings(batch_commands_max=1), lambda: 0.0)
    found: list[Left | None] = [left_in_outbox(lane.store)]
    lane.lane.apply([release(10)])
    found += [left_in_outbox(lane.store, found[-1])]
    found += [left_in_outbox(lane.store, found[-1])]
    database.tables[ParkedCommand].clear()
    found += [left_in_outbox(lane.store, found[-1])]
    seen = [None if each is None else (each.freed, each.has_looked) for each in found]
    assert seen == [(None, True), (None, False), (command_id(11), True), (command_id(11), True)]


def test_the_lane_tells_since_when_keys_wait(lane: LaneUnderTest) -> None:
    first = lane.now
    assert lane.lane.parked_since == first
    lane.now += timedelta(hours=1)
    lane.do(OpenAccount(owner="c"), Remark(id=3, note="broken"))
    lane.settle(delivery(20, Fragile(id=3, amount=1)))
    assert (lane.lane.parked_keys, lane.lane.parked_since) == (2, first)
    lane.settle(release(10))
    assert (lane.lane.parked_keys, lane.lane.parked_since) == (1, lane.now)
    lane.settle(delivery(99, Release(ordering_key="accounts.id=3", command_id=command_id(20))))
    assert lane.lane.parked_keys == 0
    assert lane.lane.parked_since is None


def test_a_replay_that_fails_again_keeps_the_key_waiting(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11))
    failed = lane.settle(replay(10))
    assert codes(failed.outcomes) == ["handler_error"]
    assert len(failed.dead_letters) == 1
    assert waiting(lane) == [command_id(11)]
    mend(lane)
    second = replay_command_id(replay_command_id(command_id(10)))
    again = replay(10)
    [message] = again.commands
    twice = Delivery(
        tag=again.tag, commands=(type(message)(command_id=second, type=message.type, arguments=message.arguments),)
    )
    assert codes(lane.outcomes(twice)) == ["applied", "applied"]
    assert lane.balance(1) == 12


def order_replay(lane: LaneUnderTest, args: bytes | None = None) -> Delivery:
    """Have the one dead letter replayed, and return the replay as it comes back to the lane."""
    [letter] = lane.rows(DeadLetter)
    order = ReplayLetter(letter=letter.id) if args is None else ReplayLetter(letter=letter.id, args=msgspec.Raw(args))
    assert codes(lane.do(order)) == ["applied"]
    entry = lane.rows(OutboxEntry)[-1]
    return Delivery(tag=next(_numbers), commands=(message_of(entry),), reply_to="q", correlation_id="replay")


def test_a_replay_releases_the_key_of_what_it_replays_whatever_its_new_arguments_name(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11))
    outcomes = lane.outcomes(order_replay(lane, b'{"id":2,"amount":7}'))
    assert codes(outcomes) == ["applied", "applied"]
    assert lane.rows(ParkedCommand) == []
    assert (lane.balance(1), lane.balance(2)) == (11, 7)
    assert codes(lane.outcomes(deposit(12))) == ["applied"]


def test_a_replay_with_another_key_that_fails_again_keeps_the_first_one_waiting(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11))
    assert codes(lane.outcomes(order_replay(lane, b'{"id":3,"amount":7}'))) == ["account_not_found", "applied"]
    assert lane.balance(1) == 11
    lane.settle(delivery(20, Fragile(id=1, amount=1)), deposit(21))
    lane.do(Remark(id=2, note="broken"))
    [replayed] = order_replay(lane, b'{"id":2,"amount":7}').commands
    failed = Delivery(tag=next(_numbers), commands=(replayed,))
    assert codes(lane.outcomes(failed)) == ["handler_error"]
    assert waiting(lane) == [command_id(21)]
    assert codes(lane.outcomes(deposit(22, key=2))) == ["applied"]
    [letter] = lane.rows(DeadLetter)
    assert codes(lane.do(DiscardLetter(letter=letter.id))) == ["applied", "applied"]
    lane.settle(deposit(23))
    assert lane.rows(ParkedCommand) == []


def test_what_waited_and_failed_keeps_its_key_waiting_when_its_replay_fails_too(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    accounts = database.tables[Account]
    accounts[1] = msgspec.structs.replace(accounts[1], balance=2**63 - 1)
    lane.settle(deposit(11), deposit(12))
    assert codes(lane.outcomes(release(10))) == ["applied", "invalid_row"]
    assert waiting(lane) == [command_id(12)]
    [_, letter] = lane.rows(DeadLetter)
    lane.do(ReplayLetter(letter=letter.id))
    [entry] = lane.rows(OutboxEntry)
    assert codes(lane.outcomes(Delivery(tag=next(_numbers), commands=(message_of(entry),), reply_to="q"))) == [
        "invalid_row"
    ]
    assert waiting(lane) == [command_id(12)]


def test_the_replay_of_what_keeps_a_key_waiting_is_not_withdrawn(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11))
    replayed = order_replay(lane)
    [entry] = lane.rows(OutboxEntry)
    assert codes(lane.do(WithdrawEmitted(entries=[entry.id]))) == ["replay_of_parked"]
    assert lane.rows(OutboxEntry) == [entry]
    mend(lane)
    assert codes(lane.outcomes(replayed)) == ["applied", "applied"]
    assert lane.rows(ParkedCommand) == []
    assert codes(lane.do(WithdrawEmitted(entries=[entry.id]))) == ["applied"]


def test_one_that_waited_and_fails_keeps_those_behind_it_waiting(lane: LaneUnderTest) -> None:
    lane.settle(
        delivery(11, Tamper(id=1, how="crash")), deposit(12), delivery(13, Fragile(id=1, amount=5)), deposit(14)
    )
    # Of these only those with a target wait: the tampering has gone wrong at once.
    assert waiting(lane) == [command_id(12), command_id(13), command_id(14)]
    settlement = lane.settle(release(10))
    assert codes(settlement.outcomes) == ["applied", "applied", "handler_error"]
    assert [letter.command_id for letter in settlement.dead_letters] == [command_id(13)]
    assert waiting(lane) == [command_id(14)]


def test_a_repeated_command_that_waits_waits_once(lane: LaneUnderTest) -> None:
    lane.settle(deposit(11))
    again = lane.settle(deposit(11), delivery(11, Deposit(id=1, amount=99)))
    assert codes(again.outcomes) == ["idempotency_mismatch"]
    assert waiting(lane) == [command_id(11)]
    mend(lane)
    lane.settle(replay(10))
    assert lane.balance(1) == 12


def test_whoever_waits_for_a_mismatch_is_told_once_and_the_same_again(lane: LaneUnderTest) -> None:
    """Told again, with its letter gone, it has the same id: with another text it would be a mismatch itself."""
    lane.settle(deposit(11))
    other = delivery(11, Deposit(id=1, amount=99), continuation=Note.type)
    first, copy = (lane.settle(other) for _ in range(2))
    assert copy.emitted == []
    (letter,) = first.dead_letters
    mend(lane)
    lane.settle(replay(10))
    assert codes(lane.do(DiscardLetter(letter=letter.id))) == ["applied"]
    again = lane.settle(other)
    told = [message_of(entry) for settlement in (first, again) for entry in settlement.emitted]
    outcomes = lane.outcomes(*(Delivery(tag=1, commands=(message,)) for message in told))
    assert [(outcome.status, outcome.replayed) for outcome in outcomes] == [("applied", False), ("applied", True)]
    assert lane.balance(1) == 1 + 11, "neither is applied, nor the first one lost"


def test_a_successor_lets_them_go_on(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    lane.settle(deposit(11))
    mend(lane)
    successor = LaneUnderTest(MemoryStore(database), "successor")
    assert successor.outcomes(deposit(12)) == []
    assert codes(successor.outcomes(replay(10))) == ["applied"] * 3
    assert successor.balance(1) == 1 + 11 + 12


class _Failing(MemoryStore):
    """Goes away, once, after so many commits."""

    commits = 10**9

    def begin(self) -> Transaction:
        transaction = super().begin()
        commit = transaction.commit

        def failing(lease: Lease, sequence: int, changes: Changes) -> None:
            self.commits -= 1
            if self.commits == 0:
                raise StoreUnavailable("gone")
            commit(lease, sequence, changes)

        transaction.commit = failing  # type: ignore[method-assign]
        return transaction


def test_what_was_released_is_applied_though_the_database_goes_away_in_between(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    lane.settle(deposit(11), deposit(12))
    mend(lane)
    store = _Failing(database)
    successor = LaneUnderTest(store, "successor")
    store.commits = 2
    offered = [replay(10), deposit(13)]
    assert isinstance(successor.lane.apply(offered), Suspension)
    assert successor.lane.has_batch
    decision = successor.lane.apply([])
    assert isinstance(decision, Settlement)
    assert sorted(codes(decision.outcomes)) == ["applied"] * 4
    assert successor.balance(1) == 1 + 11 + 12 + 13
    assert [entry.command_id for entry in successor.log()][-3:] == [command_id(number) for number in (11, 12, 13)]


def test_a_cancelled_command_does_not_wait_any_more(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    lane.settle(deposit(11), deposit(12))
    for number in (11, 20):
        cancellation = Cancellation(command_id=command_id(number), reason="no", requested_at=lane.now)
        database.tables.setdefault(Cancellation, {})[cancellation.command_id] = cancellation
    database.revision += 1
    while isinstance(decision := lane.lane.apply([deposit(20)]), Suspension):
        pass
    assert isinstance(decision, Settlement)
    assert codes(decision.outcomes) == ["cancelled"]
    assert codes(lane.outcomes(release(10))) == ["applied", "cancelled", "applied"]
    assert lane.balance(1) == 12


def test_a_deadline_passes_while_a_command_waits(lane: LaneUnderTest) -> None:
    deadline_ms = int(lane.now.timestamp() * 1000) + 1000
    lane.settle(delivery(11, Deposit(id=1, amount=1), deadline_ms=deadline_ms), deposit(12))
    lane.now = lane.now.replace(year=lane.now.year + 1)
    assert codes(lane.outcomes(release(10))) == ["applied", "deadline_expired", "applied"]
    assert lane.balance(1) == 12


def test_more_than_the_limit_are_rejected(database: MemoryDatabase) -> None:
    lane = with_room(database, 2)
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    lane.settle(delivery(10, Fragile(id=1, amount=1)))
    assert codes(lane.outcomes(deposit(11), deposit(12), deposit(13))) == ["too_many_parked"]
    assert codes(lane.outcomes(release(10))) == ["applied"] * 3
    assert codes(lane.outcomes(deposit(14))) == ["applied"]


def with_room(database: MemoryDatabase, parked_max: int, parked_bytes_max: int = 1 << 20) -> LaneUnderTest:
    lane = LaneUnderTest(MemoryStore(database))
    settings = LaneSettings(parked_max=parked_max, parked_bytes_max=parked_bytes_max)
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "test", settings, lambda: 0.0)
    return lane


def test_no_more_bytes_wait_than_the_limit_and_of_one_no_more_than_he_leaves_free(database: MemoryDatabase) -> None:
    """They are in memory: few large commands would be as bad as many small ones."""
    lane = with_room(database, 1000, 100_000)
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    lane.settle(delivery(10, Fragile(id=1, amount=1)))
    numbers = itertools.count(11)

    def sent(lane: LaneUnderTest, who: str | None, size_bytes: int) -> list[str]:
        actor = None if who is None else Principal(subject=who)
        origin = "system" if who is None else "public"
        return codes(lane.outcomes(of_bytes(size_bytes, next(numbers), actor=actor, origin=origin)))

    assert sent(lane, "eve", 100_001) == ["too_many_parked"]
    assert [sent(lane, "eve", 30_000) for _ in range(3)] == [[], [], ["too_many_parked"]]
    successor = with_room(database, 1000, 100_000)
    assert sent(successor, "eve", 30_000) == ["too_many_parked"]
    assert [sent(successor, "ada", 30_000), sent(successor, "ada", 1000)] == [[], ["too_many_parked"]]
    # What the system says to itself has all of it.
    assert [sent(successor, None, 9000), sent(successor, None, 1000)] == [[], ["too_many_parked"]]
    successor.settle(release(10))
    assert waiting(successor) == []
    successor.do(Remark(id=1, note="broken"))
    successor.settle(delivery(next(numbers), Fragile(id=1, amount=1)))
    assert sent(successor, "eve", 30_000) == []


def test_a_command_of_just_as_many_bytes_as_are_left_waits() -> None:
    for parked_bytes_max, expected in ((999, ["too_many_parked"]), (1000, []), (1001, [])):
        lane = with_room(MemoryDatabase(), 10, parked_bytes_max)
        lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
        lane.settle(delivery(10, Fragile(id=1, amount=1)))
        assert codes(lane.outcomes(of_bytes(1000, 11))) == expected


def of_bytes(size_bytes: int, number: int, **options: Any) -> Delivery:
    """A deposit whose arguments have so many bytes: what is between them is kept as it came."""
    sent = delivery(number, Deposit(id=1, amount=1), **options)
    [message] = sent.commands
    arguments = message.arguments[:-1].ljust(size_bytes - 1) + b"}"
    return msgspec.structs.replace(sent, commands=(msgspec.structs.replace(message, arguments=arguments),))


def test_nobody_takes_the_room_of_others(database: MemoryDatabase) -> None:
    """A rule that looks at rows is asked when a command's turn comes: whoever may issue nothing waits as well."""
    lane = with_room(database, 16)
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    lane.settle(delivery(10, Fragile(id=1, amount=1)))
    numbers = itertools.count(11)

    def wait(lane: LaneUnderTest, subject: str, tenant: str | None = None, *scopes: str) -> int:
        """How many commands of his wait before one is refused."""
        who = Principal(subject=subject, tenant=tenant, scopes=frozenset(scopes))
        for waits in range(17):
            sent = delivery(next(numbers), Deposit(id=1, amount=1), actor=who, origin="public")
            if codes(lane.outcomes(sent)) == ["too_many_parked"]:
                return waits
        pytest.fail("there is no limit")

    assert wait(lane, "eve") == 8
    assert wait(lane, "eve", None, "another credential") == 0
    successor = with_room(database, 16)
    assert wait(successor, "eve") == 0
    assert [wait(successor, "eve", "t1"), wait(successor, "bob"), wait(successor, "ada")] == [4, 2, 1]
    # What the system says to itself has all of it.
    assert [codes(successor.outcomes(deposit(each))) for each in (90, 91)] == [[], ["too_many_parked"]]
    assert codes(successor.outcomes(release(10))) == ["applied"] * 17
    successor.do(Remark(id=1, note="broken"))
    successor.settle(delivery(95, Fragile(id=1, amount=1)))
    assert wait(successor, "eve") == 8


def test_failed_commands_for_which_nobody_waits_take_no_room(database: MemoryDatabase) -> None:
    lane = with_room(database, 1)
    lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
    for key in (1, 2):
        lane.do(Remark(id=key, note="broken"))
        assert codes(lane.outcomes(delivery(10 + key, Fragile(id=key, amount=1)))) == ["handler_error"]
    assert lane.outcomes(deposit(20)) == []
    assert waiting(lane) == [command_id(20)]
    assert codes(lane.outcomes(deposit(21, key=2))) == ["too_many_parked"]


def test_a_successor_knows_every_failed_key_however_many_there_are(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.lane.knowledge.PAGE_ROWS", 2)
    lane = LaneUnderTest(MemoryStore(database))
    keys = range(1, 6)
    lane.do(*(OpenAccount(owner=f"o{key}") for key in keys))
    lane.do(*(Remark(id=key, note="broken") for key in keys))
    failed = lane.outcomes(*(delivery(10 + key, Fragile(id=key, amount=1)) for key in keys))
    assert codes(failed) == ["handler_error"] * 5
    successor = LaneUnderTest(MemoryStore(database), "successor")
    assert successor.outcomes(*(deposit(20 + key, key) for key in keys)) == []
    assert sorted(waiting(successor)) == [command_id(20 + key) for key in keys]


def test_a_publisher_s_session_goes_on_past_a_command_that_waits(lane: LaneUnderTest) -> None:
    first = delivery(11, Deposit(id=1, amount=1), publisher="p", publisher_seq=1)
    second = delivery(12, Deposit(id=2, amount=1), publisher="p", publisher_seq=2)
    assert codes(lane.outcomes(first, second)) == ["applied"]
    assert codes(lane.outcomes(release(10))) == ["applied", "applied"]


def test_after_the_log_is_pruned_the_failed_command_itself_is_its_replay(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    lane.settle(deposit(11))
    mend(lane)
    del database.tables[LogEntry][command_id(10)]
    assert codes(lane.outcomes(delivery(10, Fragile(id=1, amount=1)))) == ["applied", "applied"]


def test_a_reply_address_that_no_database_takes_does_no_harm(lane: LaneUnderTest) -> None:
    odd = deposit(11)
    lane.settle(Delivery(tag=odd.tag, commands=odd.commands, reply_to="a\x00b", correlation_id="c" * 300))
    [row] = [row for row in lane.rows(ParkedCommand) if row.error_code is None]
    assert (row.reply_to, row.correlation_id) == (None, None)


def test_park_key_needs_a_target() -> None:
    with pytest.raises(TypeError, match=r"ledger\.fragile: park-key needs a target"):
        Handler(Fragile, fragile, reads=lambda command: (Account.at(command.id),), on_failure="park-key")
