"""Whether DBOS and Restate can be had on this machine. What npm has is fetched once, as the lock beside it says."""

import hashlib
import platform
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

FETCH_TIMEOUT_S: Final = 180.0
RESTATE: Final = Path(__file__).parent / "restate"
"""A project of npm: the handlers, Restate's SDK and driver, and its server, which a package of npm carries."""
_SERVERS: Final = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}


class CannotBeHad(Exception):
    """The text says what is missing."""


def require_package(name: str) -> None:
    """Raises CannotBeHad where this Python package is not installed."""
    if find_spec(name) is None:
        raise CannotBeHad(f"the Python package {name} is not installed; `make bench` installs it")


def installed_restate(directory: Path) -> Path:
    """The project's copy in this directory, with its packages. Raises CannotBeHad where npm cannot fetch them."""
    name = _SERVERS.get(platform.machine())
    if name is None:
        raise CannotBeHad(f"it has no server for {platform.machine()}")
    lock = (RESTATE / "package-lock.json").read_bytes()
    place = directory / f"restate-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not server_of(place).exists():
        _install(directory, place)
    shutil.copy(RESTATE / "application.mjs", place)
    return place


def server_of(place: Path) -> Path:
    """The program, in a directory that `installed_restate` has returned."""
    name = _SERVERS[platform.machine()]
    return place / "node_modules" / "@restatedev" / f"restate-server-{name}" / "bin" / "restate-server"


def _install(directory: Path, place: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise CannotBeHad("npm, which has its server, is not installed")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as name:
        fresh = Path(name) / "fresh"
        fresh.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copy(RESTATE / file, fresh)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=True)
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or ["it said nothing"]
            raise CannotBeHad(f"npm cannot fetch its packages: {said[0]}") from error
        except (subprocess.TimeoutExpired, OSError) as error:
            raise CannotBeHad(f"npm cannot fetch its packages: {error}") from error
        if not server_of(fresh).exists():
            raise CannotBeHad("npm has fetched its packages without the server")
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
