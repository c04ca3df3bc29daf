"""The programs of the servers, and their installation on a Debian or Ubuntu machine."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.dev.servers.addresses import COMPOSE_FILE, Wanted
from coordinator.dev.servers.process import Process, tail
from coordinator.dev.servers.programs import STAND_IN, find
from coordinator.service.errors import ConfigurationError

_TIMEOUT_S = 900.0
_TERMINATE_TIMEOUT_S = 5.0
# A package's scripts start its server unless a policy forbids it; a policy that exists already is not ours. A new
# package's server also starts at boot unless a preset forbids it; packages that are installed already keep their state.
# The preset covers services and sockets; a timer (logrotate's) may serve other programs too. Its folder may be missing.
# An init of SysV's knows no presets, so the new ones of its scripts are turned off.
# One installation waits for another, which would remove the policy under it at its end, and dpkg for other programs.
# The lock is a file of root's, in a folder of root's: whoever may open a file may keep it locked for ever.
_SCRIPT = """\
set -e
PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
policy=/usr/sbin/policy-rc.d
preset=/etc/systemd/system-preset/00-write-coordinator.preset
scripts=/etc/init.d
lock=/run/write-coordinator-install.lock
(umask 077; : >> "$lock")
exec 9< "$lock"
flock -w 600 9 || {
    echo "another installation has had $lock for 600 s: wait for it, or end it (fuser $lock)" >&2
    exit 1
}
made=""
before=" $(echo "$scripts"/*) "
at_end() {
    for script in "$scripts"/*; do
        case "$before" in *" $script "*) continue ;; esac
        ! command -v update-rc.d > /dev/null || update-rc.d "${script##*/}" disable || true
    done
    rm -f $made
    rmdir "${preset%/*}" 2> /dev/null || true
}
trap at_end EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
    made="$policy"
    printf '#!/bin/sh\\nexit 101\\n' > "$policy"
    chmod 755 "$policy"
fi
mkdir -p "${preset%/*}"
made="$made $preset"
printf 'disable *.service\\ndisable *.socket\\n' > "$preset"
export DEBIAN_FRONTEND=noninteractive
install() {
    apt-get install -o DPkg::Lock::Timeout=600 --no-install-recommends -y "$@" 9<&-
}
install "$@" || {
    apt-get update
    install "$@"
}
"""


@dataclass(frozen=True, slots=True)
class NeededProgram:
    """A program that a server needs. It is installed if one of `names` is found."""

    names: tuple[str, ...]
    package: str | None
    server: str | None = None
    """The kind of server that needs it."""


PROGRAMS = (
    NeededProgram(("rabbitmq-server",), "rabbitmq-server", "rabbitmq"),
    NeededProgram(("epmd",), "rabbitmq-server", "rabbitmq"),
    NeededProgram(("postgres",), "postgresql", "postgresql"),
    NeededProgram(("mariadbd", "mysqld"), "mariadb-server", "mysql"),
    NeededProgram(("redis-server", "valkey-server"), "redis-server", "redis"),
    NeededProgram(("mongod", STAND_IN), None, "mongodb"),  # Debian has neither; the stand-in is a Python package
)


def needed(wanted: Wanted) -> tuple[NeededProgram, ...]:
    """The programs of the servers that are wanted."""
    return tuple(program for program in PROGRAMS if program.server in (wanted.broker, *wanted.kinds))


def missing(programs: Sequence[NeededProgram] = PROGRAMS) -> list[NeededProgram]:
    """The programs that are missing, both on PATH and where Debian puts them."""
    return [program for program in programs if find(*program.names) is None]


class Installation:
    """Installs the missing programs with apt, as root or by a sudo that asks for no password."""

    def __init__(
        self, say: Callable[[str], None], log_path: Path, programs: Sequence[NeededProgram] = PROGRAMS
    ) -> None:
        self._say = say
        self._programs = programs
        self._log_path = log_path
        self._apt: Process | None = None

    def run(self) -> None:
        """Return when every program is there. Idempotent.

        Raises ConfigurationError, which names the programs and the command that installs them, if it cannot install
        them.
        """
        absent = missing(self._programs)
        if not absent:
            return
        packages = _packages(absent)
        become_root = _become_root()
        if not packages or shutil.which("apt-get") is None or become_root is None:
            raise ConfigurationError(_advice(absent))
        self._say(f"installing {' '.join(packages)} with apt-get; its output is in {self._log_path}")
        command = [*become_root, "/bin/sh", "-c", _SCRIPT, "sh", *packages]
        self._apt = Process(command, log_path=self._log_path)
        self._apt.wait(_TIMEOUT_S)
        self.kill()
        absent = missing(self._programs)
        if absent:
            end = tail(self._log_path)
            raise ConfigurationError(f"{_advice(absent)}\nthe end of {self._log_path}:\n{end}")

    def kill(self) -> None:
        """Interrupt run(). apt goes on from there when it is run again."""
        # Under sudo the process is root's, and we may not signal it: it ends by itself.
        with contextlib.suppress(PermissionError):
            if self._apt is not None:
                self._apt.stop(signal.SIGTERM, _TERMINATE_TIMEOUT_S)


def _packages(absent: list[NeededProgram]) -> list[str]:
    return sorted({program.package for program in absent if program.package})


def _become_root() -> list[str] | None:
    """The words before a command that needs root; None if we cannot become root without a password."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def _advice(absent: list[NeededProgram]) -> str:
    lines = [f"not installed: {', '.join(' or '.join(program.names) for program in absent)}"]
    packages = _packages(absent)
    if packages:
        command = f"apt-get update && apt-get install --no-install-recommends -y {' '.join(packages)}"
        lines.append(f"on Debian or Ubuntu, as root: {command}")
    if any(program.package is None for program in absent):
        lines.append("for mongod: pip install 'write-coordinator[mongodb-stand-in]', or install MongoDB")
    # Elsewhere than in a checkout there is neither that target nor the containers.
    if COMPOSE_FILE.is_file() and not set(absent).isdisjoint(PROGRAMS):
        lines.append("or start Docker, and use `make run SERVERS=docker`")
    return "\n".join(lines)
