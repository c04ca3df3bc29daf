"""Room on a disk that is given up when the disk is full, since freeing room takes some room itself."""

import os
import sys
from contextlib import suppress
from pathlib import Path


class Reserve:
    """A file without content. Used within one thread at a time."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self.size_bytes = size_bytes
        self.is_kept = path.is_file() and path.stat().st_size == size_bytes

    def keep(self) -> bool:
        """Create it, if the disk has room for twice as much; return whether it is there.

        Twice, since otherwise it would at once take back the room that it was given up for.
        """
        if not self.is_kept:
            try:
                self._allocate()
                self.is_kept = True
            except OSError:
                self.give_up()
        return self.is_kept

    def give_up(self) -> None:
        self.is_kept = False
        # On a file system that only reads it stays, and helps nobody.
        with suppress(OSError):
            self._path.unlink()

    def _allocate(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "linux":
                os.posix_fallocate(file, 0, 2 * self.size_bytes)
            else:
                os.write(file, bytes(2 * self.size_bytes))
            os.ftruncate(file, self.size_bytes)
            os.fsync(file)
        finally:
            os.close(file)
