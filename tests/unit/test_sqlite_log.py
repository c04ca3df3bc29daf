"""A file of SQLite and a write-ahead log that is not its own: nobody mixes them, and the log stays. Real processes."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.client.database import close_database, open_database, reading_problem
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.stores.kinds import kind_of
from coordinator.stores.open import open_store
from coordinator.stores.port import StoreUnavailable
from tests.support.forks import Forks
from tests.support.killed_lane import KilledLane
from tests.support.ledger import LEDGER


@pytest.fixture
def lane(forks: Forks, tmp_path: Path) -> Iterator[KilledLane]:
    """It has kept one command in its file, and there is a copy of that, `old`. A second one came to the file later, and
    a third one is only in the log: its process was killed."""
    folder = tmp_path / "data"
    folder.mkdir()
    lane = of_file(forks, folder / "ledger.sqlite")
    migrate(LEDGER, DatabaseSettings(database_url=lane.url))
    lane.run("a")
    shutil.copy(lane.path, old(lane))
    lane.run("b")
    assert lane.start("c") is None
    lane.kill()
    assert lane.log
    yield lane
    lane.stop()


def of_file(forks: Forks, path: Path) -> KilledLane:
    return KilledLane(forks, path, path.parent.parent / "log")


def old(lane: KilledLane) -> Path:
    return lane.path.parent.parent / "old"


def test_after_kill_9_the_log_is_the_files_own(lane: KilledLane) -> None:
    assert lane.start("d") is None
    lane.kill()
    assert lane.owners() == ["a", "b", "c", "d"]


def test_a_copy_of_the_folder_is_whole_wherever_it_is(forks: Forks, lane: KilledLane) -> None:
    elsewhere = lane.path.parent.parent / "elsewhere"
    shutil.copytree(lane.path.parent, elsewhere)
    assert of_file(forks, elsewhere / lane.path.name).owners() == ["a", "b", "c"]
    # One that others copy with the three files alone, and one that takes the folder's place.
    Path(f"{elsewhere / lane.path.name}-wal-of").unlink(missing_ok=True)
    moved = lane.path.parent.rename(lane.path.parent.parent / "moved")
    assert of_file(forks, moved / lane.path.name).owners() == ["a", "b", "c"]


def test_a_whole_backup_may_be_put_over_what_a_killed_process_has_left(lane: KilledLane) -> None:
    backup = lane.path.parent.parent / "backup"
    shutil.copytree(lane.path.parent, backup)
    assert lane.start("d") is None
    lane.kill()
    for each in backup.iterdir():
        if each.suffix != ".sqlite-wal-of":
            shutil.copy2(each, lane.path.parent)
    assert lane.owners() == ["a", "b", "c"]


@pytest.mark.parametrize("copy", [shutil.copy, shutil.copy2])
def test_copies_that_got_each_others_numbers_are_whole(lane: KilledLane, copy: Callable[[Path, Path], object]) -> None:
    """As they do where the folder was removed before its backup came: numbers of files are given again."""
    aside = lane.path.parent.parent / "aside"
    aside.mkdir()
    log, note = Path(f"{lane.path}-wal"), Path(f"{lane.path}-wal-of")
    for each in (log, note):
        copy(each, aside)
    copy(lane.path, aside)
    lane.path.unlink()
    # Another number for the file, and the same ones for the others.
    copy(aside / lane.path.name, lane.path)
    for each in (log, note):
        with each.open("r+b") as kept:
            kept.write((aside / each.name).read_bytes())
        if copy is shutil.copy2:
            shutil.copystat(aside / each.name, each)
    assert lane.owners() == ["a", "b", "c"]


def put_over(lane: KilledLane) -> None:
    shutil.copy(old(lane), lane.path)


def put_in_its_place(lane: KilledLane) -> None:
    """By a copy of the same, which differs in nothing but that it is another file."""
    right = lane.path.rename(lane.path.parent / "right")
    shutil.copy(right, lane.path)


def operators(lane: KilledLane) -> None:
    with closing(kind_of(parse_address(lane.url)).open_admin(parse_address(lane.url), "ledger")) as admin:
        admin.state()


def migration(lane: KilledLane) -> None:
    migrate(LEDGER, DatabaseSettings(database_url=lane.url))


def readers(lane: KilledLane) -> None:
    read(lane.url)


def read(url: str) -> None:
    async def look() -> None:
        database = open_database(url)
        try:
            await reading_problem(database, "ledger", ["accounts"])
        finally:
            await close_database(database)

    asyncio.run(look())


def process(lane: KilledLane) -> None:
    said = lane.start()
    lane.stop()
    if said is not None:
        raise ConfigurationError(said)


@pytest.mark.parametrize("replace", [put_over, put_in_its_place])
def test_nobody_opens_a_file_beside_the_log_of_another(lane: KilledLane, replace: Callable[[KilledLane], None]) -> None:
    log = lane.log
    replace(lane)
    file = lane.path.read_bytes()
    for who in (operators, migration, readers, process):
        with pytest.raises((ConfigurationError, DatabaseUnavailable), match=r"is not the file to which its .* belongs"):
            who(lane)
        assert lane.log == log
        assert lane.path.read_bytes() == file


def test_a_file_that_is_put_back_has_all_that_was_acknowledged(lane: KilledLane) -> None:
    put_in_its_place(lane)
    with pytest.raises(ConfigurationError):
        operators(lane)
    (lane.path.parent / "right").rename(lane.path)
    assert lane.owners() == ["a", "b", "c"]


def test_a_backup_without_the_log_is_taken_for_what_it_is(lane: KilledLane) -> None:
    put_over(lane)
    for end in ("-wal", "-shm"):
        Path(f"{lane.path}{end}").unlink()
    for who in (operators, migration, readers):
        who(lane)


def test_a_log_that_is_begun_anew_is_the_files_own(lane: KilledLane) -> None:
    """As it is whenever a lane has written some 1,000 pages."""
    began = lane.log[16:24]
    assert lane.start(*map(str, range(400))) is None
    lane.kill()
    assert lane.log[16:24] != began, "too few commands: the log is the same"
    shutil.copy(lane.path, lane.path.parent.parent / "newer")
    assert len(lane.owners()) == 403
    assert lane.start("x") is None
    lane.kill()
    put_over(lane)
    with pytest.raises(ConfigurationError):
        operators(lane)


@pytest.mark.parametrize("ends", [("",), ("", "-wal", "-shm")])
def test_while_the_lane_runs_a_replaced_file_is_refused(lane: KilledLane, ends: Sequence[str]) -> None:
    """Also where its log has gone with it."""
    assert lane.start() is None
    written = {end: Path(f"{lane.path}{end}").read_bytes() for end in ("", "-wal")}
    aside = lane.path.parent / "right"
    for end in ends:
        Path(f"{lane.path}{end}").rename(f"{aside}{end}")
    shutil.copy(old(lane), lane.path)
    for who in (operators, migration, readers):
        with pytest.raises((ConfigurationError, DatabaseUnavailable), match="is another file than the one that was"):
            who(lane)
    for end in ends:
        Path(f"{aside}{end}").rename(f"{lane.path}{end}")
    assert {end: Path(f"{lane.path}{end}").read_bytes() for end in written} == written
    operators(lane)
    lane.stop()
    assert lane.owners() == ["a", "b", "c"]


@pytest.mark.parametrize("kept_bytes", [0, 100], ids=["no database", "malformed"])
def test_a_damaged_file_is_called_one(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "ledger.sqlite"
    url = f"sqlite:///{path}"
    migrate(LEDGER, DatabaseSettings(database_url=url))
    with path.open("r+b") as file:
        file.seek(kept_bytes)
        file.write(b"\xff" * (path.stat().st_size - kept_bytes))
    with closing(open_store(url, LEDGER)) as store, pytest.raises(StoreUnavailable, match="the file is damaged"):
        store.current()
    address = parse_address(url)
    damaged = pytest.raises(DatabaseUnavailable, match="the file is damaged")
    with closing(kind_of(address).open_admin(address, "ledger")) as admin, damaged:
        admin.state()
    with pytest.raises(DatabaseUnavailable, match="the file is damaged"):
        read(url)
