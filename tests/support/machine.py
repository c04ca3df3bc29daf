"""What a machine may refuse even to root, as containers of CI often do: mounts, and networks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from coordinator.service.errors import ConfigurationError

_MOUNTS: Final = 'mount -t proc proc "$1" && umount "$1" && mount -t tmpfs tmpfs "$1" && mknod "$1/null" c 1 3'
# 0x89a0 is SIOCBRADDBR: it adds a bridge.
_BRIDGE: Final = "import fcntl, socket; fcntl.ioctl(socket.socket(socket.AF_INET), 0x89A0, b'probe\\0')"


class NotPossibleHere(ConfigurationError):
    """This machine lacks the rights or the means. Where they are there and something fails, that is another error."""


def require_mounts() -> None:
    """Raises NotPossibleHere unless we may mount and make devices, in namespaces of our own."""
    if os.geteuid() != 0:
        raise NotPossibleHere("only root may mount: run it as root, or with sudo")
    with TemporaryDirectory() as directory:
        script = ["sh", "-c", _MOUNTS, "sh", directory]
        require(["unshare", "--mount", "--pid", "--fork", "--propagation", "private", *script], "root may not mount")


def require_networks() -> None:
    """Raises NotPossibleHere unless we may make a bridge, and control groups."""
    require(["unshare", "--net", sys.executable, "-c", _BRIDGE], "root may not make a bridge")
    if not os.access("/sys/fs/cgroup", os.W_OK):
        raise NotPossibleHere("root may not make control groups here: /sys/fs/cgroup cannot be written")


def require(command: Sequence[str | Path], otherwise: str) -> None:
    """Raises NotPossibleHere unless a command succeeds."""
    if shutil.which(command[0]) is None:
        raise NotPossibleHere(f"this machine has no program {command[0]}")
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        said = tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"]
        raise NotPossibleHere(f"{otherwise} here: {said[-1]}")
