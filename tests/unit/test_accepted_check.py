"""A coordinator passes over no command that an application has accepted while it had the lane in its own process."""

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.client import WriteOptions
from coordinator.migrations.migrate import migrate
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_admin
from coordinator.transports.inprocess.journal import FileJournal, encode_message, journal_beside
from coordinator.worker.process import CoordinatorProcess
from coordinator.writing import InProcessWrites, open_store
from shared.users.commands import CreateUser
from shared.users.service import UserService

ID = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
ADA = CommandMessage(command_id=ID, type="users.create", arguments=b'{"name":"Ada","email":"ada@example.org"}')


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "users.db"
    url = f"sqlite:///{path}"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    monkeypatch.setenv("USERS_DATABASE_URL", url)
    monkeypatch.setenv("AMQP_URL", "amqp://guest:guest@127.0.0.1:9/%2F")
    with closing(FileJournal(journal_beside(path))) as journal:
        journal.write([(1, encode_message(ADA))], [])
    return path


async def begin() -> bool:
    process = CoordinatorProcess(registry().service("users"), is_watched=False)
    with closing(process._store):
        return await process._wait_for_database(asyncio.Event())


async def run_in_the_application(file: Path) -> None:
    service = registry().service("users")
    async with InProcessWrites({"users": open_store(f"sqlite:///{file}", service)}, [service]) as writes:
        users = UserService(None, writes)  # type: ignore[arg-type]  # it reads nothing
        await users.create_user(CreateUser(name="Bob", email="bob@example.org"), WriteOptions())


async def test_a_coordinator_waits_for_what_an_application_has_accepted(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"1 accepted .*users\.db-queue .* start it once more"):
        await begin()
    await run_in_the_application(file)
    assert await begin()


async def test_what_the_log_has_waits_for_nobody(file: Path) -> None:
    await run_in_the_application(file)
    with closing(FileJournal(journal_beside(file))) as journal:
        # As a process leaves it that is killed before it has removed it.
        journal.write([(1, encode_message(ADA))], [])
    assert await begin()


async def test_nor_does_it_once_the_log_has_it_no_more(file: Path) -> None:
    """It would be applied a second time by whoever does as he is told."""
    await run_in_the_application(file)
    with closing(FileJournal(journal_beside(file))) as journal:
        journal.write([(1, encode_message(ADA))], [])
    assert await begin()
    with closing(open_admin(f"sqlite:///{file}", "users")) as admin:
        assert sum(admin.prune(datetime.now(UTC) + timedelta(hours=1), 100)) > 0
    assert await begin()


async def test_a_coordinator_does_not_run_beside_the_application(file: Path) -> None:
    with (
        closing(FileJournal(journal_beside(file))),
        pytest.raises(ConfigurationError, match="another process has it: one runs a lane"),
    ):
        await begin()


async def test_a_process_that_died_before_it_had_made_the_file_has_accepted_nothing(file: Path) -> None:
    journal_beside(file).unlink()
    journal_beside(file).touch()
    assert await begin()


async def test_a_file_that_it_cannot_read_is_named_with_what_to_do(file: Path) -> None:
    journal_beside(file).unlink()
    journal_beside(file).mkdir()
    with pytest.raises(ConfigurationError, match=r"users\.db-queue: .*: who runs the lane has to read and write it"):
        await begin()


def test_a_move_waits_for_it_too(file: Path) -> None:
    other = f"sqlite:///{file.with_name('other.db')}"
    ran = CliRunner().invoke(cli, ["move", "users", "--to", other, "--prepare"])
    assert ran.exit_code == 1, ran.output
    assert "1 accepted commands wait in" in ran.output
