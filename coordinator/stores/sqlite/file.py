"""The file of a database. Whoever opens it must come to the same one: its journals are found by its name."""

import ctypes
import fcntl
import os
import re
import sqlite3
import stat
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from coordinator.runtime.own_descriptors import OwnDescriptor
from coordinator.service.errors import ConfigurationError

IN_MEMORY: Final = ("", ":memory:")
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_ENDS_WITH_ITS_PROCESS = (
    "a database in memory ends with its process, and no other process sees it: name a file, such as "
    "sqlite:///service.sqlite"
)
_holding = threading.Lock()

Identity: TypeAlias = tuple[int, int]
"""The device and the number of a file, whatever its name."""

_held: set[Identity] = set()
"""The files that this process holds. One that is forked knows them, too, and may not hold them: it has open what its
parent had."""
_LOCK: Final = struct.Struct("hhqqi")
"""Linux's `flock`: kind, whence, start, length, process."""
_NUMBERS: Final = 2**62 - 1
"""Some file systems have larger numbers than a lock can begin at."""
_REPLACED: Final = "{} is another file than the one that was opened: put it back"


def identity_of(path: str) -> Identity | None:
    """None: there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # each batch asks: a Path costs as much as the call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_lasts(path: str) -> None:
    """Raise ConfigurationError if the database is in memory, where no other process could have made its tables."""
    if path in IN_MEMORY:
        raise ConfigurationError(_ENDS_WITH_ITS_PROCESS)


def make_file(path: str) -> None:
    """Make a file that has nothing in it, for a new database; one that is there stays as it is, its rights too.

    Only its user may read it. SQLite gives the rights of the file to the journals beside it.
    Raises ConfigurationError.
    """
    check_lasts(path)
    if identity_of(path) is not None:
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigurationError(f"the file {path} cannot be made: {error.strerror}") from None


def check_there(path: str) -> None:
    """Raise ConfigurationError if there is no such file: whoever opens it would make one that has nothing in it."""
    check_lasts(path)
    if identity_of(path) is None:
        raise ConfigurationError(missing(path))


def missing(path: str) -> str:
    """What to say of a file that is not there."""
    return f"there is no file {path}: correct the address, or make the file with `coordinator migrate`"


def file_of(database: str) -> str:
    """The path of an address, without symbolic links, so that two processes see that they have one file.

    Raises ConfigurationError for a file with several names (hard links): SQLite would keep a journal for each of them.
    """
    if database in IN_MEMORY:
        return database
    try:
        path = Path(database).resolve()
    except RuntimeError:  # of Python up to 3.12
        raise ConfigurationError(f"{database} is a link that leads to itself: name a file") from None
    try:
        names = path.stat().st_nlink
    except OSError:
        # It is to be made, or whoever opens it says why he cannot.
        return str(path)
    if str(path) in _mounted():
        raise ConfigurationError(
            f"{path} is a mount of its own, so the same file may have another name with another journal, and what is "
            "written by one is lost for the other: mount its folder instead"
        )
    if names > 1 and path.is_file():
        raise ConfigurationError(
            f"{path} has {names} names (hard links), and SQLite keeps a journal for each: what is written by one is "
            "lost for the others. Remove the other names, or copy the file"
        )
    return str(path)


def _mounted() -> frozenset[str]:
    """The places where something is mounted; empty where the system does not say."""
    try:
        text = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return frozenset()
    places = (line.split(b" ")[4] for line in text.splitlines() if line.count(b" ") > 4)  # noqa: PLR2004
    return frozenset(os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), place)) for place in places)


class FilesKept:
    """Whether a database file and its write-ahead log are still those that were opened.

    What is written to a file that was replaced, or whose log was, is lost with this process.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: Identity | None = None
        """Of the file that was opened first, for as long as this process runs."""
        self._log: Identity | None = None
        """Of its write-ahead log, which may be another after each connect."""
        self._has_lost_its_log = False

    @property
    def were_open(self) -> bool:
        return self._identity is not None

    def closed(self) -> None:
        """The log may go with the connection."""
        self._log = None

    def close(self, connection: sqlite3.Connection) -> None:
        """Close it; or leave it open for as long as the process runs, where its path leads to another file by now.

        Whoever closes a file last writes its log into it, and deletes what has the log's name then: that would be the
        log of the other file, with its last commits. SQLite compares the numbers of the two files first, and not their
        devices: a snapshot that is mounted over a folder has the same numbers.
        """
        if self._identity is not None and identity_of(self._path) not in (None, self._identity):
            # As long as it is open no other connection to that file is the last one. Python's end would close it, too.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        else:
            connection.close()
        self.closed()

    def opened(self) -> None:
        """Note them as they are now, once the connection has made its log."""
        self._identity, self._log = identity_of(self._path), identity_of(f"{self._path}-wal")

    def problem(self) -> str | None:
        """What is wrong, in words; None: both are there."""
        if self._identity is not None and identity_of(self._path) != self._identity:
            return _REPLACED.format(self._path)
        if self._log is not None and identity_of(f"{self._path}-wal") != self._log:
            self._has_lost_its_log = True
        if self._has_lost_its_log:
            # Those who read may have the old one until they end.
            return f"the write-ahead log of {self._path} was taken away or replaced: restart this process"
        return None


def note_beside(path: str) -> str:
    """A file beside the database, in which it is noted of which file the write-ahead log is (`log_origin`)."""
    return f"{path}-wal-of"


def open_note(path: str) -> int:
    """Whoever may open the database may open the note, as SQLite's own files. Raises OSError."""
    note = os.open(note_beside(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(note).st_size == 0:
            os.fchmod(note, stat.S_IMODE(os.stat(path).st_mode))  # noqa: PTH116  # as its identity is asked for
    except OSError:
        os.close(note)
        raise
    return note


def held_problem(path: str) -> str | None:
    """What is wrong with a file that a process holds by this path, in words; None: it is there, or nobody holds it."""
    held = _number_of_held(path)
    found = identity_of(path)
    return _REPLACED.format(path) if held is not None and (found is None or found[1] & _NUMBERS != held) else None


def _number_of_held(path: str) -> int | None:
    """The number of the file that a process holds by this path; None: nobody does, or the system does not say."""
    if sys.platform != "linux":
        return None
    try:
        note = os.open(note_beside(path), os.O_RDONLY)
    except OSError:
        return None
    try:
        kind, _, start, _, _ = _LOCK.unpack_from(fcntl.fcntl(note, fcntl.F_OFD_GETLK, _lock_of(fcntl.F_WRLCK)))
    except OSError:
        return None
    finally:
        os.close(note)
    return None if kind == fcntl.F_UNLCK else int(start)


def _lock_of(kind: int, start: int = 0, length: int = 0) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, start, length, 0)


class HeldFile:
    """A database file that one process has, under whatever name: the lock is the file's own, and not that of a name.

    To be closed once nothing of this process uses the file any more: a descriptor that is closed takes all of SQLite's
    own locks of this process with it, and then whoever closes the file next deletes the write-ahead log.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError if it is held already. Where files cannot be locked so, it is not held."""
        self._file: OwnDescriptor | None = None
        self._note: OwnDescriptor | None = None
        self._identity = identity_of(str(path))
        refused = ConfigurationError(
            f"{path}: another process runs a lane on this file, perhaps by another name, "
            "or moves it (`coordinator move`)"
        )
        with _holding:
            if self._identity in _held:
                # It is not even opened: it would have to be closed again.
                raise refused
            try:
                file = os.open(path, os.O_RDONLY)
            except OSError:
                # Whoever opens the file says what is wrong with it.
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The descriptor stays until the process ends: connections of this one may be open.
                raise refused from None
            except OSError:
                # On NFS, for one, only a descriptor that writes can be locked.
                return
            self._file = OwnDescriptor(file)
            if self._identity is not None:
                _held.add(self._identity)
                self._tell(str(path), self._identity[1])

    def close(self) -> None:
        with _holding:
            file, self._file = self._file, None
            if file is not None:
                file.close()
                if self._identity is not None:
                    _held.discard(self._identity)
                if self._note is not None:
                    self._note.close()

    def _tell(self, path: str, number: int) -> None:
        """Have those who come by the path see which file is held: by a lock that begins at the file's number, and that
        ends with this process."""
        if sys.platform != "linux":
            return
        with suppress(OSError):
            self._note = OwnDescriptor(open_note(path))
            fcntl.fcntl(self._note.number, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_WRLCK, number & _NUMBERS, 1))
