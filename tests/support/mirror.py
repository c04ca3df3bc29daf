"""The mirror of Debian that this machine's apt uses."""

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from tests.support.machine import NotPossibleHere

_APT_HELPER: Final = Path("/usr/lib/apt/apt-helper")
"""It downloads as apt does, through the same proxy."""


def mirror_of_apt() -> str | None:
    """None: apt's sources name none, as on another distribution. On a new machine apt reads its lists first.

    Raises NotPossibleHere if there is no apt, or if it cannot read them.
    """
    if shutil.which("apt-get") is None:
        raise NotPossibleHere("this machine has no apt, whose mirror of Debian is needed")
    addresses = _listed()
    if not addresses:
        update = ["apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any"]
        updated = subprocess.run(update, capture_output=True, text=True, check=False)
        if updated.returncode != 0:
            raise NotPossibleHere(f"apt cannot read its lists: {_said(updated)}")
        addresses = _listed()
    return next((address for address in addresses if urlsplit(address).path.rstrip("/").endswith("/debian")), None)


def _listed() -> list[str]:
    """The mirrors whose lists apt has downloaded. It tells of no others."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def require_release(mirror: str, release: str) -> None:
    """Raises NotPossibleHere, with the reason, unless the mirror answers and has the release."""
    with TemporaryDirectory() as directory:
        command = [
            str(_APT_HELPER),
            "download-file",
            f"{mirror.rstrip('/')}/dists/{release}/InRelease",
            f"{directory}/file",
        ]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise NotPossibleHere(f"Debian's mirror does not give us its release {release}: {_said(tried)}")


def _said(failed: "subprocess.CompletedProcess[str]") -> str:
    """The first error of apt's. Newer ones write the word out."""
    errors = re.findall(r"^(?:E|Error): (.*)", failed.stderr, re.MULTILINE)
    return errors[0] if errors else f"exit status {failed.returncode}"
