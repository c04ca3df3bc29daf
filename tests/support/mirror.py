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
    """None: apt's sources name none, as on another distribution. Raises NotPossibleHere if there is no apt."""
    if shutil.which("apt-get") is None:
        raise NotPossibleHere("this machine has no apt, whose mirror of Debian is needed")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True
    )
    debians = (uri for uri in listed.stdout.split() if urlsplit(uri).path.rstrip("/").endswith("/debian"))
    return next(debians, None)


def require_release(mirror: str, release: str) -> None:
    """Raises NotPossibleHere, with the reason, unless the mirror answers and has the release."""
    with TemporaryDirectory() as directory:
        command = [_APT_HELPER, "download-file", f"{mirror.rstrip('/')}/dists/{release}/InRelease", f"{directory}/file"]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        # Newer apt writes the word out.
        failures = re.findall(r"^(?:E|Error): (.*)", tried.stderr, re.MULTILINE)
        said = failures[0] if failures else f"exit status {tried.returncode}"
        raise NotPossibleHere(f"Debian's mirror does not give us its release {release}: {said}")
