"""The commands that a process has accepted and not settled yet, in a file, so that a crash does not lose them.

When the file has filled its disk, it shrinks again as its commands are settled. Deleting takes room itself, so a
reserve is beside the file. The reserve is given up first, and nothing is added until the disk has room for it again.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import msgspec
import structlog

from coordinator.lane.high_water import Mark, decode_mark, encode_mark
from coordinator.protocol.issuing import issuable
from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import ConfigurationError, InvalidCommand
from coordinator.stores.memory import MemoryStore
from coordinator.stores.port import OnDisk, Store
from coordinator.stores.sqlite.file import FilesKept
from coordinator.transports.inprocess.reserve import Reserve

WRITE_BYTES_MAX: Final = 1 << 20
"""The most that is added in one go; a single command may be larger."""
REMOVED_MAX: Final = 4_000
"""The most that is removed in one go: such small commands are about as many bytes as are added in one."""
REMOVED_WITHOUT_RESERVE_MAX: Final = 100
"""The same on a full disk, where what is written for it must find room in the write-ahead log as it is."""
RESERVE_BYTES: Final = 4 << 20
"""Enough to empty the write-ahead log into the file, and so to delete."""

_TABLE: Final = "CREATE TABLE IF NOT EXISTS accepted (number INTEGER PRIMARY KEY, message BLOB NOT NULL)"
_MARK_TABLE: Final = "CREATE TABLE IF NOT EXISTS mark (one INTEGER PRIMARY KEY CHECK (one = 1), mark BLOB NOT NULL)"
_ALL: Final = "SELECT number, message FROM accepted ORDER BY number"
_BUSY_S: Final = 0.2
"""A process keeps the file for its lifetime, so waiting helps only while another process is just ending."""
_WAL_PAGES: Final = 256
"""SQLite empties the write-ahead log when it has this many, if it can."""
_WAL_BYTES_MAX: Final = 3 << 20
"""The log is larger only if SQLite could not empty it: then the reserve must help."""
_VACUUM_PAGES: Final = 64
"""Pages that are given back to the disk at a time: each needs room in the write-ahead log."""
_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""SQLite's errors when a disk, or a quota, is full."""

log = structlog.get_logger("inprocess")

encode_message = msgspec.msgpack.encode
_decoder = msgspec.msgpack.Decoder(CommandMessage)


class JournalEntry(NamedTuple):
    """A command, and its place in its lane's queue."""

    number: int
    message: CommandMessage


class JournalUnavailable(Exception):
    """Raised when nothing can be added now: no space, or no right."""


class Journal(Protocol):
    """The accepted commands of one lane. Used by any thread."""

    def read(self) -> list[JournalEntry]:
        """Its commands, in order of the numbers. Raises ConfigurationError for one that this release cannot read."""

    def write(self, added: Sequence[tuple[int, bytes]], removed: Sequence[int]) -> None:
        """Return once all of it is on disk. `added` has numbers and messages (`encode_message`).

        Raises JournalUnavailable if nothing can be added, even when `added` is empty. Then no command of `added` counts
        as written. Numbers may be removed once more.
        """

    def problem(self) -> str | None:
        """Why nothing can be added, as far as it shows without an attempt; None: nothing does."""

    def mark(self) -> Mark | None:
        """The mark that was kept last; None: there is none that can be read."""

    def keep(self, mark: Mark) -> None:
        """Return once it is on disk. Raises JournalUnavailable."""

    def close(self) -> None:
        """Close the file, so that another process may have it."""


class MemoryJournal:
    """A journal for stores that keep nothing over a crash either."""

    def read(self) -> list[JournalEntry]:
        return []

    def write(self, added: Sequence[tuple[int, bytes]], removed: Sequence[int]) -> None:
        """There is nothing to outlive."""

    def problem(self) -> str | None:
        return None

    def mark(self) -> Mark | None:
        return None

    def keep(self, mark: Mark) -> None:
        """There is nothing to outlive."""

    def close(self) -> None:
        """There is nothing to close."""


class FileJournal:
    """An SQLite file that one process has at a time, and that its owner only may read."""

    def __init__(self, path: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Raises ConfigurationError for a file that cannot be opened, or that another process has."""
        self._path = path
        self._lock = threading.Lock()
        try:
            _make_private(path)
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"the file of accepted commands, {path}, cannot be opened: {error}") from error
        try:
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            # Where SQLite overwrites what it deletes, as Debian's does, deleting takes as much room as adding did.
            self._connection.execute("PRAGMA secure_delete=OFF")
            # In this mode SQLite keeps a lock once it has taken it.
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute(_TABLE)
            self._connection.execute(_MARK_TABLE)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            raise _failed(path, error) from error
        self._files = FilesKept(str(path))
        self._files.opened()
        self._reserve = Reserve(Path(f"{path}-reserve"), reserve_bytes)
        self._reserve.keep()

    def read(self) -> list[JournalEntry]:
        with self._lock, self._readable():
            rows = self._connection.execute(_ALL).fetchall()
        return [_entry(self._path, number, message) for number, message in rows]

    def write(self, added: Sequence[tuple[int, bytes]], removed: Sequence[int]) -> None:
        with self._lock:
            if not self._reserve.is_kept:
                self._make_room(removed)
                removed = ()
            while len(removed) > REMOVED_MAX:
                self._write([], removed[:REMOVED_MAX])
                removed = removed[REMOVED_MAX:]
            self._write(added, removed)

    def problem(self) -> str | None:
        return self._files.problem() or (None if self._reserve.is_kept else self._without_reserve())

    def mark(self) -> Mark | None:
        with self._lock, self._readable():
            found = self._connection.execute("SELECT mark FROM mark").fetchone()
        try:
            return None if found is None else decode_mark(found[0])
        except (TypeError, ValueError) as error:
            log.warning("mark_unreadable", path=str(self._path), reason=str(error))
            return None

    def keep(self, mark: Mark) -> None:
        with self._lock, self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO mark VALUES (1, ?)", [encode_mark(mark)])

    def close(self) -> None:
        with self._lock:
            self._reserve.give_up()
            self._files.close(self._connection)

    def _wal_bytes(self) -> int:
        """Raises JournalUnavailable: without it a crash loses what was written."""
        try:
            return Path(f"{self._path}-wal").stat().st_size
        except OSError as error:
            raise JournalUnavailable(f"its write-ahead log is gone: {error}") from error

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises ConfigurationError."""
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, TypeError) as error:
            raise _unreadable(self._path, str(error)) from error

    def _write(self, added: Sequence[tuple[int, bytes]], removed: Sequence[int]) -> None:
        """One transaction. Raises JournalUnavailable."""
        with self._transaction():
            self._connection.executemany("INSERT INTO accepted VALUES (?, ?)", added)
            self._remove(removed)
        if self._wal_bytes() > _WAL_BYTES_MAX:
            try:
                self._checkpoint()
            except sqlite3.Error:
                self._reserve.give_up()

    def _make_room(self, removed: Sequence[int]) -> None:
        """Delete, give free pages back to the disk, and restore the reserve. Raises JournalUnavailable."""
        # This makes room for the deletions. If it has no room itself, the deletions may make it. The log keeps the room
        # that it has on the disk: nobody else can take it.
        with suppress(sqlite3.Error):
            self._checkpoint("RESTART")
        for start in range(0, len(removed), REMOVED_WITHOUT_RESERVE_MAX):
            with self._transaction():
                self._remove(removed[start : start + REMOVED_WITHOUT_RESERVE_MAX])
            with suppress(sqlite3.Error):
                self._checkpoint("RESTART")
        try:
            self._shrink()
        except sqlite3.Error as error:
            raise JournalUnavailable(str(error)) from error
        if not self._reserve.keep():
            raise JournalUnavailable(self._without_reserve())

    def _without_reserve(self) -> str:
        return f"the disk of {self._path} is full: it has no room for a reserve of {2 * self._reserve.size_bytes} bytes"

    def _shrink(self) -> None:
        free, before = self._free_pages(), None
        while free and free != before:
            self._connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
            self._checkpoint()
            free, before = self._free_pages(), free
        self._checkpoint()

    def _free_pages(self) -> int:
        return int(self._connection.execute("PRAGMA freelist_count").fetchone()[0])

    def _checkpoint(self, mode: Literal["RESTART", "TRUNCATE"] = "TRUNCATE") -> None:
        """Empty the write-ahead log into the file, and give its room back to the disk. Raises sqlite3.Error."""
        self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    def _remove(self, numbers: Sequence[int]) -> None:
        self._connection.executemany("DELETE FROM accepted WHERE number = ?", [(each,) for each in numbers])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Raises JournalUnavailable. No error leaves a transaction open."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL:
                self._reserve.give_up()
            raise JournalUnavailable(str(error)) from error
        except BaseException:
            self._roll_back()
            raise
        # Before anybody is told that it is safe.
        if (problem := self._files.problem()) is not None:
            raise JournalUnavailable(problem)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _entry(path: Path, number: int, message: bytes) -> JournalEntry:
    if not 0 < number <= INTEGER_MAX:
        raise _unreadable(path, f"no command has the number of its row {number}")
    try:
        return JournalEntry(number, issuable(_decoder.decode(message), is_new=False))
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, InvalidCommand) as error:
        raise _unreadable(path, f"its row {number} is no command of this release: {error}") from error


def _failed(path: Path, error: sqlite3.Error) -> ConfigurationError:
    """The error of whoever opens the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _unreadable(path, str(error))
    why = str(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        why = "another process has it: one runs a lane"
    elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        why = f"{why}: who runs the lane has to read and write it, also where another user has made it"
    return ConfigurationError(f"the file of accepted commands, {path}: {why}")


def _unreadable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the file of accepted commands, {path}, cannot be read: {why}. Run the release that wrote it, or "
        "move the file away: the commands in it are then lost, but for those that the command log has"
    )


def _make_private(path: Path) -> None:
    """Let nobody else read the file, nor the files that SQLite puts beside it. Raises OSError."""
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    elif path.is_file():
        with suppress(PermissionError):
            path.chmod(0o600)


def journal_of(store: Store, lane: str, directory: Path | None) -> Journal | None:
    """The journal of a lane: in this directory, or beside its database if that is a file; None: there is no place.

    Raises ConfigurationError.
    """
    if directory is not None:
        return FileJournal(directory / f"{lane}.queue")
    if isinstance(store, OnDisk) and store.path is not None:
        return FileJournal(journal_beside(store.path))
    return MemoryJournal() if isinstance(store, MemoryStore) else None


def journal_beside(database: str | Path) -> Path:
    """Where the journal of a lane is whose database is this file."""
    return Path(f"{database}-queue")


def mark_in(path: Path) -> Mark | None:
    """The mark in a journal that no process has; None: there is none. Raises ConfigurationError where one has it."""
    if not path.exists():
        return None
    with closing(FileJournal(path)) as journal:
        return journal.mark()


def waiting_beside(database: Path, is_settled: Callable[[CommandMessage], bool]) -> int:
    """How many commands wait that a process had accepted for the lane of this file when it ended.

    What is settled, and was not removed any more, is removed now: once the log is pruned, it would seem to wait.
    Several processes may look at once. Raises ConfigurationError where a process still has them.
    """
    path = journal_beside(database)
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as connection:
            # The process may have died before it had made the table.
            is_made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'accepted'").fetchone()
            rows = connection.execute(_ALL).fetchall() if is_made else []
            settled = [row for row in rows if is_settled(_entry(path, *row).message)]
            if settled:
                # Where that is refused, they are looked at again.
                with suppress(sqlite3.Error):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("DELETE FROM accepted WHERE number = ? AND message = ?", settled)
                    connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _failed(path, error) from error
    return len(rows) - len(settled)
