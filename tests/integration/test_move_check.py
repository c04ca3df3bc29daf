"""`coordinator move --check` says why rows differ of a lane that goes on."""

from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, text
from sqlalchemy.dialects.mysql import DATETIME

from coordinator import Row, Service
from coordinator.cli import cli
from coordinator.client import BlockingWrites
from coordinator.migrations.migrate import migrate
from coordinator.operate.move_copy import MoveCopy
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.sqlite.file import HeldFile
from coordinator.writing import InProcessWrites, open_store
from shared.users.commands import CreateUser
from shared.users.model import User
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.store_contract import NOW


class _Move:
    """Of the users in one file to another one, by what an operator types."""

    def __init__(self, folder: Path, there: str | None = None) -> None:
        self._service = registry().service("users")
        self.here, self.there = f"sqlite:///{folder / 'here'}.db", there or f"sqlite:///{folder / 'there'}.db"
        for url in (self.here, self.there):
            migrate(self._service, DatabaseSettings(database_url=url))

    def create(self, name: str) -> None:
        stores = {"users": open_store(self.here, self._service)}
        with BlockingWrites(lambda: InProcessWrites(stores, [self._service])) as writes:
            writes.execute(CreateUser(name=name, email=f"{name}@example.org"), User)

    def __call__(self, *arguments: str, **further: str) -> tuple[int, str]:
        settings = {"USERS_DATABASE_URL": self.here, "USERS_MIGRATION_URL": None, "AMQP_URL": None, **further}
        ran = CliRunner().invoke(cli, ["move", "users", "--to", self.there, *arguments], env=settings)
        return ran.exit_code, ran.stderr


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Move:
    monkeypatch.setattr("coordinator.operate.move.GATEWAYS_LOOK_S", 0.0)
    return _Move(tmp_path)


def test_rows_that_have_changed_since_the_copy_are_said_to_come_with_the_switch(moved: _Move) -> None:
    moved.create("ada")
    assert moved("--prepare")[0] == 0
    assert moved("--check") == (0, "")
    moved.create("bob")
    assert moved("--check") == (1, "Rows that the lane has changed since the copy differ: the switch brings them.\n")
    assert moved()[0] == 0
    # What was copied stays as it was then.
    assert "the switch brings" not in moved("--check")[1]


def test_rows_that_are_refused_there_are_not_said_to_come_with_the_switch(moved: _Move) -> None:
    moved.create("ada")
    engine = sql_engine(moved.there)
    with engine.begin() as connection:
        connection.execute(text("CREATE TRIGGER refuses BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'no'); END"))
    status, said = moved("--prepare")
    assert (status, "refuses rows of users (1 row): the row 1 of users: " in said) == (1, True), said
    stopped = "it has stopped: rows of users (1 row) are refused there"
    assert moved("--check") == (1, f"Of the move the lane's database says: {stopped}.\n")
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER refuses"))
    engine.dispose()
    assert moved()[0] == 0


def test_a_second_move_at_once_is_told_of_the_first(moved: _Move) -> None:
    moved.create("ada")
    with closing(HeldFile(Path(moved.here.removeprefix("sqlite:///")))):
        status, said = moved("--prepare")
    assert (status, "or moves it (`coordinator move`). Stop it first" in said) == (1, True), said


def test_a_move_is_called_off_whatever_the_copy_is_like(moved: _Move) -> None:
    moved.create("ada")
    assert moved("--prepare")[0] == 0
    engine = sql_engine(moved.there)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE users DROP COLUMN name"))
        connection.execute(text("ALTER TABLE users ADD COLUMN name TEXT DEFAULT 'ada'"))
    status, said = moved("--check")
    assert (status, "users.name may be NULL" in said) == (2, True), said
    assert moved("--cancel")[0] == 0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM users")).scalar() == 0
    engine.dispose()


def test_a_database_that_loses_commits_is_moved_to_where_that_is_accepted(
    tmp_path: Path, databases: FreshDatabases
) -> None:
    moved = _Move(tmp_path, databases.new("USERS_DATABASE_URL"))
    moved.create("ada")
    engine = sql_engine(moved.there)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE users SET UNLOGGED"))
    engine.dispose()
    status, said = moved("--prepare")
    assert (status, "UNLOGGED: users" in said, "LANE_ALLOW_UNSYNCED=true" in said) == (2, True, True), said
    status, said = moved("--prepare", LANE_ALLOW_UNSYNCED="true")
    assert status == 0, said


@pytest.mark.parametrize(("digits", "kept"), [(3, False), (6, True)])
def test_times_of_before_the_lane_are_moved_with_all_their_digits_or_not_at_all(
    tmp_path: Path, databases: FreshDatabases, digits: int, *, kept: bool
) -> None:
    """MySQL keeps as many of a second as its column says, and rounds."""
    paid_at = DateTime(timezone=True).with_variant(DATETIME(fsp=digits), "mysql", "mariadb")
    number = Column("id", BigInteger, primary_key=True, autoincrement=False)

    class Stay(Row, table=Table("stays", MetaData(), number, Column("paid_at", paid_at)), key="id"):
        id: int
        paid_at: datetime | None

    stays = Service("stays", models=[Stay])
    here, there = f"sqlite:///{tmp_path / 'here'}.db", databases.new("PAYMENTS_DATABASE_URL")
    for url in (here, there):
        migrate(stays, DatabaseSettings(database_url=url))
    engine = sql_engine(here)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO stays VALUES (1, '2026-01-01 12:00:00.123456'), (2, NULL)"))
    engine.dispose()
    with closing(open_store(here, stays)) as source, closing(open_store(there, stays)) as target:
        copy = MoveCopy(stays, source, target)
        copy.lease = target.take_over("move", NOW, 0)
        copy.copy(Stay, lambda _: None, is_new=True)
        assert copy.compare(Stay).different == (set() if kept else {1})
        assert str(copy.unkept({Stay: {1, 2}})).count("stays (2 rows: paid_at)") == (not kept)
