"""`coordinator move --check` says why rows differ of a lane that goes on."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.client import BlockingWrites
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.writing import InProcessWrites, open_store
from shared.users.commands import CreateUser
from shared.users.model import User
from tests.support.databases import sql_engine


class _Move:
    """Of the users in one file to another one, by what an operator types."""

    def __init__(self, folder: Path) -> None:
        self._service = registry().service("users")
        self.here, self.there = (f"sqlite:///{folder / name}.db" for name in ("here", "there"))
        for url in (self.here, self.there):
            migrate(self._service, DatabaseSettings(database_url=url))

    def create(self, name: str) -> None:
        stores = {"users": open_store(self.here, self._service)}
        with BlockingWrites(lambda: InProcessWrites(stores, [self._service])) as writes:
            writes.execute(CreateUser(name=name, email=f"{name}@example.org"), User)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        settings = {"USERS_DATABASE_URL": self.here, "USERS_MIGRATION_URL": None, "AMQP_URL": None}
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
    assert (status, "refuses rows of users (1 row): " in said) == (1, True), said
    stopped = "it has stopped: rows of users (1 row) are refused there"
    assert moved("--check") == (1, f"Of the move the lane's database says: {stopped}.\n")
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER refuses"))
    engine.dispose()
    assert moved()[0] == 0


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
