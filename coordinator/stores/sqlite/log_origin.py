"""Of which file a write-ahead log is. SQLite finds it by its name, and plays any log into any file beside it.

So a file that was replaced, or a backup that was copied over it, would be mixed with a log that is not its own, and
whoever closes it last would write that log into it and delete it. The lane's process therefore keeps a note beside
them, and whoever opens the file compares first. Without a note, or with one of another log, nothing is known, and
nothing is refused: so copies of a file with its log may be put anywhere.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.sqlite.file import FilesKept, Identity, held_problem, identity_of, note_beside, open_note

_HEADER_BYTES: Final = 32
_SALTS: Final = slice(16, 24)
"""Of the log's header: SQLite makes others each time that it begins the log anew."""
_SEQUENCE: Final = f"SELECT max(sequence) FROM {LEASE_TABLE}"  # noqa: S608  # a constant of ours
_NOTHING: Final = -1
_SECOND_NS: Final = 10**9

_OF_ANOTHER: Final = (
    "{path} is not the file to which its write-ahead log {path}-wal belongs: {why}. Together they would be a mix of "
    "both. Put the file back that was there; or if this one is wanted, a backup for one, stop the process, remove "
    "{path}-wal and {path}-shm, which have the last commits of the other one, and start again"
)


DAMAGED: Final = (
    ": the file is damaged, or has the write-ahead log of another file beside it: put a whole copy back as "
    "docs/OPERATING.md says of a service in one process"
)
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class LogOrigin(NamedTuple):
    """What a process knows of the log of its file."""

    salts: str
    log: Identity
    file: Identity
    sequence: int
    """The file itself, without the log, has at least this one. 0: that is not known."""
    note_s: int
    """The time of the note's last change, in whole seconds, which a copy of it has only where it is told to keep it."""


def is_of_damage(error: BaseException) -> bool:
    """Whether SQLite says that what is in the file cannot be."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def opening_problem(path: str) -> str | None:
    """Why SQLite may not open the file, in words: it is not the one that a process holds, or not that of the log
    beside it. None: nothing says so."""
    if (problem := held_problem(path)) is not None:
        return problem
    found = _noted(path)
    if found is None or found.salts != _salts_of(path):
        return None
    if identity_of(path) not in (None, found.file) and _is_no_copy(path, found):
        return _OF_ANOTHER.format(path=path, why="the file was replaced, and the log is still the same")
    if found.sequence > 0:
        has = _sequence_without_log(path)
        if has is not None and has < found.sequence:
            ends = "has no lane" if has == _NOTHING else f"ends at sequence {has}"
            why = f"it {ends}, and the log goes on from sequence {found.sequence} or a later one"
            return _OF_ANOTHER.format(path=path, why=why)
    return None


def _is_no_copy(path: str, noted: LogOrigin) -> bool:
    """Whether the log is the very one that the process wrote. The number alone does not say so: that of a file that was
    removed is given to the next one, so copies of all files may have got the same numbers in another order."""
    try:
        log, note = os.stat(f"{path}-wal"), os.stat(note_beside(path))  # noqa: PTH116  # as its identity is asked for
    except OSError:
        return False
    # A copy that keeps the time of the last change was changed itself later; one that does not, has another time.
    is_untouched = log.st_mtime_ns == log.st_ctime_ns and note.st_mtime_ns == noted.note_s * _SECOND_NS
    return (log.st_dev, log.st_ino) == noted.log and is_untouched


class LaneFiles(FilesKept):
    """The same for a lane, which keeps the note. It is for crashes of processes: nothing of it is synced."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._log_file: int | None = None
        self._salts: str | None = None
        self._sequence = 0

    def closed(self) -> None:
        super().closed()
        log, self._log_file = self._log_file, None
        if log is not None:
            os.close(log)

    def opened(self) -> None:
        super().opened()
        with suppress(OSError):
            # SQLite locks no part of the log itself: closing this takes no lock with it.
            self._log_file = os.open(f"{self._path}-wal", os.O_RDONLY)

    def begun(self, connection: sqlite3.Connection) -> None:
        """The connection is open, and has written nothing."""
        self.opened()
        self._salts, self._sequence = self._read(), max(_sequence_of(connection) or 0, 0)
        if self._salts is not None:
            # How much of it is in the file, only the process knew that began this log.
            before = _noted(self._path)
            self._keep(self._salts, before.sequence if before is not None and before.salts == self._salts else 0)

    def problem(self) -> str | None:
        problem = super().problem()
        if problem is None:
            self._look()
        return problem

    def committed(self, sequence: int) -> None:
        """This one is in the log, at which `problem` has looked since."""
        self._sequence = sequence

    def _look(self) -> None:
        """Note a log that was begun anew: all that was committed before is in the file."""
        salts = self._read()
        if salts is not None and salts != self._salts:
            self._keep(salts, self._sequence)
            self._salts = salts

    def _read(self) -> str | None:
        if self._log_file is None:
            return None
        try:
            return _salts_in(os.pread(self._log_file, _HEADER_BYTES, 0))
        except OSError:
            return None

    def _keep(self, salts: str, sequence: int) -> None:
        if self._identity is None or self._log is None:
            return
        # On a full disk, say, the note stays that of another log.
        with suppress(OSError):
            note = open_note(self._path)
            try:
                note_s = int(os.fstat(note).st_mtime)
                line = " ".join([salts, *map(str, (*self._log, *self._identity, sequence, note_s))])
                os.pwrite(note, f"{line}\n".encode(), 0)
                os.utime(note, (note_s, note_s))
            finally:
                os.close(note)


def _noted(path: str) -> LogOrigin | None:
    try:
        line = Path(note_beside(path)).read_bytes().partition(b"\n")[0].decode()
        salts, *numbers = line.split()
        log_device, log, file_device, file, sequence, note_s = map(int, numbers)
    except (OSError, ValueError):
        return None
    return LogOrigin(salts, (log_device, log), (file_device, file), sequence, note_s)


def _salts_of(path: str) -> str | None:
    try:
        with Path(f"{path}-wal").open("rb") as log:
            return _salts_in(log.read(_HEADER_BYTES))
    except OSError:
        return None


def _salts_in(header: bytes) -> str | None:
    return header[_SALTS].hex() if len(header) == _HEADER_BYTES else None


def _sequence_without_log(path: str) -> int | None:
    """None: it cannot be read so, as where a crash has interrupted SQLite as it wrote the log into the file."""
    try:
        # Through SQLite, which keeps the locks that this process has of the file; so it looks at no log.
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
            return _sequence_of(connection)
    except sqlite3.Error:
        return None


def _sequence_of(connection: sqlite3.Connection) -> int | None:
    try:
        (sequence,) = connection.execute(_SEQUENCE).fetchone()
    except sqlite3.OperationalError as error:
        return _NOTHING if str(error).startswith("no such table") else None
    except sqlite3.DatabaseError:
        return None
    return sequence if isinstance(sequence, int) else _NOTHING
