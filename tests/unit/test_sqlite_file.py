"""A database's file is one, whatever it is called: two processes must see that they have the same."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.cli import main
from coordinator.dev.servers.ports import free_port
from coordinator.lane.delivery import Suspension
from coordinator.migrations.migrate import migrate
from coordinator.registry import APP_SETTING
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import kind_of
from coordinator.stores.port import OnDisk, StoreUnavailable
from coordinator.stores.sqlite.file import HeldFile, _mounted, file_of, held_problem
from coordinator.stores.sqlite.store import create_schema
from coordinator.transports.inprocess.journal import journal_of
from coordinator.writing import open_store
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import LEDGER, OpenAccount


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    create_schema(str(path), LEDGER)
    return path


def test_by_a_link_it_has_the_journal_that_another_process_has(path: Path) -> None:
    link = path.with_name("other.sqlite")
    link.symlink_to(path)
    first, second = open_store(f"sqlite:///{path}", LEDGER), open_store(f"sqlite:///{link}", LEDGER)
    assert isinstance(second, OnDisk)
    assert second.path == path
    journal = journal_of(first, LEDGER.name, None)
    assert journal is not None
    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite-queue: another process has it"):
        journal_of(second, LEDGER.name, None)
    journal.close()


def test_with_two_names_it_is_refused(path: Path) -> None:
    os.link(path, path.with_name("other.sqlite"))
    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite has 2 names"):
        open_store(f"sqlite:///{path}", LEDGER)


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises((ConfigurationError, StoreUnavailable), match=r"leads to itself|there is no file"):
        open_store(f"sqlite:///{tmp_path}/a", LEDGER).take_over("a", datetime.now(UTC))


def test_what_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    assert file_of(f"{tmp_path}/a/b.sqlite") == f"{tmp_path}/a/b.sqlite"
    assert file_of(":memory:") == ":memory:"


@pytest.mark.parametrize(
    ("what", "advice"), [("replaced", "put it back"), ("deleted", "put it back"), ("its log deleted", "restart")]
)
def test_nothing_is_acknowledged_that_the_next_process_would_not_find(path: Path, what: str, advice: str) -> None:
    store = open_store(f"sqlite:///{path}", LEDGER)
    lane = LaneUnderTest(store)
    assert codes(lane.outcomes(delivery(1, OpenAccount(owner="a")))) == ["applied"]
    if what == "its log deleted":
        Path(f"{path}-wal").unlink()
    else:
        path.unlink()
    if what == "replaced":
        create_schema(str(path), LEDGER)
    decision = lane.lane.apply([delivery(2, OpenAccount(owner="b"))], 0)
    assert isinstance(decision, Suspension)
    assert advice in decision.reason
    with pytest.raises(StoreUnavailable, match=advice):
        store.look()
    assert path.exists() == (what != "deleted"), "no other file is made"
    store.close()


def test_one_process_has_the_file_by_whatever_name(path: Path) -> None:
    """Two mounts of one file have names of their own, with no link between them."""
    held = HeldFile(path)
    imports = "import sys; from pathlib import Path; from coordinator.stores.sqlite.file import HeldFile"
    program = f"{imports}; HeldFile(Path(sys.argv[1]))"
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert "another process runs a lane on this file" in ran.stderr
    held.close()
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_its_lock_does_not_disturb_those_of_the_database(path: Path) -> None:
    held = HeldFile(path)
    with closing(sqlite3.connect(path, timeout=0)) as first, closing(sqlite3.connect(path, timeout=0)) as second:
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            second.execute("BEGIN IMMEDIATE")
        first.execute("COMMIT")
        second.execute("BEGIN IMMEDIATE")
    held.close()


def test_who_is_refused_takes_no_lock_of_the_database_with_him(path: Path) -> None:
    """Without them the next one that closes the file would delete the log that is in use."""
    held = HeldFile(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE written (number INTEGER)")
        with pytest.raises(ConfigurationError, match="another process runs a lane on this file"):
            HeldFile(path)
        program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM written'); c.close()"
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        assert path.with_name(f"{path.name}-wal").exists()
    held.close()
    HeldFile(path).close()


def test_who_is_refused_for_another_process_keeps_his_own_locks(path: Path) -> None:
    """He may read the file, as a gateway does."""
    imports = "import sys; from pathlib import Path; from coordinator.stores.sqlite.file import HeldFile"
    program = f"{imports}; held = HeldFile(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE written (number INTEGER)")
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=pipe, stdout=pipe) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(ConfigurationError, match="another process runs a lane on this file"):
                HeldFile(path)
            other.kill()
        program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM written'); c.close()"
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        assert path.with_name(f"{path.name}-wal").exists()
    # What was killed holds nothing.
    HeldFile(path).close()


def test_a_file_that_is_a_mount_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.stores.sqlite.file._mounted", lambda: frozenset({str(path)}))
    with pytest.raises(ConfigurationError, match="mount its folder instead"):
        open_store(f"sqlite:///{path}", LEDGER)


def test_places_of_mounts_are_read_as_the_system_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"1 2 0:3 / /a\\040b/c\\134d rw - ext4 /dev/x rw\n5 6 0:7 /x /y rw - tmpfs t rw\nshort\n"
    monkeypatch.setattr(Path, "read_bytes", lambda _: text)
    assert _mounted() == {"/a b/c\\d", "/y"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_real_mount_of_a_file_is_refused(path: Path) -> None:
    other = path.with_name("mounted.sqlite")
    other.touch()
    if subprocess.run(["mount", "--bind", str(path), str(other)], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(ConfigurationError, match="mount its folder instead"):
            open_store(f"sqlite:///{other}", LEDGER)
        # The file itself is no mount; whoever has it has it by both names.
        held = HeldFile(path)
        with pytest.raises(ConfigurationError, match="another process"):
            HeldFile(other)
        held.close()
    finally:
        subprocess.run(["umount", str(other)], check=True)


def test_only_a_migration_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    address = parse_address(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match=r"there is no file .*ledger\.sqlite: .*`coordinator migrate`"):
        kind_of(address).open_admin(address, LEDGER.name)
    with pytest.raises(StoreUnavailable, match=r"there is no file .*ledger\.sqlite"):
        open_store(f"sqlite:///{path}", LEDGER).take_over("a", datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_and_its_journals_are_for_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    migrate(LEDGER, DatabaseSettings(database_url=f"sqlite:///{path}"))
    with closing(open_store(f"sqlite:///{path}", LEDGER)) as store:
        lane = LaneUnderTest(store)
        assert codes(lane.outcomes(delivery(1, OpenAccount(owner="a")))) == ["applied"]
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {f"ledger.sqlite{end}": 0o600 for end in ("", "-wal", "-shm", "-wal-of")}


def test_a_file_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    path.chmod(0o640)
    migrate(LEDGER, DatabaseSettings(database_url=f"sqlite:///{path}"))
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_database_in_memory_is_refused_where_another_process_would_have_to_see_it() -> None:
    address = parse_address("sqlite:///:memory:")
    with pytest.raises(ConfigurationError, match="in memory ends with its process"):
        kind_of(address).open_admin(address, LEDGER.name)
    with pytest.raises(ConfigurationError, match="in memory ends with its process"):
        migrate(LEDGER, DatabaseSettings(database_url="sqlite:///:memory:"))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:///:memory:", "a database in memory ends with its process"),
        ("sqlite:///", "it names no file"),
        ("sqlite://", "a file's address begins with sqlite:///"),
    ],
)
@pytest.mark.parametrize("words", [("run", "seats"), ("migrate",), ("status",), ("dev", "tests.support.seats:seats")])
def test_no_command_takes_a_database_in_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    url: str,
    why: str,
) -> None:
    monkeypatch.setenv(APP_SETTING, "tests.support.seats:seats")
    monkeypatch.setenv("SEATS_DATABASE_URL", url)
    monkeypatch.setenv("DEV_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1:1")
    if words[0] == "dev":
        monkeypatch.delenv("AMQP_URL")
        for port in ("DEV_SEATS_PORT", "DEV_OPERATIONS_PORT"):
            monkeypatch.setenv(port, str(free_port()))
    monkeypatch.setattr("sys.argv", ["coordinator", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"SEATS_DATABASE_URL: {why}" in capsys.readouterr().err


def test_what_a_killed_process_has_forked_does_not_hold_it(path: Path) -> None:
    """A worker of a pool waits for work of a parent that is gone, for as long as nobody ends it."""
    imports = "import os, signal, sys; from pathlib import Path; from coordinator.stores.sqlite.file import HeldFile"
    wait, end = "(os.close(1), signal.pause())", "print(child, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    program = f"{imports}; held = HeldFile(Path(sys.argv[1])); child = os.fork(); child or {wait}; {end}"
    ran = subprocess.run([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, check=False)
    try:
        moved = path.rename(path.with_name("elsewhere"))
        assert held_problem(str(path)) is None
        moved.rename(path)
        HeldFile(path).close()
    finally:
        os.kill(int(ran.stdout), signal.SIGKILL)


def test_a_fork_that_closes_what_its_parent_held_keeps_what_it_holds_itself(path: Path) -> None:
    """Its own may have the number of a descriptor that it was not to have."""
    other = path.with_name("other.sqlite")
    create_schema(str(other), LEDGER)
    imports = "import os, sys; from pathlib import Path; from coordinator.stores.sqlite.file import HeldFile"
    wait, close = "print(own, flush=True), sys.stdin.read()", "held.close()"
    program = (
        f"{imports}; held = HeldFile(Path(sys.argv[1])); child = os.fork()\n"
        f"if child: os.waitpid(child, 0)\nelse: own = HeldFile(Path(sys.argv[2])); {close}; {wait}"
    )
    command = [sys.executable, "-c", program, str(path), str(other)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as forking:
        assert forking.stdout is not None
        assert forking.stdout.readline()
        with pytest.raises(ConfigurationError, match="another process runs a lane on this file"):
            HeldFile(other)
        forking.communicate()
