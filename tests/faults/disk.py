"""A small filesystem of the broker's own, to fill and to freeze: an image behind a loop device.

Not a tmpfs: that one would make every sync of the broker's free, and cannot be frozen.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_BYTES = 1 << 30
"""Twice what the broker's log may grow to before it is rolled over. The image is sparse, and so is the ballast."""
_COMMAND_TIMEOUT_S = 30


class SmallDisk:
    """Mounted at `path`. Blocking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int) -> None:
        """Leave so much, at once: others who write at the same time have to share it."""
        with self._ballast.open("ab") as ballast:
            size = self.free_bytes - leave_bytes
            if size > 0:
                os.posix_fallocate(ballast.fileno(), ballast.tell(), size)

    def empty(self) -> None:
        """Take back what fill() took."""
        self._ballast.unlink(missing_ok=True)

    def freeze(self) -> None:
        """From now on whoever writes or syncs hangs, as on a disk that does not answer; SIGKILL does not end it."""
        _run("fsfreeze", "--freeze", self.path)

    def thaw(self) -> None:
        """Those who hang go on."""
        _run("fsfreeze", "--unfreeze", self.path)

    def release(self) -> None:
        """After a fault that was interrupted: what hangs on a frozen filesystem could not be ended."""
        with contextlib.suppress(subprocess.SubprocessError):  # it is not frozen
            self.thaw()
        self.empty()


@contextmanager
def small_disk(path: Path, image: Path) -> Iterator[SmallDisk | None]:
    """A new filesystem at `path`. None, and a printed line that says why, where we may not mount one or freeze it."""
    path.mkdir(parents=True, exist_ok=True)
    disk = SmallDisk(path)
    with contextlib.ExitStack() as stack:
        stack.callback(image.unlink, missing_ok=True)
        mounted = False
        try:
            image.touch()
            os.truncate(image, SIZE_BYTES)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", image)
            _run("mount", "-o", "loop", image, path)
            mounted = True
            stack.callback(_unmount, disk)
            disk.freeze()
            disk.thaw()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            print(f"left out: faults of the broker's filesystem, which cannot be mounted here ({said.strip()})")
            if mounted:
                stack.close()
            yield None
        else:
            yield disk


def _unmount(disk: SmallDisk) -> None:
    disk.release()
    # Lazily: a process that is on its way out may still be in there.
    _run("umount", "--lazy", disk.path)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
