"""Reading the files that settings name.

Only plain files are read: opening a named pipe waits for somebody who writes to it, for ever, and a process that starts
would stand there without a word. A link is followed, as Kubernetes makes them of secrets.
"""

import errno
import os
import stat
from pathlib import Path


class NoPlainFile(OSError):
    """Raised for what is no plain file, such as a pipe or a device."""

    def __init__(self) -> None:
        super().__init__("it is no plain file")
        self.strerror = "it is no plain file"


def read_plain_file(path: str | Path, bytes_max: int) -> bytes:
    """The first bytes of a file, at most so many. Raises OSError, and ValueError for a path that no system takes."""
    # Without waiting: of a pipe it is then known what it is.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise NoPlainFile
        return file.read(bytes_max)


def is_readable_file(path: str) -> bool:
    """Whether a library may be given this path to read: it names a plain file, which this process may read."""
    return Path(path).is_file() and os.access(path, os.R_OK)
