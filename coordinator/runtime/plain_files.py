"""Reading the files that settings name.

Only plain files are read: opening a named pipe waits for somebody who writes to it, for ever, and a process that starts
would stand there without a word. A link is followed, as Kubernetes makes them of secrets.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NoPlainFile(OSError):
    """Raised for what is no plain file, such as a pipe or a device."""

    def __init__(self) -> None:
        super().__init__("it is no plain file")
        self.strerror = "it is no plain file"


def open_plain_file(path: str | Path) -> BinaryIO:
    """Open a file to read it. Raises OSError, and ValueError for a path that no system takes."""
    # Without waiting: of a pipe it is then known what it is.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise NoPlainFile


def read_plain_file(path: str | Path, bytes_max: int) -> bytes:
    """The first bytes of a file, at most so many. Raises OSError, and ValueError for a path that no system takes."""
    with open_plain_file(path) as file:
        return file.read(bytes_max)


def text_in(content: bytes) -> str:
    """The text in UTF-8 of a file that has one line, without that line's end, and without the mark that some editors
    put before a text (U+FEFF), which nobody sees. Raises ValueError for other bytes."""
    return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")


def is_readable_file(path: str) -> bool:
    """Whether a library may be given this path to read: it names a plain file, which this process may read."""
    return Path(path).is_file() and os.access(path, os.R_OK)
