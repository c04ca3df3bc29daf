"""What a process has accepted and not settled yet, so that a crash does not lose it."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from coordinator.lane.high_water import Mark, decode_mark, encode_mark
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import ConfigurationError

_TABLE: Final = "CREATE TABLE IF NOT EXISTS accepted (number INTEGER PRIMARY KEY, message BLOB NOT NULL)"
_MARK_TABLE: Final = "CREATE TABLE IF NOT EXISTS mark (one INTEGER PRIMARY KEY CHECK (one = 1), mark BLOB NOT NULL)"
_BUSY_S: Final = 0.2
"""Whoever has the file keeps it: there is nothing to wait for, but for a process that is just ending."""

_encode = msgspec.msgpack.encode
_decoder = msgspec.msgpack.Decoder(CommandMessage)


class JournalEntry(NamedTuple):
    """A command, and its place in its lane's queue."""

    number: int
    message: CommandMessage


class JournalUnavailable(Exception):
    """Raised where nothing can be written now: no space, or no right."""


class Journal(Protocol):
    """The accepted commands of one lane. Used by any thread."""

    def read(self) -> list[JournalEntry]:
        """All that is in it, in order of the numbers."""

    def write(self, added: Sequence[JournalEntry], removed: Sequence[int]) -> None:
        """Return once it is on disk, all or nothing. Raises JournalUnavailable."""

    def mark(self) -> Mark | None:
        """The mark that was kept last."""

    def keep(self, mark: Mark) -> None:
        """Return once it is on disk. Raises JournalUnavailable."""

    def close(self) -> None:
        """Let go of it: another process may have it now."""


class MemoryJournal:
    """For stores that keep nothing over a crash either."""

    def read(self) -> list[JournalEntry]:
        return []

    def write(self, added: Sequence[JournalEntry], removed: Sequence[int]) -> None:
        """There is nothing to outlive."""

    def mark(self) -> Mark | None:
        return None

    def keep(self, mark: Mark) -> None:
        """There is nothing to outlive."""

    def close(self) -> None:
        """There is nothing to let go of."""


class FileJournal:
    """An SQLite file, which one process has at a time."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError for a file that cannot be had."""
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ConfigurationError(f"the file of accepted commands, {path}, cannot be opened: {error}") from error
        try:
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            # In this mode a lock is kept once it was needed.
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute(_TABLE)
            self._connection.execute(_MARK_TABLE)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            why = "another process has it: one runs a lane" if is_busy else str(error)
            raise ConfigurationError(f"the file of accepted commands, {path}: {why}") from error

    def read(self) -> list[JournalEntry]:
        with self._lock:
            rows = self._connection.execute("SELECT number, message FROM accepted ORDER BY number").fetchall()
        return [JournalEntry(number, _decoder.decode(message)) for number, message in rows]

    def write(self, added: Sequence[JournalEntry], removed: Sequence[int]) -> None:
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO accepted VALUES (?, ?)", [(number, _encode(message)) for number, message in added]
            )
            self._connection.executemany("DELETE FROM accepted WHERE number = ?", [(each,) for each in removed])

    def mark(self) -> Mark | None:
        with self._lock:
            found = self._connection.execute("SELECT mark FROM mark").fetchone()
        return None if found is None else decode_mark(found[0])

    def keep(self, mark: Mark) -> None:
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO mark VALUES (1, ?)", [encode_mark(mark)])

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Raises JournalUnavailable."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise JournalUnavailable(str(error)) from error
