"""What a move of a lane promises between any two databases, while the lane goes on and whoever moves it dies."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from coordinator.client.database import close_database, open_database
from coordinator.http.database_part import HAS_MOVED, NO_ANSWER, DatabasePart
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.operate.move_copy import MoveCopy
from coordinator.operate.move_steps import MovedLane, MoveRefused, MoveSide
from coordinator.operate.moving import Mover
from coordinator.runtime.addresses import parse_address
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.rows import R, Row
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.api_keys import ApiKeys
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import (
    ApiKey,
    Cancellation,
    DeadLetter,
    IdempotencySecret,
    LogEntry,
    OutboxEntry,
    ParkedCommand,
    Series,
)
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.moves import Moved
from coordinator.stores.open import open_store
from coordinator.stores.operator_acts import made_act
from coordinator.stores.port import Changes, Lease, Store
from coordinator.worker.lane_gauges import MOVE_AGE, show_state
from tests.support.databases import sql_engine
from tests.support.lane_contract import LaneUnderTest, command_id, delivery
from tests.support.ledger import (
    LEDGER,
    Account,
    Close,
    Deposit,
    Forward,
    Fragile,
    OpenAccount,
    Remark,
    Rename,
    Tamper,
)
from tests.support.store_contract import NOW, account, changes, commit

OWNERS = [f"owner {number}" for number in range(30)]
ACT = made_act(NOW, "ada@desk", "move", {"to": "there"})


class Killed(BaseException):
    """Ends whoever moves the lane, at once: nothing of it runs any more."""


class Mortal:
    """Calls the methods of another object, with something that happens before and after each call."""

    def __init__(self, inner: Any, tick: Callable[[], None]) -> None:
        self._inner = inner
        self._tick = tick

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self._tick()
            returned = found(*arguments, **options)
            self._tick()
            return Mortal(returned, self._tick) if name == "begin" else returned

        return call


class MovingLane:
    """A lane in one database, or in the other one once it has moved; and those who move it."""

    def __init__(self, source_url: str, target_url: str, seed: int = 0) -> None:
        self._stack = ExitStack()
        self.urls = {"here": source_url, "there": target_url}
        self.rng = random.Random(seed)
        self.stores = {where: self._open(url) for where, url in self.urls.items()}
        self.admins = {where: self._admin(url) for where, url in self.urls.items()}
        self.place = "here"
        self.lane = LaneUnderTest(self.stores["here"], "coordinator here")
        self.said: list[str] = []
        """What those who move it have told their operator."""
        self.issued: list[Delivery] = []
        self._offered: list[Delivery] = []
        """What the lane was offered and has not settled: it is offered again, before anything else."""
        self._queued: list[Delivery] = []
        self._dies_at: int | None = None
        self._ticks = 0
        self.works = 0.0
        """How likely the lane works before a call of whoever moves it."""

    def close(self) -> None:
        self._stack.close()

    def _open(self, url: str) -> Store:
        store = open_store(url, LEDGER)
        self._stack.callback(store.close)
        return store

    def _admin(self, url: str) -> LaneAdmin:
        address = parse_address(url)
        return self._stack.enter_context(closing(kind_of(address).open_admin(address, "ledger")))

    def keys(self, where: str) -> ApiKeys:
        """The API keys there."""
        address = parse_address(self.urls[where])
        return self._stack.enter_context(closing(kind_of(address).open_api_keys(address, "ledger")))

    def command(self) -> Command:
        """Some command, of which many fail, or keep others waiting."""
        number, rng = self.rng.randint(1, 20), self.rng
        return rng.choice(
            [
                OpenAccount(owner=rng.choice(OWNERS)),
                OpenAccount(owner=rng.choice(OWNERS)),
                Deposit(id=number, amount=rng.randint(-5, 20)),
                Deposit(id=number, amount=rng.randint(-5, 20)),
                Rename(id=number, owner=f"new {rng.randint(1, 10**12)}"),
                Close(id=number),
                Remark(id=number, note=rng.choice(["broken", None])),
                Forward(id=number, amount=1),
                Fragile(id=number, amount=1),
                Tamper(id=number, how="crash"),
            ]
        )

    def work(self, count: int) -> bool:
        """Deliver some commands to the lane, wherever it is; False: it has to wait, and they are offered again."""
        new = [delivery(len(self.issued) + each + 1, self.command()) for each in range(count)]
        self.issued += new
        self._queued += new
        return self.settle()

    def settle(self) -> bool:
        """Offer what was not settled."""
        while self._offered or self._queued or self.lane.lane.has_batch:
            if not self._offered:
                self._offered, self._queued = self._queued, []
            try:
                decision = self.lane.lane.apply(self._offered, self.lane.channel_number)
            except Moved:
                assert self.place == "here"
                self.place = "there"
                self.lane = LaneUnderTest(self.stores["there"], "coordinator there")
                # The broker delivers to the next consumer what is not acknowledged.
                self._offered = [msgspec.structs.replace(each, redelivered=True) for each in self._offered]
                continue
            if isinstance(decision, Suspension):
                if decision.is_blocked:
                    return False
                assert decision.delay_s == 0.0, decision
                continue
            assert isinstance(decision, Settlement), decision
            if not self.lane.lane.has_batch:
                self._offered = []
        return True

    def mover(self, *, dies_at: int | None = None, works: float = 0.0) -> Mover:
        """Somebody who moves it, dies at one of its calls, and between whose calls the lane works."""
        self._dies_at, self._ticks, self.works = dies_at, 0, works
        stores = {where: self._open(url) for where, url in self.urls.items()}
        self._movers_stores = stores
        sides = {
            where: MoveSide(f"the database {where}", Mortal(stores[where], self._tick), Mortal(admin, self._tick))
            for where, admin in self.admins.items()
        }
        return Mover(LEDGER, sides["here"], sides["there"], lambda: NOW, self.said.append)

    def _tick(self) -> None:
        self._ticks += 1
        if self._dies_at is not None and self._ticks >= self._dies_at:
            if self._ticks == self._dies_at:
                for store in self._movers_stores.values():
                    store.close()
            raise Killed
        if self.rng.random() < self.works:
            self.work(self.rng.randint(1, 4))

    def move(self, *, dies_at: int | None = None, works: float = 0.0) -> MovedLane:
        """As `coordinator move` does."""
        mover = self.mover(dies_at=dies_at, works=works)
        found = mover.move_of_source()
        if found is not None and found.step == "moved":
            mover.open_target(found)
            return mover.finished(found)
        return mover.switch(mover.prepare())

    def rows(self, model: type[R], where: str | None = None) -> list[R]:
        """All rows of a table, where the lane is now, or in one of the databases."""
        transaction = self.stores[where or self.place].begin()
        try:
            return transaction.scan(model, 100_000)
        finally:
            transaction.rollback()

    def check(self, reference: LaneUnderTest) -> None:
        """Nothing is lost, doubled or out of order: the same commands on a lane that never moved give the same rows."""
        # With its keys it makes the same ids of what they emit.
        commit(reference.store, Lease(0, 0), changes(inserts=self.rows(FingerprintKey)), 0)
        for each in self.issued:
            reference.settle(each)
        log = sorted(self.rows(LogEntry), key=lambda row: row.sequence)
        assert [row.sequence for row in log] == [*range(1, len(log) + 1)]
        compared: tuple[type[Row], ...] = (Account, Series, OutboxEntry, ParkedCommand)
        for model in compared:
            here, there = _comparable(self.rows(model)), _comparable(reference.rows(model))
            assert here == there, [(row, other) for row, other in zip(here, there, strict=False) if row != other]
        shown = [(row.command_id, row.sequence, row.status, row.error_code, row.result) for row in log]
        assert shown == [
            (row.command_id, row.sequence, row.status, row.error_code, row.result) for row in reference.log()
        ]
        letters = [(row.id, row.source, row.copies) for row in self.rows(DeadLetter)]
        assert letters == [(row.id, row.source, row.copies) for row in reference.rows(DeadLetter)]


class MoveContract:
    """Inherited with fixtures: `source_url` and `target_url` are empty, migrated databases of the ledger."""

    @pytest.fixture
    def reference(self) -> LaneUnderTest:
        return LaneUnderTest(MemoryStore(MemoryDatabase()))

    @pytest.fixture
    def moving(
        self, source_url: str, target_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[MovingLane]:
        monkeypatch.setattr("coordinator.operate.move_pages.PAGE_ROWS", 10)
        monkeypatch.setattr("coordinator.lane.move_notes.ROWS_OF_NOTE", 3)
        # So that the lane is held now and then.
        monkeypatch.setattr("coordinator.operate.moving.LEFT_MAX", 8)
        monkeypatch.setattr("coordinator.operate.moving.HELD_S", 0.0)
        with closing(MovingLane(source_url, target_url, getattr(request, "param", 0))) as lane:
            yield lane

    def test_a_lane_moves_while_it_works(self, moving: MovingLane, reference: LaneUnderTest) -> None:
        moving.work(80)
        before = moving.admins["here"].state().lease
        moved = moving.move(works=0.04)
        assert moving.work(10)
        assert moving.place == "there"
        assert before is not None
        assert moved.epoch > before.epoch
        moving.check(reference)
        # The first epoch there is above all that were here.
        epochs = {row.epoch for row in moving.rows(LogEntry)}
        assert len(epochs) == 2

    def test_no_old_process_writes_again_and_each_is_told_where_the_lane_went(self, moving: MovingLane) -> None:
        moving.work(20)
        moving.move()
        frozen = moving.rows(LogEntry, "here")
        old = moving.lane
        late = [delivery(100, OpenAccount(owner="late"))]
        # Its fence fails, and it reads the lease again.
        assert isinstance(old.lane.apply(late, old.channel_number), Suspension)
        with pytest.raises(Moved, match="has moved to the database there"):
            old.lane.apply(late, old.channel_number)
        with pytest.raises(Moved, match="has moved to the database there"):
            LaneUnderTest(moving.stores["here"], "another").settle(delivery(101, OpenAccount(owner="later")))
        with pytest.raises(Moved):
            moving.admins["here"].cancel(command_id(102), "no", NOW)
        assert moving.rows(LogEntry, "here") == frozen
        # A process of an earlier release knows no moves, and obeys a pause.
        lease = moving.admins["here"].state().lease
        assert lease is not None
        assert lease.paused is not None

    def test_readers_of_a_database_learn_that_the_lane_is_not_there_yet_or_no_more(
        self, moving: MovingLane, source_url: str, target_url: str
    ) -> None:
        moving.work(5)
        mover = moving.mover()
        move = mover.prepare()
        assert _read(source_url) == (None, NO_ANSWER)
        with pytest.raises(DatabaseUnavailable, match="is not finished"):
            _read(target_url)
        mover.switch(move)
        said, reason = _read(source_url)
        assert (said, "has moved to the database there" in reason) == (HAS_MOVED, True)
        assert _read(target_url) == (None, NO_ANSWER)

    def test_a_lane_shows_that_it_is_copied_and_that_a_move_holds_it(self, moving: MovingLane) -> None:
        show_state(LEDGER.name, moving.lane.lane, lambda: None, lambda: 0.0)

        def age_s() -> float:
            return next(sample.value for metric in MOVE_AGE.labels(LEDGER.name).collect() for sample in metric.samples)

        moving.work(5)
        assert age_s() == 0
        moving.mover().prepare()
        assert any("rows copied" in line for line in moving.said)
        moving.said.clear()
        moving.work(1)
        assert age_s() > 0
        move = moving.mover().prepare()
        (line,) = moving.said
        assert line.startswith("an earlier run has begun it")
        moving.admins["here"].set_move(move, msgspec.structs.replace(move, step="halted"), NOW)
        held = moving.lane.lane.apply([delivery(100, OpenAccount(owner="held"))], moving.lane.channel_number)
        while isinstance(held, Suspension) and held.cause == "database":
            # Its fence has failed, and it reads the lease again.
            held = moving.lane.lane.apply([], moving.lane.channel_number)
        assert isinstance(held, Suspension)
        assert held.cause == "move"

    def test_what_operators_and_migrations_change_goes_with_the_lane(self, moving: MovingLane) -> None:
        moving.work(10)
        mover = moving.mover()
        move = mover.prepare()
        moving.admins["here"].cancel(command_id(500), "not this one", NOW, ACT)
        key = ApiKey(
            id="k", digest="d", subject="ada", tenant=None, scopes="", created_at=NOW, created_by="ada", expires_at=None
        )
        moving.keys("here").add(key)
        mover.switch(move)
        late: tuple[type[Row], ...] = (Cancellation, ApiKey, IdempotencySecret)
        for model in late:
            assert moving.rows(model, "there") == moving.rows(model, "here") != []
        assert ACT in moving.rows(type(ACT), "there")

    def test_what_is_removed_past_the_lane_waits_until_the_move_is_over(self, moving: MovingLane) -> None:
        moving.work(40)
        moving.lane.do(OpenAccount(owner="z"), *(Tamper(id=number, how="crash") for number in range(1, 20)))
        moving.mover().prepare()
        admin = moving.admins["here"]
        with pytest.raises(ConfigurationError, match="being copied"):
            list(admin.prune(NOW.replace(year=2100), 5))
        with pytest.raises(ConfigurationError, match="being copied"):
            list(admin.forget_letters(NOW.replace(year=2100), NOW, 5))
        moving.mover().cancel()
        list(admin.prune(NOW.replace(year=2100), 5))
        assert len(moving.rows(LogEntry, "here")) < 60

    def test_times_that_are_finer_than_a_lane_writes_are_kept_or_stop_the_move(self, moving: MovingLane) -> None:
        """A table that was there before its lane may have some, and so may rows of earlier releases."""
        fine = msgspec.structs.replace(account(1), created_at=NOW.replace(microsecond=789_654))
        store = moving.stores["here"]
        commit(store, store.take_over("before", NOW), changes(inserts=[fine]), 0)
        moving.work(3)
        (here,) = [row for row in moving.rows(Account, "here") if row.id == 1]
        scheme = parse_address(moving.urls["there"]).scheme
        if scheme in ("mysql", "mongodb") and here == fine:
            with pytest.raises(MoveRefused, match=r"does not keep rows of accounts \(1 row: created_at\)"):
                moving.move()
            assert moving.work(2)
            if scheme == "mongodb":
                return
            engine = sql_engine(moving.urls["there"])
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE accounts MODIFY created_at DATETIME(6) NOT NULL"))
            engine.dispose()
        moving.move()
        assert here.created_at in [row.created_at for row in moving.rows(Account, "there") if row.id == 1]

    def test_columns_of_which_the_lane_knows_nothing_are_not_lost_silently(
        self, moving: MovingLane, source_url: str
    ) -> None:
        moving.work(3)
        engine = sql_engine(source_url)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE accounts ADD COLUMN branch VARCHAR(20) DEFAULT 'main'"))
        try:
            with pytest.raises(MoveRefused, match=r"accounts\.branch"):
                moving.mover().prepare()
        finally:
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE accounts DROP COLUMN branch"))
            engine.dispose()
        assert moving.admins["here"].state().lease.move is None  # type: ignore[union-attr]

    def test_an_operators_pause_goes_with_the_lane(self, moving: MovingLane) -> None:
        moving.work(5)
        # Its reason is the operator's own, whatever it begins with.
        moving.admins["here"].pause("a move: of the disks", NOW)
        mover = moving.mover()
        mover.prepare()
        mover.cancel()
        moving.move()
        lease = moving.admins["there"].state().lease
        assert lease is not None
        assert lease.paused == "a move: of the disks"

    def test_a_move_that_is_called_off_leaves_the_lane_as_it_was(
        self, moving: MovingLane, reference: LaneUnderTest
    ) -> None:
        moving.work(30)
        moving.mover(works=0.04).prepare()
        assert moving.work(5)
        since = moving.lane.lane.moving_since
        assert since == NOW
        moving.mover(works=0.04).cancel()
        assert moving.work(5)
        assert moving.place == "here"
        assert moving.lane.lane.moving_since is None
        assert moving.rows(Account, "there") == []
        assert moving.rows(LogEntry, "there") == []
        lease = moving.admins["here"].state().lease
        assert lease is not None
        assert (lease.move, lease.paused) == (None, None)
        assert not moving.mover().cancel()
        # And it can be moved again.
        moving.move(works=0.04)
        assert moving.work(5)
        moving.check(reference)

    def test_notes_go_in_parts_once_their_move_is_over_and_those_of_the_next_move_stay(
        self, moving: MovingLane
    ) -> None:
        moving.work(5)
        moving.mover().prepare()
        moving.work(20)
        moving.mover().cancel()
        old = moving.rows(MoveNote, "here")
        removed = moving.admins["here"].forget_move_notes(2)
        assert next(removed) == 2
        assert moving.rows(MoveNote, "here") == old[2:] != []
        moving.mover().prepare()
        assert moving.rows(MoveNote, "here") == []
        moving.work(5)
        assert not list(removed)
        assert not list(moving.admins["here"].forget_move_notes(2))
        assert moving.rows(MoveNote, "here") != []
        moving.mover().cancel()

    def test_a_loss_above_which_the_lane_has_yet_to_go_is_not_left_behind(self, moving: MovingLane) -> None:
        moving.work(5)
        mover, admin = moving.mover(), moving.admins["here"]
        move = mover.prepare()
        ends_at = admin.sequence()
        # What another consumer has left to it.
        lost = msgspec.structs.replace(moving.lane.lane.mark(), sequence=ends_at + 10)
        assert admin.accept_loss(ends_at, ends_at + 10, NOW) == ends_at
        with pytest.raises(MoveRefused, match=f"up to {ends_at + 10} is accepted"):
            mover.switch(move)
        with pytest.raises(MoveRefused, match=f"up to {ends_at + 10} is accepted"):
            moving.mover().prepare()
        moving.lane.lane.learn(lost)
        assert moving.work(1)
        moving.move()
        assert moving.work(1)
        assert max(row.sequence for row in moving.rows(LogEntry)) == ends_at + 12

    def test_the_lane_has_the_same_lineage_there(self, moving: MovingLane) -> None:
        moving.work(5)
        admin = moving.admins["here"]
        ends_at = admin.sequence()
        lost = msgspec.structs.replace(moving.lane.lane.mark(), sequence=ends_at + 5)
        admin.accept_loss(ends_at, ends_at + 5, NOW, lineage="another")
        moving.lane.lane.learn(lost)
        moving.work(1)
        moving.move()
        here, there = admin.state().lease, moving.admins["there"].state().lease
        assert here is not None
        assert there is not None
        assert here.lineage is not None
        assert (there.lineage, there.supersedes) == (here.lineage, here.supersedes)
        assert moving.work(1)

    def test_a_database_that_holds_anything_takes_no_lane(self, moving: MovingLane) -> None:
        moving.work(5)
        other = LaneUnderTest(moving.stores["there"], "its own")
        other.settle(delivery(1, OpenAccount(owner="there first")))
        with pytest.raises(MoveRefused, match="is a lane's already"):
            moving.mover().prepare()
        assert moving.work(5)
        assert moving.admins["here"].state().lease.move is None  # type: ignore[union-attr]

    def test_a_lane_waits_there_until_it_has_come(self, moving: MovingLane) -> None:
        moving.work(5)
        moving.mover().prepare()
        early = LaneUnderTest(moving.stores["there"], "too early")
        decision = early.lane.apply([delivery(7, OpenAccount(owner="early"))], 0)
        assert isinstance(decision, Suspension)
        assert "is not finished" in decision.reason
        moving.mover().cancel()

    def test_transactions_that_nobody_noted_stop_the_move(self, moving: MovingLane) -> None:
        """A process of an earlier release reads no move, and notes nothing."""
        moving.work(5)
        mover = moving.mover()
        move = mover.prepare()
        store = moving.stores["here"]
        store.close()
        lease = store.take_over("of an earlier release", NOW)
        transaction = store.begin()
        entry = msgspec.structs.replace(moving.rows(LogEntry, "there")[0], command_id=command_id(900), sequence=6)
        transaction.commit(lease, 6, _inserting(entry))
        with pytest.raises(MoveRefused, match="1 transactions of the lane were not noted"):
            mover.switch(move)
        lease_now = moving.admins["here"].state().lease
        assert lease_now is not None
        assert lease_now.move is not None
        assert (lease_now.move.step, lease_now.paused) == ("noting", None)
        assert str(lease_now.move.phase).startswith("it has stopped: 1 transactions of the lane were not noted")

    def test_a_row_that_is_kept_otherwise_is_seen(self, moving: MovingLane) -> None:
        moving.work(40)
        mover = moving.mover()
        move = mover.prepare()
        # Somebody else writes there.
        there = MoveCopy(LEDGER, moving.stores["here"], moving.stores["there"])
        compared = {each.table: each for each in mover.compare()}
        assert not any(each.different for each in compared.values())
        assert all(each.here == each.there for each in compared.values())
        forged = moving.rows(Account, "there")[0]
        there.lease = moving.stores["there"].take_over("somebody", NOW)
        there._commit(_updating(msgspec.structs.replace(forged, note="forged")))
        compared = {each.table: each for each in mover.compare()}
        assert [*compared["accounts"].different] == [forged.id]
        assert compared["accounts"].here.digest != compared["accounts"].there.digest
        assert move.step == "noting"

    def test_whoever_moves_it_may_die_at_any_call(self, moving: MovingLane, reference: LaneUnderTest) -> None:
        move_however_often_it_dies(moving, reference)


def move_however_often_it_dies(moving: MovingLane, reference: LaneUnderTest) -> None:
    """Whoever moves it dies again and again, and is followed by another one, who goes on or calls the move off."""
    rng = moving.rng
    moving.work(rng.randint(5, 40))
    for attempts_left in reversed(range(12)):
        try:
            moving.move(dies_at=rng.randint(1, 400) if attempts_left else None, works=0.04)
            break
        except Killed:
            if rng.random() < 0.3:
                with suppress(Killed, MoveRefused):
                    moving.mover(dies_at=rng.randint(1, 100), works=0.04).cancel()
            moving.work(2)
    assert moving.work(3)
    assert moving.place == "there"
    moving.check(reference)
    lease = moving.admins["there"].state().lease
    assert lease is not None
    assert lease.move is None


def _read(url: str) -> tuple[str | None, str]:
    """What a gateway says of its database, and what its log does."""

    async def read() -> tuple[str | None, str]:
        database = open_database(url, 1)
        try:
            part = DatabasePart(database, LEDGER.name, (Account.table, LogEntry.table))
            return await part.problem(), part.reason
        finally:
            await close_database(database)

    return asyncio.run(read())


def _inserting(row: Row) -> Changes:
    return changes(inserts=[row])


def _updating(row: Row) -> Changes:
    return changes(updates=[row])


def _comparable(rows: list[R]) -> list[R]:
    """Without fingerprints: the lane that never moves has no key."""
    return [row.replace(fingerprint="") if isinstance(row, ParkedCommand) else row for row in rows]
