"""A file of SQLite and a write-ahead log that is not its own: nobody mixes them, and the log stays. Real processes."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.client.database import close_database, open_database, reading_problem
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.stores.kinds import kind_of
from tests.support.ledger import LEDGER

ROOT = Path(__file__).parents[2]
PROCESS = """
import asyncio, sys

from coordinator.client.writes import WriteOptions, execute
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount

told, sys.stdout = sys.stdout, sys.stderr  # where log lines go

async def main(path, owners):
    try:
        async with InProcessWrites({"ledger": open_store(f"sqlite:///{path}", LEDGER)}, [LEDGER]) as writes:
            for owner in owners:
                await execute(writes, OpenAccount(owner=owner), Account, WriteOptions())
            print("done", file=told, flush=True)
            await asyncio.to_thread(sys.stdin.read)
    except ConfigurationError as error:
        print(error, file=told, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


class Lane:
    """Runs a lane on a file, in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *owners: str) -> str:
        """What it says, once it has opened accounts."""
        command = [sys.executable, "-c", PROCESS, str(self.path), *owners]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.communicate(timeout=20)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.stop()

    def run(self, *owners: str) -> None:
        assert self.start(*owners) == "done"
        self.stop()

    def owners(self) -> list[str]:
        """Of all accounts, as a process that starts now finds them."""
        assert self.start() == "done"
        with kind_of(parse_address(self.url)).dialect.engine(parse_address(self.url)).connect() as connection:  # type: ignore[attr-defined]
            found = [owner for (owner,) in connection.exec_driver_sql("SELECT owner FROM accounts ORDER BY id")]
            connection.engine.dispose()
        self.stop()
        return found

    @property
    def log(self) -> bytes:
        return Path(f"{self.path}-wal").read_bytes()


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    """It has kept one command in its file, and there is a copy of that, `old`. A second one came to the file later, and
    a third one is only in the log: its process was killed."""
    folder = tmp_path / "data"
    folder.mkdir()
    lane = Lane(folder / "ledger.sqlite")
    migrate(LEDGER, DatabaseSettings(database_url=lane.url))
    lane.run("a")
    shutil.copy(lane.path, old(lane))
    lane.run("b")
    assert lane.start("c") == "done"
    lane.kill()
    assert lane.log
    yield lane
    lane.stop()


def old(lane: Lane) -> Path:
    return lane.path.parent.parent / "old"


def test_after_kill_9_the_log_is_the_files_own(lane: Lane) -> None:
    assert lane.start("d") == "done"
    lane.kill()
    assert lane.owners() == ["a", "b", "c", "d"]


def test_a_copy_of_the_folder_is_whole_wherever_it_is(lane: Lane) -> None:
    elsewhere = lane.path.parent.parent / "elsewhere"
    shutil.copytree(lane.path.parent, elsewhere)
    assert Lane(elsewhere / lane.path.name).owners() == ["a", "b", "c"]
    # One that others copy with the three files alone, and one that takes the folder's place.
    Path(f"{elsewhere / lane.path.name}-wal-of").unlink(missing_ok=True)
    moved = lane.path.parent.rename(lane.path.parent.parent / "moved")
    assert Lane(moved / lane.path.name).owners() == ["a", "b", "c"]


def test_a_whole_backup_may_be_put_over_what_a_killed_process_has_left(lane: Lane) -> None:
    backup = lane.path.parent.parent / "backup"
    shutil.copytree(lane.path.parent, backup)
    assert lane.start("d") == "done"
    lane.kill()
    for each in backup.iterdir():
        if each.suffix != ".sqlite-wal-of":
            shutil.copy2(each, lane.path.parent)
    assert lane.owners() == ["a", "b", "c"]


def put_over(lane: Lane) -> None:
    shutil.copy(old(lane), lane.path)


def put_in_its_place(lane: Lane) -> None:
    lane.path.rename(lane.path.parent / "right")
    shutil.copy(old(lane), lane.path)


def operators(lane: Lane) -> None:
    with closing(kind_of(parse_address(lane.url)).open_admin(parse_address(lane.url), "ledger")) as admin:
        admin.lease()


def migration(lane: Lane) -> None:
    migrate(LEDGER, DatabaseSettings(database_url=lane.url))


def readers(lane: Lane) -> None:
    async def read() -> None:
        database = open_database(lane.url)
        try:
            await reading_problem(database, "ledger", ["accounts"])
        finally:
            await close_database(database)

    asyncio.run(read())


def process(lane: Lane) -> None:
    said = lane.start()
    lane.stop()
    if said != "done":
        raise ConfigurationError(said)


@pytest.mark.parametrize("replace", [put_over, put_in_its_place])
@pytest.mark.parametrize("who", [operators, migration, readers, process])
def test_nobody_opens_a_file_beside_the_log_of_another(
    lane: Lane, replace: Callable[[Lane], None], who: Callable[[Lane], None]
) -> None:
    log = lane.log
    replace(lane)
    with pytest.raises((ConfigurationError, DatabaseUnavailable), match="is not the file to which its .* log .* belongs"):
        who(lane)
    assert lane.log == log
    assert lane.path.read_bytes() == old(lane).read_bytes()


def test_a_file_that_is_put_back_has_all_that_was_acknowledged(lane: Lane) -> None:
    put_in_its_place(lane)
    with pytest.raises(ConfigurationError):
        operators(lane)
    (lane.path.parent / "right").rename(lane.path)
    assert lane.owners() == ["a", "b", "c"]


def test_a_backup_without_the_log_is_taken_for_what_it_is(lane: Lane) -> None:
    put_over(lane)
    for end in ("-wal", "-shm"):
        os.unlink(f"{lane.path}{end}")
    operators(lane)


def test_a_log_that_is_begun_anew_is_the_files_own(lane: Lane) -> None:
    """As it is whenever a lane has written some 1,000 pages."""
    began = lane.log[16:24]
    assert lane.start(*map(str, range(800))) == "done"
    lane.kill()
    assert lane.log[16:24] != began, "too few commands: the log is the same"
    shutil.copy(lane.path, lane.path.parent.parent / "newer")
    assert len(lane.owners()) == 803
    assert lane.start("x") == "done"
    lane.kill()
    put_over(lane)
    with pytest.raises(ConfigurationError):
        operators(lane)


@pytest.mark.parametrize("replace", [put_over, put_in_its_place])
def test_while_the_lane_runs_a_replaced_file_is_refused(lane: Lane, replace: Callable[[Lane], None]) -> None:
    if replace is put_over:
        pytest.skip("that is no other file")
    assert lane.start() == "done"
    log = lane.log
    replace(lane)
    for who in (operators, migration, readers):
        with pytest.raises((ConfigurationError, DatabaseUnavailable)):
            who(lane)
    assert lane.log == log
