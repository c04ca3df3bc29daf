"""A lane moves from one SQLite file to another: the contract of moves, without servers."""

import itertools
import shutil
from collections.abc import Callable, Container, Iterable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy import text

from coordinator.lane.delivery import Suspension
from coordinator.migrations.migrate import migrate
from coordinator.operate.move_copy import TableComparison
from coordinator.operate.move_left import Keys
from coordinator.operate.move_steps import MoveRefused, MoveSide, cancel_at
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.admin import ChangeUnknown, LeaseState
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.moves import LaneMove
from coordinator.stores.port import Fenced, StoreUnavailable
from tests.support.databases import sql_engine
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.move_contract import MoveContract, MovingLane, move_however_often_it_dies
from tests.support.store_contract import NOW


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Makes an empty, migrated file, by copying one."""
    template = tmp_path_factory.mktemp("template") / "ledger.db"
    migrate(LEDGER, DatabaseSettings(database_url=f"sqlite:///{template}"))

    def make(path: Path) -> str:
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    return make


def _change(moving: MovingLane, where: str, statement: str) -> None:
    """As somebody who writes past the lane, or puts a copy there."""
    engine = sql_engine(moving.urls[where])
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


class TestMoveOfFiles(MoveContract):
    @pytest.fixture
    def source_url(self, tmp_path: Path, new_database: Callable[[Path], str]) -> str:
        return new_database(tmp_path / "here.db")

    @pytest.fixture
    def target_url(self, tmp_path: Path, new_database: Callable[[Path], str]) -> str:
        return new_database(tmp_path / "there.db")

    @pytest.mark.parametrize("moving", range(1, 9), indirect=True)
    def test_it_may_die_anywhere_in_many_histories(self, moving: MovingLane, reference: LaneUnderTest) -> None:
        move_however_often_it_dies(moving, reference)

    def test_rows_that_the_target_never_keeps_as_they_are_stop_the_move(self, moving: MovingLane) -> None:
        moving.work(40)
        engine = sql_engine(moving.urls["there"])
        with engine.begin() as connection:
            for event in ("INSERT", "UPDATE"):
                connection.execute(
                    text(
                        f"CREATE TRIGGER cuts_{event} AFTER {event} ON accounts "
                        "BEGIN UPDATE accounts SET note = 'cut' WHERE id = NEW.id; END"
                    )
                )
        engine.dispose()
        with pytest.raises(MoveRefused, match=r"does not keep rows of accounts \(\d+ rows: note\)"):
            moving.mover().prepare()
        move = moving.mover().move_of_source()
        assert move is not None
        assert str(move.phase).startswith("it has stopped: the database of --to does not keep rows of accounts (")
        assert moving.work(2)

    @pytest.mark.parametrize("error", [StoreUnavailable("away"), KeyboardInterrupt()])
    def test_the_lane_tells_that_nobody_moves_it_any_more(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        moving.work(5)
        mover = moving.mover()
        monkeypatch.setattr(mover, "compare", Mock(side_effect=error))
        with pytest.raises(type(error)):
            mover.prepare()
        move = moving.mover().move_of_source()
        assert move is not None
        assert move.phase == "it has stopped: whoever moved it has ended before it was done"
        moving.move()

    def test_who_goes_on_with_a_move_is_not_said_to_have_stopped(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moving.work(5)
        early = moving.mover()

        def outrun() -> list[TableComparison]:
            assert moving.mover().cancel()
            moving.mover().prepare()
            return []

        monkeypatch.setattr(early, "compare", Mock(side_effect=outrun))
        with pytest.raises(MoveRefused, match="somebody else goes on with it"):
            early.prepare()
        move = moving.mover().move_of_source()
        assert move is not None
        assert move.phase == "all is copied and compared: the switch may begin"

    def test_who_is_fenced_by_another_one_that_goes_on_with_the_move_stops_nothing(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two operators at once: the first one's switch would fail if the lease said something else meanwhile."""
        early, late = moving.mover(), moving.mover()
        prepared: list[LaneMove] = []
        compare = early.compare

        def outrun() -> list[TableComparison]:
            assert moving.work(5)
            prepared.append(late.prepare())
            assert moving.work(5)
            return compare()

        moving.work(5)
        monkeypatch.setattr(early, "compare", Mock(side_effect=outrun))
        with pytest.raises(Fenced):
            early.prepare()
        late.switch(prepared[0])

    def test_a_row_that_each_transaction_changes_is_no_difference(
        self, moving: MovingLane, reference: LaneUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lane is quicker than whoever compares: the counter of accounts is another one in each look."""
        mover = moving.mover()
        catch_up, owners = mover._catch_up, itertools.count()
        monkeypatch.setattr(moving, "command", lambda: OpenAccount(owner=f"owner {next(owners)}"))
        moving.work(5)

        def caught_up_and_outrun() -> None:
            catch_up()
            moving.work(1)

        monkeypatch.setattr(mover, "_catch_up", caught_up_and_outrun)
        move = mover.prepare()
        monkeypatch.setattr(mover, "_catch_up", catch_up)
        mover.switch(move)
        assert moving.settle()
        moving.check(reference)

    @pytest.mark.timeout(20)
    def test_notes_that_come_faster_than_they_are_read_have_an_end(self, moving: MovingLane) -> None:
        moving.work(5)
        mover = moving.mover()
        mover.prepare()
        moving.work(50)
        moving.works = 1.0
        mover._read_notes()
        moving.works = 0.0
        # Some were added meanwhile.
        assert list(mover._copy.notes_after(mover._read_up_to))
        mover.cancel()

    def test_rows_that_cannot_be_removed_there_are_named(self, moving: MovingLane) -> None:
        moving.work(40)
        moving.mover().prepare()
        engine = sql_engine(moving.urls["there"])
        with engine.begin() as connection:
            keeps = "CREATE TRIGGER keeps BEFORE DELETE ON accounts BEGIN SELECT RAISE(ABORT, 'it stays'); END"
            connection.execute(text(keeps))
        with pytest.raises(MoveRefused, match=r"to have rows of accounts removed"):
            moving.mover().cancel()
        with engine.begin() as connection:
            connection.execute(text("DROP TRIGGER keeps"))
        engine.dispose()
        # The move is called off already.
        assert not moving.mover().cancel()
        assert moving.rows(Account, "there") == []

    def test_who_halted_the_lane_and_wakes_late_ends_no_later_halt(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moving.work(5)
        early = moving.mover()
        move = early.prepare()
        bring_last = early._bring_last

        def asleep(halted: LaneMove) -> LeaseState:
            lease = bring_last(halted)
            # Another one goes on with the move meanwhile, lets the lane work, and halts it in turn.
            later = moving.mover()
            again = later.prepare()
            assert moving.work(5)
            holding.enter_context(later._held())
            late.append(again)
            return lease

        late: list[LaneMove] = []
        monkeypatch.setattr(early, "_bring_last", asleep)
        with ExitStack() as holding, pytest.raises(MoveRefused, match="somebody else goes on with it"):
            early.switch(move)
        assert late == [move]

    @pytest.mark.parametrize("cancels", [False, True])
    def test_who_stood_still_while_others_moved_the_lane_spoils_nothing_there(
        self, moving: MovingLane, reference: LaneUnderTest, monkeypatch: pytest.MonkeyPatch, cancels: bool
    ) -> None:
        """An operator's terminal was suspended, say: what he began or calls off is over when he goes on."""
        moving.work(5)
        if cancels:
            moving.mover().prepare()
        early = moving.mover()
        take_target = early._take_target

        def asleep() -> None:
            moving.mover().cancel()
            moving.move()
            assert moving.work(5)
            take_target()

        monkeypatch.setattr(early, "_take_target", asleep)
        with pytest.raises(MoveRefused, match="or ended this one"):
            early.cancel() if cancels else early.prepare()
        assert moving.work(5)
        moving.check(reference)

    def test_who_stood_still_goes_on_with_no_move_of_others(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the lane changed between the two moves is not in his copy, and nobody noted it."""
        early = moving.mover()
        moving.work(5)
        persisting = early._persisting

        def asleep(compared: Iterable[TableComparison]) -> Keys:
            different = persisting(compared)
            here = MoveSide("the database here", moving.stores["here"], moving.admins["here"])
            assert cancel_at(here, NOW, None)
            assert moving.work(5)
            assert moving.mover()._begun(None)
            return different

        monkeypatch.setattr(early, "_persisting", asleep)
        with pytest.raises(MoveRefused, match="was cancelled, or somebody else goes on"):
            early.switch(early.prepare())
        assert moving.work(1)
        assert moving.place == "here"

    @pytest.mark.parametrize("error", [DatabaseUnavailable("away"), StoreUnavailable("away")])
    def test_an_error_behind_the_switch_does_not_say_that_nothing_has_moved(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        moving.work(5)
        mover = moving.mover()
        monkeypatch.setattr(mover, "open_target", Mock(side_effect=error))
        with pytest.raises(ChangeUnknown, match=r"has moved to .*until this is run again: away"):
            mover.switch(mover.prepare())
        moving.move()
        assert moving.work(1)
        assert moving.place == "there"

    def test_a_copy_of_before_the_switch_is_not_taken_for_the_lane(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody has put it back there, and runs the move again, as the lane says that waits there."""
        moving.work(5)
        mover = moving.mover()
        monkeypatch.setattr(mover, "open_target", lambda *_: False)
        left_at = mover.switch(mover.prepare()).sequence
        _change(moving, "there", "UPDATE lane_lease SET sequence = 0")
        with pytest.raises(MoveRefused, match=f"at sequence {left_at}, .* up to 0 only"):
            moving.move()
        waiting = moving.admins["there"].state().lease
        assert waiting is not None
        assert waiting.move is not None
        assert waiting.move.step == "receiving"

    def test_nor_is_one_of_before_the_move(self, moving: MovingLane) -> None:
        """It says nothing of a move, as the database in which the lane goes on."""
        moving.work(5)
        left_at = moving.move().sequence
        _change(moving, "there", "UPDATE lane_lease SET sequence = 0, epoch = 0, holder = ''")
        with pytest.raises(MoveRefused, match=f"at sequence {left_at}, .* up to 0 only"):
            moving.move()

    def test_an_older_copy_of_the_lane_s_database_empties_no_newer_one(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moving.work(5)
        mover = moving.mover()
        # It dies before it lets the lane go on there: no other database has the lane then.
        monkeypatch.setattr(mover, "open_target", lambda *_: False)
        reached = mover.switch(mover.prepare()).sequence
        _change(moving, "here", "UPDATE lane_lease SET move = NULL, paused = NULL, sequence = sequence - 1")
        with pytest.raises(MoveRefused, match=f"up to sequence {reached}"):
            moving.mover().cancel()
        with pytest.raises(MoveRefused, match=f"up to sequence {reached}"):
            moving.mover().prepare()
        assert len(moving.rows(LogEntry, "there")) == reached

    def test_a_database_that_a_move_has_left_stays_closed(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moving.work(5)
        mover = moving.mover()
        move = mover.prepare()
        with monkeypatch.context() as patch:
            patch.setattr(mover._copy, "differing", lambda _: {Account: {1}})
            with pytest.raises(MoveRefused, match="does not keep rows"):
                mover.switch(move)
        moving.mover().cancel()
        early = LaneUnderTest(moving.stores["there"], "too early")
        assert isinstance(early.lane.apply([delivery(900, OpenAccount(owner="early"))], 0), Suspension)
        assert moving.rows(LogEntry, "there") == []

    def test_of_two_that_begin_at_once_none_switches_to_a_database_that_stays_closed(self, moving: MovingLane) -> None:
        moving.work(5)
        mover = moving.mover()
        move = mover.prepare()
        there = moving.admins["there"].state().lease
        assert there is not None
        other = LaneMove(id="another", step="receiving", other="the database here")
        assert moving.admins["there"].set_move(there.move, other, NOW)
        with pytest.raises(MoveRefused, match="somebody else has begun a move"):
            mover.switch(move)
        assert moving.work(2)

    def test_a_foreign_key_to_a_table_that_no_move_copies_is_refused_before_anything_is_copied(
        self, moving: MovingLane
    ) -> None:
        moving.work(40)
        _refer_to_owners(moving.urls["there"])
        refused = r"no class in ledger, so that no move copies them \(accounts\.owner refers to owners\)"
        with pytest.raises(MoveRefused, match=refused):
            moving.mover().prepare()
        assert (moving.mover().move_of_source(), moving.rows(LogEntry, "there")) == (None, [])
        # Somebody else copies it.
        _fill_owners(moving)
        moving.move()

    def test_a_lane_that_has_never_run_is_not_moved_and_rows_of_before_are_not_forgotten(
        self, moving: MovingLane
    ) -> None:
        with pytest.raises(MoveRefused, match="the lane has never run, and has nothing to move: just set the other"):
            moving.mover().prepare()
        engine = sql_engine(moving.urls["here"])
        with engine.begin() as connection:
            row = "INSERT INTO accounts (id, owner, balance, created_at, version) VALUES (1, 'ada', 5, :now, 1)"
            connection.execute(text(row), {"now": NOW.isoformat(" ")})
        engine.dispose()
        with pytest.raises(MoveRefused, match="the lane has never run, and table accounts has rows: have it apply a"):
            moving.mover().prepare()

    def test_why_rows_are_refused_is_said_of_each_table(self, moving: MovingLane) -> None:
        """One may be refused only since another is: what that one refers to is not there."""
        moving.work(40)
        engine = sql_engine(moving.urls["there"])
        with engine.begin() as connection:
            for table in ("accounts", "command_log"):
                refuse = f"SELECT RAISE(ABORT, 'no {table}')"
                connection.execute(text(f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN {refuse}; END"))
        engine.dispose()
        said = r"the row \d+ of accounts: .*no accounts.*; the row \S+ of command_log: .*no command_log"
        with pytest.raises(MoveRefused, match=said):
            moving.mover().prepare()

    def test_one_run_names_all_rows_that_cannot_be_read(self, moving: MovingLane) -> None:
        moving.work(40)
        self._write_accounts(moving, range(1001, 1031), unreadable=(1003, 1004, 1017, 1030))
        with pytest.raises(MoveRefused) as caught:
            moving.mover().prepare()
        said = str(caught.value)
        assert "rows of accounts (4 rows) cannot be read here: the row 1003 of accounts cannot be read as its" in said
        assert [f"row {number} of" in said for number in (1004, 1017, 1018, 1030)] == [True, True, False, True]
        move = moving.mover().move_of_source()
        assert move is not None
        assert move.phase == "it has stopped: rows of accounts (4 rows) cannot be read"
        self._write_accounts(moving, range(1001, 1031))
        moving.move()

    def test_of_very_many_rows_that_cannot_be_read_some_are_named(self, moving: MovingLane) -> None:
        moving.work(40)
        self._write_accounts(moving, range(1001, 1101), unreadable=range(1001, 1101))
        with pytest.raises(MoveRefused, match=r"rows of accounts \(20 rows\) cannot be .*; there may be more\. Mend"):
            moving.mover().prepare()

    def test_a_row_whose_key_cannot_be_read_stops_the_move_which_says_so(self, moving: MovingLane) -> None:
        moving.work(40)
        self._write_accounts(moving, ["none", 1001], unreadable=[1001])
        with pytest.raises(
            MoveRefused, match=r"a row of accounts cannot be read as its class: column id .* Mend these"
        ):
            moving.mover().prepare()
        move = moving.mover().move_of_source()
        assert move is not None
        assert move.phase == "it has stopped: rows of accounts (1 row) cannot be read"

    @staticmethod
    def _write_accounts(moving: MovingLane, ids: Iterable[int | str], unreadable: Container[int | str] = ()) -> None:
        """As another application would."""
        rows = [
            {"id": number, "owner": f"o{number}", "at": "never" if number in unreadable else NOW.isoformat(" ")}
            for number in ids
        ]
        engine = sql_engine(moving.urls["here"])
        with engine.begin() as connection:
            into = "INSERT OR REPLACE INTO accounts (id, owner, balance, created_at, version) VALUES"
            connection.execute(text(f"{into} (:id, :owner, 5, :at, 1)"), rows)
        engine.dispose()

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("works", [0.0, 0.02])
    def test_a_move_of_which_rows_are_refused_stops_and_says_so(
        self, moving: MovingLane, monkeypatch: pytest.MonkeyPatch, works: float
    ) -> None:
        """Some of what the rows refer to is there."""
        moving.work(60)
        _refer_to_owners(moving.urls["there"])
        _change(moving, "there", "INSERT INTO owners VALUES ('nobody')")
        mover = moving.mover(works=works)
        held = Mock(side_effect=mover._held)
        monkeypatch.setattr(mover, "_held", held)
        with pytest.raises(MoveRefused, match=r"refuses rows of accounts \(\d+ rows\): .*FOREIGN KEY"):
            mover.prepare()
        # A lane that changes nothing is not held, and told of no changes.
        assert works or not (held.called or any("have changed meanwhile" in line for line in moving.said))
        move = moving.mover().move_of_source()
        assert move is not None
        assert move.phase is not None
        assert "it has stopped: rows of accounts" in move.phase
        mover = moving.mover()
        assert works or {*mover.unnoted(mover.compare())} == {Account}
        # What it says is mended.
        _fill_owners(moving)
        mover = moving.mover()
        mover.prepare()
        moving.work(3)
        assert mover.unnoted(mover.compare()) == {}
        _fill_owners(moving)
        moving.move()
        assert moving.rows(Account, "there")


def _refer_to_owners(url: str) -> None:
    """Have accounts refer to a table of the application's own."""
    engine = sql_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE owners (name VARCHAR(20) PRIMARY KEY)"))
        made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'accounts'")).scalar_one()
        connection.execute(text("DROP TABLE accounts"))
        connection.execute(text(f"{made.rstrip().removesuffix(')')}, FOREIGN KEY (owner) REFERENCES owners (name))"))
    engine.dispose()


def _fill_owners(moving: MovingLane) -> None:
    engine = sql_engine(moving.urls["there"])
    with engine.begin() as connection:
        for each in moving.rows(Account, "here"):
            connection.execute(text("INSERT OR IGNORE INTO owners VALUES (:name)"), {"name": each.owner})
    engine.dispose()
