"""What the database refuses: how few transactions find the culprits, and what is an outage instead."""

import math
import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.lane.control import Release
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.service.rows import Ref, Row, RowSelection
from coordinator.service.unit_of_work import Handler
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry, OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.port import (
    BatchFault,
    BatchRefused,
    Changes,
    Conflict,
    Lease,
    Read,
    Refusal,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery, merged
from tests.support.ledger import LEDGER, Account, Deposit, Forward, Fragile, Note, OpenAccount, Remark, Tamper, tamper

Refuse = Callable[[Sequence[Row], Changes], StoreError | None]


class RefusingStore(MemoryStore):
    """Refuses what a test says of the rows of a transaction, and counts what is tried."""

    def __init__(self, database: MemoryDatabase, refuse: Refuse = lambda rows, changes: None) -> None:
        super().__init__(database)
        self.refuse = refuse
        self.tried = 0
        self.log_reads = 0
        self.sizes: list[int] = []

    def begin(self) -> Transaction:
        return _Refusing(self, self._database)


class _Refusing(MemoryTransaction):
    def __init__(self, store: RefusingStore, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.store = store

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        self.store.log_reads += sum(read.model is LogEntry for read in reads)
        return super().load(reads)

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        self.store.tried += 1
        rows = [row for rows in (*changes.updates, *changes.inserts) for row in rows]
        self.store.sizes.append(sum(isinstance(row, LogEntry) for row in rows))
        refusal = self.store.refuse(rows, changes)
        if refusal is not None:
            raise refusal
        super().commit(lease, sequence, changes)


def owners(rows: Sequence[Row]) -> list[str]:
    return [row.owner for row in rows if isinstance(row, Account)]


def bad_owners(rows: Sequence[Row], changes: Changes) -> Refusal | None:
    del changes
    bad = [owner for owner in owners(rows) if owner.startswith("bad")]
    return BatchFault(f"owner {bad[0]} is refused") if bad else None


def bound(count: int, bad: int) -> float:
    if not bad:
        return 1
    # A lone suspect is tried alone before it is called the culprit: among fewer than six that is one more.
    alone = 1 if bad == 1 and count in (1, 2, 3, 5) else 0
    return min(2 * count, 2 * bad * math.log2(count) + 1 + alone) if count > 1 else 2


def _positions(chance: random.Random) -> tuple[int, set[int]]:
    count = chance.choice([chance.randint(1, 12), chance.randint(1, 500)])
    bad = chance.choice([0, 1, 1, 2, 3, chance.randint(1, count), chance.randint(1, max(1, count // 10))])
    match chance.randrange(3):
        case 0:
            return count, set(chance.sample(range(count), min(bad, count)))
        case 1:
            first = chance.randrange(count)
            return count, set(range(first, min(count, first + bad)))
        case _:
            return count, set(range(chance.randrange(count), count, chance.randint(1, 12))) if bad else set()


@pytest.mark.parametrize("seed", range(60))
def test_few_transactions_find_the_culprits_and_the_log_is_read_once(seed: int) -> None:
    count, bad = _positions(random.Random(seed))
    store = RefusingStore(MemoryDatabase(), bad_owners)
    lane = LaneUnderTest(store)
    lane.do(OpenAccount(owner="first"))
    store.tried = store.log_reads = 0
    sent = [
        delivery(number + 1, OpenAccount(owner=f"{'bad' if number in bad else 'good'} {number}"))
        for number in range(count)
    ]
    outcomes = merged(lane.settlements(*sent)).outcomes
    assert store.tried <= bound(count, len(bad)), (count, sorted(bad))
    assert store.log_reads <= 1
    assert codes(outcomes) == ["database_refused" if number in bad else "applied" for number in range(count)]
    assert [outcome.sequence for outcome in outcomes] == list(range(2, count + 2))
    assert [row.id for row in lane.rows(Account)] == list(range(1, count - len(bad) + 2))
    assert len(lane.rows(DeadLetter)) == len(bad)


def test_what_is_settled_is_replied_before_a_culprit_is_looked_for() -> None:
    store = RefusingStore(MemoryDatabase(), bad_owners)
    lane = LaneUnderTest(store)
    sent = [delivery(n, OpenAccount(owner="bad" if n == 64 else f"good {n}")) for n in range(1, 65)]
    settlements = lane.settlements(*sent)
    assert len(settlements) > 3
    assert [tag for each in settlements for tag in each.tags] == [each.tag for each in sent]
    assert settlements[0].outcomes[0].command_id == command_id(1)
    assert len(settlements[0].tags) == 32


def test_a_pack_is_applied_in_transactions_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    store = RefusingStore(MemoryDatabase())
    lane = LaneUnderTest(store)
    lane.lane = Lane(LEDGER, store, lambda: lane.now, "test", LaneSettings(batch_commands_max=100), lambda: 0.0)
    commands = tuple(delivery(n, OpenAccount(owner=f"o{n}")).commands[0] for n in range(1, 1051))
    settlements = lane.settlements(Delivery(tag=7, commands=commands, reply_to="q"))
    assert max(store.sizes) == 100
    assert [each.tags for each in settlements if each.tags] == [[7]]
    assert [outcome.sequence for outcome in merged(settlements).outcomes] == list(range(1, 1051))


def suspended(lane: LaneUnderTest, *sent: Delivery) -> tuple[list[Suspension], list[Settlement]]:
    """Apply until everything is settled, or the lane is suspended ten times in a row."""
    suspensions: list[Suspension] = []
    settlements: list[Settlement] = []
    in_a_row = 0
    while in_a_row < 10 and (not settlements or lane.lane.has_batch):
        decision = lane.lane.apply(sent)
        if isinstance(decision, Suspension):
            suspensions.append(decision)
            in_a_row += 1
        else:
            assert isinstance(decision, Settlement)
            settlements.append(decision)
            in_a_row = 0
    return suspensions, settlements


class Contended:
    """A lane whose transactions conflict as a test says, with a clock that goes on while it holds."""

    def __init__(self, conflicts: Callable[[Sequence[Row]], bool]) -> None:
        self.now_s = 0.0
        self.suspensions: list[Suspension] = []
        self.store = RefusingStore(
            MemoryDatabase(), lambda rows, changes: Conflict("a lock") if conflicts(rows) else None
        )
        self.lane = LaneUnderTest(self.store)
        self.lane.lane = Lane(LEDGER, self.store, lambda: self.lane.now, "test", LaneSettings(), lambda: self.now_s)

    def settle(self, *sent: Delivery, for_s: float = 3600.0) -> list[Settlement]:
        settlements: list[Settlement] = []
        end_s = self.now_s + for_s
        while self.now_s < end_s and (not settlements or self.lane.lane.has_batch):
            decision = self.lane.lane.apply(sent)
            if isinstance(decision, Suspension):
                self.suspensions.append(decision)
                self.now_s += decision.delay_s
            else:
                assert isinstance(decision, Settlement)
                settlements.append(decision)
        return settlements


def bad(rows: Sequence[Row]) -> bool:
    return any(owner.startswith("bad") for owner in owners(rows))


def test_a_command_that_conflicts_for_ever_fails_and_its_neighbours_go_on() -> None:
    contended = Contended(bad)
    sent = [delivery(n, OpenAccount(owner=f"{'bad' if n == 5 else 'good'} {n}")) for n in range(1, 9)]
    outcomes = merged(contended.settle(*sent)).outcomes
    assert codes(outcomes) == ["applied"] * 4 + ["database_refused"] + ["applied"] * 3
    assert [outcome.sequence for outcome in outcomes] == list(range(1, 9))
    assert contended.store.sizes[:20] == [8] * 20
    assert contended.store.sizes.count(1) >= 20
    assert 60 < contended.now_s < 600
    assert "a lock" in contended.suspensions[0].reason


def test_adjacent_commands_that_conflict_for_ever_fail_and_their_neighbours_go_on() -> None:
    contended = Contended(bad)
    sent = [delivery(n, OpenAccount(owner=f"{'bad' if n < 4 else 'good'} {n}")) for n in range(1, 9)]
    outcomes = merged(contended.settle(*sent)).outcomes
    assert codes(outcomes) == ["database_refused"] * 3 + ["applied"] * 5
    assert 300 < contended.now_s < 900


def test_conflicts_that_end_are_not_looked_into() -> None:
    left = 19

    def conflicts(rows: Sequence[Row]) -> bool:
        nonlocal left
        left -= bool(owners(rows))
        return left >= 0 and bool(owners(rows))

    contended = Contended(conflicts)
    sent = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 9)]
    assert codes(merged(contended.settle(*sent)).outcomes) == ["applied"] * 8
    assert contended.store.sizes == [8] * 20
    assert [suspension.delay_s for suspension in contended.suspensions[:4]] == [0.01, 0.02, 0.04, 0.08]


def test_what_conflicts_with_every_command_suspends_the_lane_until_it_is_over() -> None:
    is_over = False
    contended = Contended(lambda rows: bool(owners(rows)) and not is_over)
    sent = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 5)]
    while not contended.suspensions or "none of 4 commands is taken" not in contended.suspensions[-1].reason:
        assert contended.settle(*sent, for_s=1e-3) == []
        assert contended.now_s < 3600
    assert contended.lane.log() == []
    is_over = True
    assert codes(merged(contended.settle()).outcomes) == ["applied"] * 4


@pytest.mark.parametrize("ends_after_s", [250.0, None])
def test_a_lone_command_fails_only_if_it_conflicts_for_long(ends_after_s: float | None) -> None:
    contended = Contended(lambda rows: bad(rows) and (ends_after_s is None or contended.now_s < ends_after_s))
    outcomes = merged(contended.settle(delivery(1, OpenAccount(owner="bad")))).outcomes
    assert codes(outcomes) == ["database_refused" if ends_after_s is None else "applied"]
    assert ends_after_s is not None or contended.now_s >= 300


def test_a_failure_that_cannot_be_recorded_for_a_conflict_waits() -> None:
    contended = Contended(lambda rows: True)
    assert contended.settle(delivery(1, OpenAccount(owner="o"))) == []
    assert contended.lane.log() == []


def test_what_is_too_much_at_once_is_applied_in_smaller_pieces() -> None:
    """A time limit of the role's: the same batch would be refused for ever."""

    def slow(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        del changes
        return BatchRefused("statement timeout") if sum(isinstance(row, LogEntry) for row in rows) > 40 else None

    store = RefusingStore(MemoryDatabase(), slow)
    lane = LaneUnderTest(store)
    lane.do(OpenAccount(owner="first"))
    sent = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 501)]
    suspensions, settlements = suspended(lane, *sent)
    assert len(suspensions) <= 2
    assert f"500 commands, from command {command_id(1)}" in suspensions[0].reason
    assert "statement timeout" in suspensions[0].reason
    assert set(codes(merged(settlements).outcomes)) == {"applied"}
    store.tried = 0
    again = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(501, 1001)]
    assert not suspended(lane, *again)[0], "and the next batch is not tried whole again"


def test_a_lane_that_begins_commits_little_first_and_answers_it() -> None:
    """What an outage left may take a slow database seconds: nobody would see that the lane is back."""
    is_away = False

    def refuse(rows: Sequence[Row], changes: Changes) -> StoreError | None:
        del rows, changes
        return StoreUnavailable("away") if is_away else None

    def sent(first: int) -> list[Delivery]:
        return [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(first, first + 500)]

    def answered(settlements: list[Settlement]) -> list[int]:
        return [len(settlement.outcomes) for settlement in settlements]

    store = RefusingStore(MemoryDatabase(), refuse)
    lane = LaneUnderTest(store)
    assert answered(lane.settlements(*sent(1))) == store.sizes == [64, 128, 256, 52]
    assert answered(lane.settlements(*sent(501))) == [500]
    is_away = True
    assert isinstance(lane.lane.apply(sent(1001)), Suspension)
    is_away = False
    assert answered(lane.settlements()) == [64, 128, 256, 52]
    assert answered(lane.settlements(*sent(1501))) == [500]
    successor = LaneUnderTest(store, "successor")
    assert answered(successor.settlements(*sent(2001))) == [64, 128, 256, 52]


def test_a_command_that_is_refused_for_no_certain_reason_fails_if_its_neighbours_do_not() -> None:
    def refuse(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        return BatchRefused("odd") if bad_owners(rows, changes) else None

    lane = LaneUnderTest(RefusingStore(MemoryDatabase(), refuse))
    suspensions, settlements = suspended(
        lane, *(delivery(n, OpenAccount(owner=f"{'bad' if n in (3, 4) else 'good'} {n}")) for n in range(1, 9))
    )
    assert 0 < len(suspensions) < 10
    assert f"command {command_id(3)} (ledger.open) is refused" in suspensions[-1].reason
    assert codes(merged(settlements).outcomes) == ["applied"] * 2 + ["database_refused"] * 2 + ["applied"] * 4


def test_a_refusal_that_every_command_meets_suspends_the_lane_until_it_is_over() -> None:
    is_over = False

    def refuse(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        del changes
        return None if is_over or not owners(rows) else BatchRefused("nobody may")

    lane = LaneUnderTest(RefusingStore(MemoryDatabase(), refuse))
    sent = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 9)]
    suspensions, settlements = suspended(lane, *sent)
    assert not settlements
    assert f"none of 8 commands is taken, from command {command_id(1)} (ledger.open) on" in suspensions[-1].reason
    assert lane.log() == []
    is_over = True
    assert codes(merged(suspended(lane)[1]).outcomes) == ["applied"] * 8


def test_a_lone_command_that_is_refused_again_and_again_fails() -> None:
    def refuse(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        return BatchRefused("odd") if bad_owners(rows, changes) else None

    lane = LaneUnderTest(RefusingStore(MemoryDatabase(), refuse))
    suspensions, settlements = suspended(lane, delivery(1, OpenAccount(owner="bad")))
    assert [suspension.delay_s for suspension in suspensions] == [0.05, 0.1, 0.2, 0.4]
    assert codes(merged(settlements).outcomes) == ["database_refused"]


@pytest.mark.parametrize(
    ("model", "is_emitted", "has_letter"), [(OutboxEntry, False, True), (DeadLetter, False, False), (None, True, True)]
)
@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_failure_is_recorded_without_what_is_refused_of_it(
    model: type[Row] | None, place: int, *, is_emitted: bool, has_letter: bool
) -> None:
    def refuse(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        if model is not None and any(isinstance(row, model) for row in rows):
            return BatchFault(f"{model.table} takes nothing")
        return bad_owners(rows, changes)

    lane = LaneUnderTest(RefusingStore(MemoryDatabase(), refuse))
    sent = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 4)]
    sent.insert(place, delivery(9, OpenAccount(owner="bad"), continuation=Note.type))
    outcomes = merged(lane.settlements(*sent)).outcomes
    assert [codes([outcome]) for outcome in outcomes].index(["database_refused"]) == place
    assert codes(outcomes).count("applied") == 3
    assert [len(lane.rows(OutboxEntry)), len(lane.rows(DeadLetter))] == [is_emitted, has_letter]


def test_a_cancellation_is_recorded_without_the_continuation_that_is_refused() -> None:
    database = MemoryDatabase()

    def refuse(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        del changes
        return BatchFault("no room") if any(isinstance(row, OutboxEntry) for row in rows) else None

    lane = LaneUnderTest(RefusingStore(database, refuse))
    database.tables[Cancellation][command_id(2)] = Cancellation(
        command_id=command_id(2), reason="no", requested_at=lane.now
    )
    sent = [delivery(n, OpenAccount(owner=f"o{n}"), continuation=Note.type if n == 2 else None) for n in range(1, 4)]
    # That its rows are refused is no matter any more.
    assert codes(merged(lane.settlements(*sent)).outcomes) == ["applied", "cancelled", "applied"]
    assert lane.rows(Cancellation) == []


def test_a_continuation_with_too_long_a_name_fails_its_command_alone() -> None:
    store = RefusingStore(MemoryDatabase())
    lane = LaneUnderTest(store)
    sent = [delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 4)]
    sent.insert(1, delivery(9, OpenAccount(owner="nine"), continuation="x" * 65 + ".y"))
    settlement = merged(lane.settlements(*sent))
    assert codes(settlement.outcomes) == ["applied", "invalid_row", "applied", "applied"]
    (letter,) = lane.rows(DeadLetter)
    assert "outbox.lane" in letter.reason
    assert store.tried == 1


def test_a_lane_whose_failures_cannot_even_be_logged_is_suspended_and_says_so() -> None:
    def refuse(rows: Sequence[Row], changes: Changes) -> Refusal | None:
        is_failure = any(isinstance(row, LogEntry) and row.status == "failed" for row in rows)
        return BatchFault("the log takes no failures") if is_failure else bad_owners(rows, changes)

    lane = LaneUnderTest(RefusingStore(MemoryDatabase(), refuse))
    suspensions, settlements = suspended(
        lane,
        delivery(1, OpenAccount(owner="o")),
        delivery(2, OpenAccount(owner="bad")),
        delivery(3, Forward(id=1, amount=1)),
    )
    assert codes(merged(settlements).outcomes) == ["applied"]
    assert f"the failure of command {command_id(2)} (ledger.open) cannot be recorded" in suspensions[-1].reason


def test_rows_of_a_rolled_back_transaction_are_not_believed_after_a_takeover() -> None:
    """Another consumer settles one of the commands while this one looks for a culprit."""
    database = MemoryDatabase()
    store = RefusingStore(database, bad_owners)
    lane = LaneUnderTest(store)
    sent = [delivery(n, OpenAccount(owner="bad" if n == 2 else f"o{n}"), redelivered=True) for n in range(1, 5)]
    lane.lane.apply(sent)
    assert lane.lane.has_batch
    successor = LaneUnderTest(MemoryStore(database), "successor")
    successor.settle(*sent[2:])
    assert type(lane.lane.apply(sent)).__name__ == "Deposed"
    lane.channel_number = 1
    outcomes = merged(lane.settlements(*sent)).outcomes
    assert codes(outcomes) == ["applied", "database_refused", "applied", "applied"]
    assert [outcome.replayed for outcome in outcomes] == [True, False, True, True]
    assert len(lane.log()) == 4


def test_a_blocking_command_that_waited_blocks_when_its_turn_comes() -> None:
    def target(command: Tamper) -> Ref[Account]:
        return Account.at(command.id)

    handlers = [each for each in LEDGER.handlers if each.command is not Tamper]
    blocking = Handler(Tamper, tamper, target=target, on_failure="block")
    service = LEDGER.replace(handlers=(*handlers, blocking))
    database = MemoryDatabase()
    lane = LaneUnderTest(MemoryStore(database), service=service)
    lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    lane.settle(delivery(10, Fragile(id=1, amount=1)))
    waiting = [
        delivery(11, Deposit(id=1, amount=2)),
        delivery(12, Tamper(id=1, how="crash")),
        delivery(13, Deposit(id=1, amount=4)),
    ]
    assert lane.outcomes(*waiting) == []
    release = delivery(20, Release(ordering_key="accounts.id=1", command_id=command_id(10)))
    told = lane.lane.apply([release])
    assert isinstance(told, Settlement)
    assert codes(told.outcomes) == ["applied", "applied"]
    assert lane.lane.has_batch
    for _ in range(3):
        suspension = lane.lane.apply([release])
        assert isinstance(suspension, Suspension)
        assert f"blocked by command {command_id(12)} (ledger.tamper)" in suspension.reason
    assert lane.account(1).balance == 2  # type: ignore[union-attr]
    database.tables[Cancellation][command_id(12)] = Cancellation(
        command_id=command_id(12), reason="no", requested_at=lane.now
    )
    database.revision += 1
    assert codes(merged(lane.settlements(release)).outcomes) == ["cancelled", "applied"]
    assert lane.account(1).balance == 6  # type: ignore[union-attr]


def test_a_fence_that_the_database_drops_is_told_as_such_and_tried_again_ever_more_rarely(tmp_path: Path) -> None:
    path = f"{tmp_path}/ledger.db"
    create_schema(path, LEDGER)
    lane = LaneUnderTest(store := SqliteStore(path, LEDGER))
    lane.do(OpenAccount(owner="a"))
    drops = "CREATE TRIGGER kept BEFORE UPDATE OF sequence ON lane_lease BEGIN SELECT RAISE(IGNORE); END"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(drops)
    waits = delivery(1, Deposit(id=1, amount=5))
    found = [lane.lane.apply([waits]) for _ in range(12)]
    assert all(isinstance(each, Suspension) and "drops the UPDATE" in each.reason for each in found), found[0]
    assert {each.cause for each in found if isinstance(each, Suspension)} == {"refusal"}
    pauses = [each.delay_s for each in found if isinstance(each, Suspension)]
    assert pauses[0] > 0
    assert pauses[-1] == LaneSettings().retry_delay_s_max
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER kept")
    assert codes(lane.outcomes(waits)) == ["applied"]
    assert lane.balance(1) == 5
    store.close()


class _UnreadableStore(MemoryStore):
    """A database with a row that this release cannot read, such as one with a member that an enum has lost."""

    unreadable: int | None = None

    def begin(self) -> Transaction:
        return _Unreadable(self._database, self.unreadable)


class _Unreadable(MemoryTransaction):
    def __init__(self, database: MemoryDatabase, unreadable: int | None) -> None:
        super().__init__(database)
        self._unreadable = unreadable

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        found = super().load(reads)
        if any(isinstance(row, Account) and row.id == self._unreadable for rows in found for row in rows):
            raise BatchFault("accounts.owner holds 'x'")
        return found


def test_a_repetition_is_answered_though_its_row_cannot_be_read_any_more() -> None:
    store = _UnreadableStore(MemoryDatabase())
    before = LaneUnderTest(store)
    before.settle(delivery(1, OpenAccount(owner="a")), delivery(2, OpenAccount(owner="b")))
    first = before.settle(delivery(3, Deposit(id=1, amount=5)), delivery(4, Deposit(id=2, amount=7)))
    store.unreadable = 2
    lane = LaneUnderTest(store, "next")
    again = lane.settle(
        delivery(3, Deposit(id=1, amount=5), redelivered=True),
        delivery(4, Deposit(id=2, amount=7), redelivered=True),
        delivery(5, Deposit(id=2, amount=1)),
        delivery(6, Deposit(id=1, amount=1)),
    )
    told = [outcome for reply in again.replies for outcome in reply.outcomes]
    assert [(outcome.status, outcome.replayed) for outcome in told] == [
        ("applied", True),
        ("applied", True),
        ("failed", False),
        ("applied", False),
    ]
    assert [outcome.sequence for outcome in told[:2]] == [
        outcome.sequence for reply in first.replies for outcome in reply.outcomes
    ]
    assert Account.at(2) in again.removed, "no copy of it is left"
    assert {row.id for row in again.saved if isinstance(row, Account)} == {1}
