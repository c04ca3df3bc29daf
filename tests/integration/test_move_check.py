"""`coordinator move --check` says why rows differ of a lane that goes on."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.client import BlockingWrites
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.writing import InProcessWrites, open_store
from shared.users.commands import CreateUser
from shared.users.model import User


def test_rows_that_have_changed_since_the_copy_are_said_to_come_with_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.operate.move.GATEWAYS_LOOK_S", 0.0)
    service = registry().service("users")
    here, there = (f"sqlite:///{tmp_path / name}.db" for name in ("here", "there"))
    for url in (here, there):
        migrate(service, DatabaseSettings(database_url=url))

    def create(name: str) -> None:
        with BlockingWrites(lambda: InProcessWrites({"users": open_store(here, service)}, [service])) as writes:
            writes.execute(CreateUser(name=name, email=f"{name}@example.org"), User)

    def moved(*arguments: str) -> tuple[int, str]:
        settings = {"USERS_DATABASE_URL": here, "USERS_MIGRATION_URL": None, "AMQP_URL": None}
        ran = CliRunner().invoke(cli, ["move", "users", "--to", there, *arguments], env=settings)
        return ran.exit_code, ran.stderr

    create("ada")
    assert moved("--prepare")[0] == 0
    assert moved("--check") == (0, "")
    create("bob")
    assert moved("--check") == (1, "Rows that the lane has changed since the copy differ: the switch brings them.\n")
    assert moved()[0] == 0
    # What was copied stays as it was then.
    assert "the switch brings" not in moved("--check")[1]
