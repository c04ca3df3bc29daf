"""The lane without servers: its contract in memory and on SQLite, and what it does when the store fails."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.high_water import Mark
from coordinator.lane.unit_of_work import BatchWork
from coordinator.runtime.addresses import parse_address
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import Series
from coordinator.stores.lineages import next_lineage, superseding
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import Backlog, Changes, Conflict, Lease, Read, StoreUnavailable, Transaction
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.every_lane_contract import EveryLaneContract
from tests.support.lane_contract import LaneUnderTest, codes, delivery, merged
from tests.support.ledger import LEDGER, Account, Close, Deposit, OpenAccount
from tests.support.loss_contract import AcceptLoss
from tests.support.store_contract import NOW, OpenStore


class TestLaneInMemory(EveryLaneContract):
    @pytest.fixture
    def database(self) -> MemoryDatabase:
        return MemoryDatabase()

    @pytest.fixture
    def open_store(self, database: MemoryDatabase) -> OpenStore:
        return lambda: MemoryStore(database)

    @pytest.fixture
    def accept_loss(self, database: MemoryDatabase) -> AcceptLoss:
        def accept(sequence: int, up_to: int, lineage: str | None = None) -> int:
            if database.sequence == sequence:
                database.loss_accepted = up_to
                database.supersedes = superseding(
                    database.supersedes, database.lineage, lineage, up_to=max(sequence, up_to)
                )
                database.lineage = next_lineage()
                database.revision += 1
            return database.sequence

        return accept


class TestLaneOnSqlite(EveryLaneContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        path = str(tmp_path / "ledger.db")
        create_schema(path, LEDGER)
        return path

    @pytest.fixture
    def open_store(self, path: str) -> Iterator[OpenStore]:
        with ExitStack() as opened:

            def open_one() -> SqliteStore:
                store = SqliteStore(path, LEDGER)
                opened.callback(store.close)
                return store

            yield open_one

    @pytest.fixture
    def accept_loss(self, path: str) -> Iterator[AcceptLoss]:
        address = parse_address(f"sqlite:///{path}")
        with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
            yield lambda sequence, up_to, lineage=None: admin.accept_loss(sequence, up_to, NOW, lineage=lineage)


class FailingStore:
    """A memory store that fails where a test says: `fail(point)` is called before and after each step."""

    def __init__(self, database: MemoryDatabase, fail: Callable[[str], None]) -> None:
        self.inner = MemoryStore(database)
        self.fail = fail

    def check(self, models: Sequence[Any], *, must_sync: bool = True) -> Sequence[str]:
        return self.inner.check(models, must_sync=must_sync)

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:
        self.fail("take over")
        return self.inner.take_over(holder, now, above, lineage)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        self.fail("renew")
        renewed = self.inner.renew(holder, now, epoch)
        self.fail("after renew")
        return renewed

    def current(self) -> Lease | None:
        return self.inner.current()

    def look(self) -> Lease | None:
        self.fail("look")
        return self.inner.look()

    def command_at(self, sequence: int) -> str | None:
        return self.inner.command_at(sequence)

    def begin(self) -> Transaction:
        self.fail("begin")
        return _FailingTransaction(self.inner.begin(), self.fail)

    def close(self) -> None:
        self.inner.close()


class _FailingTransaction:
    def __init__(self, inner: Transaction, fail: Callable[[str], None]) -> None:
        self.inner = inner
        self.fail = fail

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        self.fail("load")
        return self.inner.load(reads)

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        return self.inner.scan(model, limit, after, where)

    def last(self, model: type[R], limit: int) -> list[R]:
        self.fail("last")
        return self.inner.last(model, limit)

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        self.fail("last")
        return self.inner.last_numbers(model, limit)

    def backlog(self) -> list[Backlog]:
        return self.inner.backlog()

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        self.fail("before commit")
        self.inner.commit(lease, sequence, changes)
        self.fail("after commit")

    def rollback(self) -> None:
        self.inner.rollback()


class Faults:
    """Raises an error the first `times` times that a point is reached."""

    def __init__(self) -> None:
        self.point = ""
        self.error: Exception = StoreUnavailable("away")
        self.times = 0

    def arm(self, point: str, error: Exception, times: int = 1) -> None:
        self.point, self.error, self.times = point, error, times

    def __call__(self, point: str) -> None:
        if point == self.point and self.times > 0:
            self.times -= 1
            raise self.error


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def lane(database: MemoryDatabase, faults: Faults) -> LaneUnderTest:
    lane = LaneUnderTest(FailingStore(database, faults))
    lane.do(OpenAccount(owner="a"))
    return lane


@pytest.mark.parametrize("times", [1, 3])
def test_a_renewal_whose_answer_is_lost_is_no_takeover(lane: LaneUnderTest, faults: Faults, times: int) -> None:
    batch = [delivery(1, Deposit(id=1, amount=5))]
    faults.arm("after commit", StoreUnavailable("away"))
    assert isinstance(lane.lane.apply(batch), Suspension)
    faults.arm("after renew", StoreUnavailable("still away"), times)
    for _ in range(times):
        assert isinstance(lane.lane.apply(batch), Suspension)
    assert codes(lane.settle(*batch).outcomes) == ["applied"]
    assert lane.balance(1) == 5
    assert lane.lane.takeovers == 1


def test_a_renewal_that_lands_late_is_no_takeover(
    lane: LaneUnderTest, faults: Faults, database: MemoryDatabase
) -> None:
    """The one before it was given up, and takes effect just before the next is asked for."""
    batch = [delivery(1, Deposit(id=1, amount=5))]
    faults.arm("after commit", StoreUnavailable("away"))
    assert isinstance(lane.lane.apply(batch), Suspension)
    faults.arm("renew", StoreUnavailable("given up"))
    assert isinstance(lane.lane.apply(batch), Suspension)

    current = lane.lane._tenancy._store.current
    seen: list[int] = []

    def then_it_lands() -> Lease | None:
        found = current()
        if not seen:
            seen.append(1)
            MemoryStore(database).renew("test", NOW, database.epoch)
        return found

    lane.lane._tenancy._store.current = then_it_lands  # type: ignore[method-assign]
    assert isinstance(lane.lane.apply(batch), Suspension)
    assert codes(lane.settle(*batch).outcomes) == ["applied"]
    assert lane.balance(1) == 5


@pytest.mark.parametrize("point", ["begin", "load", "before commit", "after commit"])
def test_a_batch_suspended_by_an_outage_is_applied_once_when_it_is_over(
    lane: LaneUnderTest, faults: Faults, point: str
) -> None:
    batch = [delivery(1, Deposit(id=1, amount=5)), delivery(2, Deposit(id=1, amount=6))]
    faults.arm(point, StoreUnavailable("away"))
    assert isinstance(lane.lane.apply(batch), Suspension)
    faults.arm("renew", StoreUnavailable("still away"), times=2)
    assert isinstance(lane.lane.apply(batch), Suspension)
    assert isinstance(lane.lane.apply(batch), Suspension)
    settlement = lane.settle(*batch)
    assert [outcome.sequence for outcome in settlement.outcomes] == [2, 3]
    assert [outcome.replayed for outcome in settlement.outcomes] == [point == "after commit"] * 2
    assert lane.rows(Account)[0].balance == 11


def test_the_lease_is_renewed_before_the_log_is_read_again(
    lane: LaneUnderTest, faults: Faults, database: MemoryDatabase
) -> None:
    """Else a COMMIT whose answer was lost could land after the log was found empty."""
    faults.arm("after commit", StoreUnavailable("away"))
    lane.lane.apply([delivery(1, Deposit(id=1, amount=5))])
    epoch = database.epoch
    lane.settle(delivery(1, Deposit(id=1, amount=5)))
    assert database.epoch == epoch + 1


def test_a_conflict_runs_the_same_batch_again_under_the_same_epoch(
    lane: LaneUnderTest, faults: Faults, database: MemoryDatabase
) -> None:
    faults.arm("before commit", Conflict("deadlock"))
    epoch = database.epoch
    batch = [delivery(1, Deposit(id=1, amount=5))]
    assert isinstance(lane.lane.apply(batch), Suspension)
    assert [outcome.sequence for outcome in lane.outcomes(*batch)] == [2]
    assert database.epoch == epoch


def test_a_conflict_on_the_way_above_a_loss_gives_no_sequence_out_again(
    database: MemoryDatabase, faults: Faults
) -> None:
    LaneUnderTest(MemoryStore(database)).do(OpenAccount(owner="a"))
    lane = LaneUnderTest(FailingStore(database, faults), "next")
    lane.lane.learn(Mark(sequence=12, epoch=40, series={"accounts": 7}))
    database.loss_accepted = 12
    faults.arm("before commit", Conflict("deadlock"))
    batch = [delivery(1, OpenAccount(owner="b"))]
    assert isinstance(lane.lane.apply(batch), Suspension)
    assert [outcome.sequence for outcome in lane.outcomes(*batch)] == [13]
    assert [row.id for row in lane.rows(Account)] == [1, 8]


def test_an_epoch_that_a_lagging_copy_gives_out_again_is_not_ours(
    lane: LaneUnderTest, faults: Faults, database: MemoryDatabase
) -> None:
    """No command is lost with it, so that the sequence does not show it."""
    lane.lane._tenancy.block()
    faults.arm("begin", StoreUnavailable("away"))
    batch = [delivery(1, Deposit(id=1, amount=5))]
    assert isinstance(lane.lane.apply(batch), Suspension)
    database.holder = "another"
    assert isinstance(lane.lane.apply(batch), Deposed)
    assert not lane.lane.is_current()


def test_a_lane_reads_all_again_whose_connection_was_lost_while_it_proved_its_lease(
    lane: LaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection may be to a copy that lacks what takes no sequence, such as positions of sessions."""
    assert lane.lane.is_current()

    def away() -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(lane.store, "current", away)
        with pytest.raises(StoreUnavailable):
            lane.lane.is_current()
    assert lane.lane.lease is None
    lane.do(Deposit(id=1, amount=5))
    assert lane.lane.is_current()


def test_a_suspension_waits_longer_each_time_and_starts_anew_after_success(lane: LaneUnderTest, faults: Faults) -> None:
    batch = [delivery(1, Deposit(id=1, amount=5))]
    faults.arm("begin", StoreUnavailable("away"), times=1)
    first = lane.lane.apply(batch)
    faults.arm("renew", StoreUnavailable("away"), times=20)
    delays = [first.delay_s] + [lane.lane.apply(batch).delay_s for _ in range(20)]  # type: ignore[union-attr]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == 5.0
    lane.settle(*batch)
    faults.arm("begin", StoreUnavailable("away"))
    again = lane.lane.apply([delivery(2, Deposit(id=1, amount=5))])
    assert isinstance(again, Suspension)
    assert again.delay_s == 0.2


def test_a_takeover_does_not_wait_for_an_outage_of_long_ago(lane: LaneUnderTest, faults: Faults) -> None:
    """A standby's connection may be dead since; a first failure is a first failure."""
    batch = [delivery(1, Deposit(id=1, amount=5))]
    faults.arm("begin", StoreUnavailable("away"))
    lane.lane.apply(batch)
    faults.arm("renew", StoreUnavailable("away"), times=10)
    for _ in range(10):
        assert isinstance(lane.lane.apply(batch), Suspension)
    faults.arm("take over", StoreUnavailable("the connection was lost"), times=3)
    delays = [lane.lane.apply(batch, channel_number=1).delay_s for _ in range(3)]  # type: ignore[union-attr]
    assert delays == [0.2, 0.4, 0.8]
    assert isinstance(lane.lane.apply(batch, channel_number=1), Settlement)


def test_a_consumer_that_was_taken_over_during_an_outage_is_deposed(
    lane: LaneUnderTest, faults: Faults, database: MemoryDatabase
) -> None:
    faults.arm("before commit", StoreUnavailable("away"))
    batch = [delivery(1, Deposit(id=1, amount=5))]
    assert isinstance(lane.lane.apply(batch), Suspension)
    LaneUnderTest(MemoryStore(database), "successor").settle(*batch)
    assert isinstance(lane.lane.apply(batch), Deposed)
    assert lane.rows(Account)[0].balance == 5


def test_an_outage_in_the_middle_of_a_bisection_applies_nothing_twice(tmp_path: Path, faults: Faults) -> None:
    from tests.support.ledger import Tamper

    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)
    store = FailingStore(MemoryDatabase(), faults)
    store.inner = SqliteStore(path, LEDGER)  # type: ignore[assignment]
    lane = LaneUnderTest(store)
    lane.do(OpenAccount(owner="a"))
    batch = [delivery(n, Deposit(id=1, amount=1)) for n in range(1, 8)]
    batch.insert(5, delivery(99, Tamper(id=1, how="constraint")))
    commits = 0

    def fail(point: str) -> None:
        nonlocal commits
        if point == "after commit":
            commits += 1
            if commits == 2:
                raise StoreUnavailable("away")

    store.fail = fail
    first = lane.lane.apply(batch)
    assert isinstance(first, Settlement)
    assert isinstance(lane.lane.apply(batch), Suspension)
    settlement = merged([first, lane.settle(*batch)])
    assert lane.rows(Account)[0].balance == 7
    assert sorted(entry.sequence for entry in lane.log()) == list(range(1, 10))
    assert sorted(settlement.tags) == sorted(sent.tag for sent in batch)
    assert [outcome.status for outcome in settlement.outcomes].count("failed") == 1
    store.inner.close()


def test_replayed_batches_need_no_commit(lane: LaneUnderTest, faults: Faults) -> None:
    lane.settle(delivery(1, Deposit(id=1, amount=5)))
    faults.arm("before commit", StoreUnavailable("away"), times=100)
    again = delivery(1, Deposit(id=1, amount=5), redelivered=True)
    assert isinstance(lane.lane.apply([again]), Settlement)


def test_rows_are_announced_again_when_the_answer_to_their_commit_was_lost(lane: LaneUnderTest, faults: Faults) -> None:
    """Else a cache would keep the version before, though the outcome of the later one is told."""
    batch = [delivery(1, Deposit(id=1, amount=5))]
    faults.arm("after commit", StoreUnavailable("away"))
    assert isinstance(lane.lane.apply(batch), Suspension)
    assert [row.version for row in lane.settle(*batch).saved if isinstance(row, Account)] == [2]


def test_rows_are_announced_again_when_their_command_is_delivered_again(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    lane.settle(delivery(1, Deposit(id=1, amount=5)))
    successor = LaneUnderTest(MemoryStore(database), "successor")
    settlement = successor.settle(delivery(1, Deposit(id=1, amount=5), redelivered=True))
    assert [row.version for row in settlement.saved if isinstance(row, Account)] == [2]


def test_a_removed_row_is_announced_again_when_its_command_is_delivered_again(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    """Who removed it may have died before it told anybody."""
    batch = [delivery(1, Close(id=1))]
    assert lane.settle(*batch).removed == [Account.at(1)]
    successor = LaneUnderTest(MemoryStore(database), "successor")
    assert successor.settle(*batch).removed == [Account.at(1)]


def test_a_publisher_s_position_is_read_again_when_the_answer_to_a_commit_was_lost(
    lane: LaneUnderTest, faults: Faults
) -> None:
    batch = [delivery(1, Deposit(id=1, amount=5), publisher="p", publisher_seq=1)]
    faults.arm("after commit", StoreUnavailable("away"))
    assert isinstance(lane.lane.apply(batch), Suspension)
    more = [*batch, delivery(2, Deposit(id=1, amount=6), publisher="p", publisher_seq=2)]
    assert lane.settle(*more).tags == [batch[0].tag]
    assert [outcome.sequence for outcome in lane.settle(more[1]).outcomes] == [3]


def test_commands_that_add_rows_share_one_read(database: MemoryDatabase, faults: Faults) -> None:
    store = FailingStore(database, faults)
    lane = LaneUnderTest(store)
    lane.do(OpenAccount(owner="a"))
    points: list[str] = []
    store.fail = points.append
    lane.do(*(OpenAccount(owner=f"owner {number}") for number in range(100)))
    assert points.count("load") == 1


def test_the_log_is_asked_only_while_repetitions_come(database: MemoryDatabase) -> None:
    store = FailingStore(database, lambda _: None)
    lane = LaneUnderTest(store)
    points: list[str] = []
    store.fail = points.append

    def steps(*deliveries: Delivery) -> tuple[int, int]:
        """How often rows were read, and how often a commit was tried."""
        points.clear()
        lane.settle(*deliveries)
        return points.count("load"), points.count("before commit")

    # Of no type that a release can have announced: nothing but the log is read for them.
    messages = [delivery(number, b"[]", command_type="unknown") for number in range(5)]
    assert steps(messages[0]) == (4, 1), (
        "at a takeover anything may be in the log; two counters, and what is audited, are read once"
    )
    assert steps(messages[1]) == (0, 1)
    assert steps(messages[1]) == (1, 1), "refused, and then asked for"
    assert steps(messages[2]) == (1, 1), "more may come"
    assert steps(messages[3]) == (0, 1)
    again = msgspec.structs.replace(messages[3], redelivered=True)
    assert steps(again) == (1, 0), "the broker says that it may be known"


def test_a_row_that_was_added_and_undone_is_read_as_it_is(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    [account] = lane.rows(Account)
    work = BatchWork(MemoryStore(database).begin(), lane.now)
    work.begin_command("first", "ledger.open")
    work.add(account)
    work.undo()
    assert work.get(Account, account.id) == account


def test_a_row_that_the_database_has_already_fails_its_command(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    """The counter was lost, say by a restored backup: the number is taken."""
    del database.tables[Series]["accounts"]
    successor = LaneUnderTest(MemoryStore(database), "successor")
    assert codes(successor.do(OpenAccount(owner="b"), OpenAccount(owner="c"))) == ["database_refused"] * 2
    assert codes(successor.do(Deposit(id=1, amount=5))) == ["applied"]
