"""A folder with a minimal Debian 13: root of an engine that is made here, and what stand-in images are built on."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from coordinator.dev.servers.process import tail
from coordinator.service.errors import ConfigurationError
from tests.support.machine import NotPossibleHere, require_mounts
from tests.support.mirror import mirror_of_apt, require_release

SUITE: Final = "trixie"
_CERTIFICATES: Final = Path("usr/local/share/ca-certificates")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S: Final = 1800.0
_OF_THE_NETWORK: Final = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
"""What of apt's settings says how this machine reaches its mirror."""


class Commands:
    """Runs commands one after the other, at the lowest priority, with their output in one log."""

    def __init__(self, log_path: Path, say: Callable[[str], None]) -> None:
        self.log_path = log_path
        self.say = say

    def run(self, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Raises ConfigurationError with the end of the log if it fails."""
        command = ["nice", "-n", "15", *map(str, argv)]
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=_TIMEOUT_S,
                check=False,
            )
        if done.returncode != 0:
            end = tail(self.log_path, offset=offset)
            raise ConfigurationError(f"{' '.join(command[3:])}: exit status {done.returncode}\n{end}")


def make_root(folder: Path, commands: Commands) -> None:
    """Make it, unless it is there already.

    Raises NotPossibleHere on a machine that does not let us, and ConfigurationError if it fails.
    """
    if (folder / ".made").exists():
        return
    require_mounts()
    mirror = _mirror()
    if shutil.which("debootstrap") is None:
        if shutil.which("apt-get") is None:
            raise NotPossibleHere("a Debian root is made by debootstrap, which is not installed")
        commands.run(["apt-get", "update", "-qq"])
        commands.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "debootstrap"])
    commands.say(f"making a root of Debian {SUITE}; the output is in {commands.log_path}")
    remove(folder, commands)
    # Its mounts are its own: if they were this machine's, one that somebody looks into at its end would stay.
    contained = ("unshare", "--mount", "--propagation", "private", "debootstrap")
    commands.run([*contained, "--variant=minbase", "--include=ca-certificates", SUITE, folder, *mirror], _environment())
    # Installed packages start nothing in there.
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (folder / "etc/dpkg/dpkg.cfg.d/lean").write_text(
        "force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n"
    )
    (folder / "etc/apt/apt.conf.d/90network").write_text(_apt_settings())
    # A proxy with an authority of its own is one that this machine trusts already.
    shutil.copytree(Path("/") / _CERTIFICATES, folder / _CERTIFICATES, dirs_exist_ok=True)
    chroot(folder, commands, "update-ca-certificates")
    (folder / ".made").touch()


def remove(folder: Path, commands: Commands) -> None:
    """Remove a root, and nothing that is mounted in it."""
    commands.run(["rm", "--recursive", "--force", "--one-file-system", folder])


def chroot(folder: Path, commands: Commands, *argv: str) -> None:
    """Run a command in it, with this machine's resolver. Raises ConfigurationError."""
    shutil.copy(Path("/etc/resolv.conf"), folder / "etc/resolv.conf")
    commands.run(["chroot", folder, *argv], _environment())


def _environment() -> dict[str, str]:
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return proxies | {"PATH": _PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def _mirror() -> list[str]:
    """The one that apt is configured with; none on another distribution: debootstrap knows one by itself."""
    mirror = mirror_of_apt() if shutil.which("apt-get") else None
    if mirror is None:
        return []
    require_release(mirror, SUITE)
    return [mirror]


def _apt_settings() -> str:
    if shutil.which("apt-config") is None:
        return ""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    return "".join(line + "\n" for line in dumped.stdout.splitlines() if line.startswith(_OF_THE_NETWORK))
