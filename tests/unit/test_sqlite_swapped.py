"""A database that is replaced together with its log, under a process that has the old one, loses nothing by it.

SQLite finds a log by its name: whoever closes a file last deletes what has that name then.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.lane.delivery import Suspension
from coordinator.stores.port import OnDisk, Store, StoreUnavailable
from coordinator.stores.sqlite.store import create_schema
from coordinator.transports.inprocess.journal import Journal, journal_of
from coordinator.writing import open_store
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import LEDGER, OpenAccount

ENDS = ("", "-wal", "-shm")
_WRITES = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("CREATE TABLE kept (number INTEGER)")
connection.execute("INSERT INTO kept VALUES (7)")
os._exit(0)
"""
_READS = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print(connection.execute("SELECT number FROM kept").fetchall())
"""
_STAYS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT * FROM lane_lease").fetchall() != [], flush=True)
sys.stdin.readline()
connection.close()
"""


def python(program: str, path: Path) -> str:
    """What a process of its own says: locks of SQLite are a process's."""
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    return ran.stdout.strip() or ran.stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    create_schema(str(path), LEDGER)
    return path


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{path}", LEDGER)
    yield store
    store.close()


@pytest.fixture
def lane(store: Store) -> LaneUnderTest:
    lane = LaneUnderTest(store)
    assert codes(lane.outcomes(delivery(1, OpenAccount(owner="a")))) == ["applied"]
    return lane


@pytest.fixture
def journal(store: Store) -> Iterator[Journal]:
    journal = journal_of(store, LEDGER.name, None)
    assert journal is not None
    journal.write([(1, b"{}")], [])
    yield journal
    journal.close()


def swap(path: Path) -> None:
    """Put another database, whose last commits are in its log, in the place of the one that is open."""
    other, aside = path.parent / "other", path.parent / "aside"
    aside.mkdir()
    other.mkdir()
    python(_WRITES, other / path.name)
    for end in ENDS:
        name = f"{path.name}{end}"
        if (path.parent / name).exists():
            (path.parent / name).rename(aside / name)
        (other / name).rename(path.parent / name)


def test_the_log_of_the_file_that_was_put_there_stays(path: Path, store: Store, lane: LaneUnderTest) -> None:
    swap(path)
    decision = lane.lane.apply([delivery(2, OpenAccount(owner="b"))], 0)
    assert isinstance(decision, Suspension)
    store.close()
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    assert python(_READS, path) == "[(7,)]"


def test_an_end_of_the_process_leaves_it_too(path: Path) -> None:
    program = """
import sys
from pathlib import Path
from tests.unit.test_sqlite_swapped import LEDGER, LaneUnderTest, OpenAccount, delivery, open_store, swap
store = open_store(f"sqlite:///{sys.argv[1]}", LEDGER)
lane = LaneUnderTest(store)
lane.outcomes(delivery(1, OpenAccount(owner="a")))
swap(Path(sys.argv[1]))
"""
    assert python(program, path) == ""
    assert python(_READS, path) == "[(7,)]"


def test_an_operator_who_had_the_old_file_deletes_nothing_either(path: Path, store: Store, lane: LaneUnderTest) -> None:
    """His connection is older than the exchange, and ends after the lane's."""
    wal = path.with_name(f"{path.name}-wal")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _STAYS, str(path)], stdin=pipe, stdout=pipe) as operator:
        assert operator.stdin is not None
        assert operator.stdout is not None
        assert operator.stdout.readline() == b"True\n"
        swap(path)
        with pytest.raises(StoreUnavailable):
            store.look()
        store.close()
        operator.communicate(b"\n")
    assert wal.stat().st_size > 0
    assert python(_READS, path) == "[(7,)]"


def test_the_queue_s_file_that_was_put_there_keeps_its_log(store: Store, journal: Journal) -> None:
    assert isinstance(store, OnDisk)
    assert store.path is not None
    queue = store.path.with_name(f"{store.path.name}-queue")
    swap(queue)
    assert journal.problem() is not None
    journal.close()
    assert python(_READS, queue) == "[(7,)]"


def test_a_file_that_is_still_there_has_no_log_after_a_stop(path: Path, store: Store, lane: LaneUnderTest) -> None:
    """So a copy may be put in its place."""
    assert path.with_name(f"{path.name}-wal").exists()
    store.close()
    assert not path.with_name(f"{path.name}-wal").exists()
    assert codes(LaneUnderTest(store).outcomes(delivery(2, OpenAccount(owner="b")))) == ["applied"]


def test_a_lane_that_was_never_taken_sees_an_exchange(path: Path, store: Store) -> None:
    lane = LaneUnderTest(store).lane
    assert lane.look() is None
    swap(path)
    verdict = lane.look()
    assert isinstance(verdict, Suspension)
    assert "another file" in verdict.reason


@pytest.mark.parametrize("beside", ["", "-queue"])
def test_the_log_of_a_snapshot_that_was_mounted_over_the_folder_stays(tmp_path: Path, beside: str) -> None:
    """Its files have the same numbers as those below it, by which SQLite knows a file."""
    program = f"""
import subprocess, sys
from pathlib import Path
from tests.unit.test_sqlite_swapped import *
from tests.unit.test_sqlite_swapped import _READS, _WRITES
folder = Path(sys.argv[1])
path = folder / "ledger.sqlite"
mount = ["mount", "-t", "tmpfs", "none", folder]
subprocess.run(mount, check=True)
create_schema(str(path), LEDGER)
store = open_store(f"sqlite:///{{path}}", LEDGER)
journal = journal_of(store, LEDGER.name, None)
lane = LaneUnderTest(store)
lane.outcomes(delivery(1, OpenAccount(owner="a")))
other = path.with_name(path.name + {beside!r})
number = other.stat().st_ino
subprocess.run(mount, check=True)
path.touch()
other.touch()
for filler in range(1000):
    if other.stat().st_ino != number:
        other.rename(folder / str(filler))
        other.touch()
assert other.stat().st_ino == number
python(_WRITES, other)
assert journal.problem() is not None
assert isinstance(lane.lane.look(), Suspension)
store.close()
journal.close()
print(python(_READS, other))
"""
    words = ["unshare", "--mount", sys.executable, "-c", program, str(tmp_path)]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if ran.stderr.startswith("unshare: "):
        pytest.skip(f"only root may mount, and not in a chroot: {ran.stderr}")
    assert ran.stdout == "[(7,)]\n", ran.stderr
