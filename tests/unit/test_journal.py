"""The journal of what a process has accepted: on a full disk, after damage, and where it cannot be written."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from msgspec import structs
from structlog.testing import capture_logs

import coordinator.transports.inprocess.journal as journal_module
import coordinator.transports.inprocess.queue as queue_module
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import ConfigurationError, OutcomeUnknown
from coordinator.transports.inbox import Inbox
from coordinator.transports.inprocess import journal_mark
from coordinator.transports.inprocess.journal import (
    REMOVED_WITHOUT_RESERVE_MAX,
    FileJournal,
    Journal,
    JournalUnavailable,
    MemoryJournal,
    encode_message,
)
from coordinator.transports.inprocess.queue import LocalQueue
from coordinator.transports.inprocess.reserve import Reserve
from tests.support.consuming import settlement
from tests.support.loss_contract import NO_MARKS
from tests.support.system import wait_until
from tests.support.transport_contract import command

ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0
LARGE = structs.replace(command(1), arguments=b'"%s"' % (b"x" * 20_000))
DISK_BYTES = 16 << 20
NO_NAMESPACE = 77
ON_A_DISK = f"""
mount -t tmpfs -o size={DISK_BYTES} tmpfs "$2" || exit {NO_NAMESPACE}
exec "$0" -c "$1" "$2" "$3"
"""
FILL = """
import sys
from pathlib import Path

from coordinator.transports.inprocess.journal import FileJournal, JournalUnavailable, encode_message
from tests.unit.test_journal import LARGE

disk, at_once = Path(sys.argv[1]), int(sys.argv[2])
journal = FileJournal(disk / "journal")
message, added = encode_message(LARGE), 0
try:
    while True:
        journal.write([(added + 1, message)], [])
        added += 1
except JournalUnavailable as error:
    assert "full" in str(error), error
held = (disk / "journal").stat().st_size

def tried(removed):
    try:
        journal.write([(added + 1, message)], removed)
    except JournalUnavailable:
        return False
    return True

assert not tried([]), "what was freed is for those who settle"
# As in the database on the same disk.
(disk / "others").write_bytes(bytes(3 << 20))
settled = range(1, added)
while settled:
    now, settled = settled[:at_once], settled[at_once:]
    if tried(now):
        break
else:
    raise AssertionError("nothing could be added though all is settled")
assert [entry.number for entry in journal.read()] == [*settled, added, added + 1]
assert (disk / "journal").stat().st_size < held
journal.close()
print(added)
"""


@pytest.mark.parametrize("at_once", [50, 1_000_000])
def test_a_disk_that_it_has_filled_is_emptied_as_its_commands_are_settled(tmp_path: Path, at_once: int) -> None:
    """However many are settled at once: a paused lane settles all that wait once it goes on."""
    run = ["sh", "-c", ON_A_DISK, sys.executable, FILL, str(tmp_path), str(at_once)]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *run],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S * 3,
        check=False,
    )
    if done.returncode == NO_NAMESPACE or done.stderr.startswith("unshare:"):
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * len(LARGE.arguments) > DISK_BYTES // 2


def test_without_its_reserve_it_only_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = encode_message(command(1))
    with closing(FileJournal(tmp_path / "journal")) as journal:
        journal.write([(1, message), (2, message)], [])
        with monkeypatch.context() as full:
            full.setattr(Reserve, "_allocate", _no_room)
            journal._reserve.give_up()
            with pytest.raises(JournalUnavailable, match=r"disk of .*journal is full"):
                journal.write([(3, message)], [1])
            assert [entry.number for entry in journal.read()] == [2]
        journal.write([(3, message)], [1])
        assert [entry.number for entry in journal.read()] == [2, 3]


def test_what_the_system_refuses_beside_the_file_is_no_defect(tmp_path: Path) -> None:
    """As on a file system that only reads: the lane waits, and goes on once it can."""
    (tmp_path / "journal-reserve").mkdir()
    with closing(FileJournal(tmp_path / "journal")) as journal:
        with pytest.raises(JournalUnavailable):
            journal.write([(1, GOOD)], [])
        (tmp_path / "journal-reserve").rmdir()
        journal.write([(1, GOOD)], [])
        (tmp_path / "journal-wal").rename(tmp_path / "gone")
        with pytest.raises(JournalUnavailable, match=r"write-ahead log of .* was taken away"):
            journal.write([(2, GOOD)], [])


def test_a_full_disk_takes_removals_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, steps = FileJournal._remove, list[int]()

    def removed(journal: FileJournal, numbers: Sequence[int]) -> None:
        if len(numbers) > REMOVED_WITHOUT_RESERVE_MAX:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        steps.append(len(numbers))
        remove(journal, numbers)

    with closing(FileJournal(tmp_path / "journal")) as journal:
        journal.write([(number, GOOD) for number in range(1, 1001)], [])
        monkeypatch.setattr(FileJournal, "_remove", removed)
        with pytest.raises(JournalUnavailable, match="disk is full"):
            journal.write([], range(1, 1001))
        journal.write([(1001, GOOD)], range(1, 1001))
        assert [entry.number for entry in journal.read()] == [1001]
        assert sum(steps) == 1000


def test_what_is_removed_is_bounded_as_what_is_added_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "REMOVED_MAX", 10)
    done: list[str] = []
    with closing(FileJournal(tmp_path / "journal")) as journal:
        journal.write([(number, GOOD) for number in range(1, 26)], [])
        journal._connection.set_trace_callback(lambda statement: done.append(statement.split()[0]))
        journal.write([(26, GOOD)], range(1, 26))
        assert [entry.number for entry in journal.read()] == [26]
    removed = [group.count("DELETE") for group in " ".join(done).split("BEGIN")[1:]]
    assert removed == [10, 10, 5]


def test_what_is_deleted_is_not_overwritten(tmp_path: Path) -> None:
    """That would write all of it once more, into the room that a full disk does not have."""
    with closing(FileJournal(tmp_path / "journal")) as journal:
        journal.write([(number, encode_message(LARGE)) for number in range(1, 41)], [])
        journal._checkpoint()
        journal.write([], range(1, 41))
        assert (tmp_path / "journal-wal").stat().st_size < 4 * len(LARGE.arguments)


def _no_room(_: Reserve) -> None:
    raise OSError("no space left on device")


def test_what_is_in_it_is_nobody_else_s_to_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (tmp_path / "old").touch(0o644)
        for name in ("new", "old"):
            with closing(FileJournal(tmp_path / name)) as journal:
                journal.write([(1, encode_message(command(1)))], [])
                files = [*tmp_path.glob(f"{name}*")]
                assert len(files) == 3
                assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(before)
    assert not [*tmp_path.glob("*-reserve")]


GOOD = encode_message(command(1))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ((7, b"\xff"), "row 7 is no command of this release"),
        ((7, encode_message({"command_id": 1})), "row 7 is no command of this release"),
        ((7, encode_message(structs.replace(command(1), command_id="x" * 65))), "row 7 .* must be a UUID"),
        ((2**63 - 1, GOOD), "row 9223372036854775807"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: tuple[int, bytes], told: str) -> None:
    with closing(FileJournal(tmp_path / "journal")) as journal:
        journal.write([(1, GOOD), row], [])
        with pytest.raises(ConfigurationError, match=rf"{tmp_path}/journal, cannot be read: .*{told}"):
            journal.read()


@pytest.mark.parametrize("text", [*NO_MARKS, 7])
def test_a_mark_that_cannot_be_read_is_ignored_and_named(tmp_path: Path, text: bytes | int) -> None:
    with closing(FileJournal(tmp_path / "journal")) as journal:
        journal._connection.execute("INSERT INTO mark VALUES (1, ?)", [text])
        with capture_logs() as lines:
            assert journal.mark() is None
        assert [(line["event"], line["path"]) for line in lines] == [("mark_unreadable", f"{tmp_path}/journal")]
        journal.keep(Mark(sequence=3))
        assert journal.mark() == Mark(sequence=3)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(FileJournal(path)) as journal:
        journal.write([(number, encode_message(LARGE)) for number in range(1, 9)], [])
    path.write_bytes(path.read_bytes()[:-65536] + b"\xff" * 65536)
    with closing(FileJournal(path)) as journal, pytest.raises(ConfigurationError, match=rf"{path}, cannot be read: "):
        journal.read()


class Failing(MemoryJournal):
    """Cannot be written, or has a defect, for a while."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.in_it: set[int] = set()
        self.kept: Mark | None = None
        self.attempts = 0

    def write(self, added: Sequence[tuple[int, bytes]], removed: Sequence[int]) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.in_it |= {number for number, _ in added}
        self.in_it -= set(removed)

    def keep(self, mark: Mark) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.kept = mark


class Slow(Failing):
    """Its first write ends when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, added: Sequence[tuple[int, bytes]], removed: Sequence[int]) -> None:
        self.attempts += 1
        assert self.goes_on.wait(WITHIN_S)
        super().write(added, removed)


class Queue:
    """A queue with a lane that settles when it is told to."""

    def __init__(self, journal: Journal) -> None:
        self.inbox = Inbox()
        self.lost: list[str] = []
        self.queue = LocalQueue(
            "ledger",
            self.inbox,
            journal,
            on_settlement=lambda _: None,
            on_emitted=lambda _: None,
            on_lost=self.lost.append,
        )

    def accept(self, message: CommandMessage) -> "asyncio.Future[None]":
        return asyncio.ensure_future(self.queue.accept(self.queue.put(message), message))

    def settle(self, count: int) -> None:
        channel, deliveries = self.inbox.take(count, 1 << 20, 0)
        assert len(deliveries) == count
        self.queue.settle(channel, settlement(deliveries))


@asynccontextmanager
async def started(journal: Journal) -> AsyncIterator[Queue]:
    lane = Queue(journal)
    lane.queue.start(lambda _: None)
    async with asyncio.timeout(WITHIN_S):
        yield lane
        await lane.queue.close()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "it is written")


async def test_what_is_settled_leaves_a_journal_that_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody has anything accepted meanwhile."""
    monkeypatch.setattr(queue_module, "RETRY_S", 0.01)
    journal = Failing()
    async with started(journal) as lane:
        await lane.accept(command(1))
        journal.error = JournalUnavailable("the disk is full")
        with pytest.raises(OutcomeUnknown, match="not safe: the disk is full"):
            await lane.accept(command(2))
        assert lane.queue.unready_reason == "the journal of lane ledger cannot be written: the disk is full"
        lane.settle(2)
        tried = journal.attempts
        await until(lambda: journal.attempts > tried + 1)
        journal.error = None
        await until(lambda: not journal.in_it and lane.queue.unready_reason is None)
        await lane.accept(command(3))
    assert lane.lost == []


async def test_what_is_settled_before_it_is_written_does_not_stay_in_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many more are accepted than are written in one go."""
    monkeypatch.setattr(queue_module, "WRITE_BYTES_MAX", 1)
    journal = Slow()
    async with started(journal) as lane:
        accepted = [lane.accept(command(number)) for number in range(1, 21)]
        await until(lambda: journal.attempts == 1)
        lane.settle(20)
        journal.goes_on.set()
        await asyncio.gather(*accepted)
    assert journal.in_it == set()


async def test_a_mark_that_could_not_be_kept_is_kept_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle lane has nothing newer to keep."""
    monkeypatch.setattr(journal_mark, "RETRY_S", 0.01)
    journal = Failing()
    async with started(journal) as lane:
        journal.error = JournalUnavailable("the disk is full")
        await asyncio.to_thread(lane.queue.keep, 1, Mark(sequence=7))
        tried = journal.attempts
        await until(lambda: journal.attempts > tried)
        journal.error = None
        await until(lambda: journal.kept == Mark(sequence=7))


async def test_a_command_that_cannot_be_encoded_fails_alone() -> None:
    journal = Failing()
    async with started(journal) as lane:
        told = await asyncio.gather(
            *(lane.accept(message) for message in (command(1), structs.replace(command(2), type="\ud800"), command(3))),
            return_exceptions=True,
        )
    assert [type(each) for each in told] == [type(None), OutcomeUnknown, type(None)]
    assert journal.in_it == {1, 3}


async def test_a_defect_of_the_journal_ends_its_lane_and_lets_nobody_wait() -> None:
    journal = Failing()
    async with started(journal) as lane:
        journal.error = TypeError("a defect")
        waiting = [lane.accept(command(number)) for number in range(1, 4)]
        for each in (*waiting, lane.accept(command(4))):
            with pytest.raises(OutcomeUnknown):
                await each
        (lost,) = lane.lost
        assert lost.startswith("lane ledger: its journal has ended by a defect, TypeError: a defect; ")


def test_a_number_that_no_file_can_have_leaves_it_as_it_was(tmp_path: Path) -> None:
    with closing(FileJournal(tmp_path / "journal")) as journal:
        with pytest.raises(OverflowError):
            journal.write([(1, GOOD), (2**63, GOOD)], [])
        journal.write([(1, GOOD)], [])
        assert [entry.number for entry in journal.read()] == [1]
    with closing(sqlite3.connect(tmp_path / "journal")) as file:
        assert file.execute("SELECT count(*) FROM accepted").fetchone() == (1,)


@pytest.mark.parametrize("what", ["removed", "replaced", "its log replaced"])
def test_what_would_be_lost_with_this_process_is_not_safe(tmp_path: Path, what: str) -> None:
    path = tmp_path / "journal"
    with closing(FileJournal(path)) as journal:
        journal.write([(1, GOOD)], [])
        assert journal.problem() is None
        moved = path.with_name("journal-wal") if what == "its log replaced" else path
        moved.rename(tmp_path / "moved")
        if what != "removed":
            moved.write_bytes((tmp_path / "moved").read_bytes())
        assert journal.problem() is not None
        with pytest.raises(JournalUnavailable, match=r"put it back|restart this process"):
            journal.write([(2, GOOD)], [])


def test_without_room_for_a_reserve_it_says_so_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coordinator.transports.inprocess.reserve.Reserve._allocate", full)
    with closing(FileJournal(tmp_path / "journal")) as journal:
        assert "has no room for a reserve of 8388608 bytes" in str(journal.problem())
        monkeypatch.undo()
        journal.write([], [])
        assert journal.problem() is None


def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(
        ConfigurationError, match=rf"{path}, cannot be read: file is not a database\. .*move the file away"
    ):
        FileJournal(path)
