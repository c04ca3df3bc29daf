"""An engine of our own, where the machine has none: Debian's dockerd in a root of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from coordinator.dev.servers.process import Process
from coordinator.service.errors import ConfigurationError
from tests.engine.debian import Commands, chroot, make_root, remove
from tests.engine.network import alone_in_this_network, network_as_before
from tests.support.machine import require, require_mounts, require_networks
from tests.support.system import wait_until

_PACKAGES: Final = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables")
_PROGRAMS: Final = {
    "docker": "usr/bin/docker",
    "cli-plugins/docker-compose": "usr/libexec/docker/cli-plugins/docker-compose",
    "cli-plugins/docker-buildx": "usr/libexec/docker/cli-plugins/docker-buildx",
}
"""What is called from outside the root, and where it is in there."""
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0
# The daemon gets mounts of its own, and the root as its `/`. Network, processes and control groups are this machine's.
_START: Final = """
set -eu
root=$1 folder=$2
mount --bind "$root" "$root"
mkdir -p "$root/old" "$root$folder"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount --bind "$folder" "$root$folder"
cd "$root"
pivot_root . old
umount -l /old
exec /usr/sbin/dockerd --data-root "$folder/data" --exec-root "$folder/exec" --host "unix://$folder/docker.sock" \
    --pidfile "$folder/docker.pid"
"""


@contextmanager
def made_engine(folder: Path, commands: Commands) -> Iterator[Mapping[str, str]]:
    """Make it in the folder if it is not there, run it, and yield the environment in which `docker` reaches it.

    Raises NotPossibleHere on a machine that does not let us, and ConfigurationError if it fails.
    """
    require_mounts()
    require_networks()
    with alone_in_this_network():
        root = folder / "root-engine"
        if not (root / ".engine").exists():
            base = folder / "root"
            make_root(base, commands)
            remove(root, commands)
            commands.run(["cp", "--archive", "--one-file-system", base, root])
            chroot(root, commands, "apt-get", "update", "-qq")
            commands.say(f"installing {' '.join(_PACKAGES)} there")
            chroot(root, commands, "apt-get", "install", "--no-install-recommends", "-qq", "-y", *_PACKAGES)
            (root / ".engine").touch()
        require(["unshare", "--net", "chroot", root, "iptables", "--table", "nat", "--list"], "there is no NAT")
        shutil.copy(Path("/etc/resolv.conf"), root / "etc/resolv.conf")
        environment = dict(os.environ) | {
            "PATH": f"{_write_programs(root, folder / 'bin')}:{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": str(folder / "bin"),
            # Its published ports are on our loopback, also where testcontainers takes this machine for a container.
            "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        }
        with network_as_before(root), _dockerd(root, folder, environment):
            yield environment


@contextmanager
def _dockerd(root: Path, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    daemon = Process(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh", root, folder],
        log_path=folder / "dockerd.log",
        environment={name: value for name, value in environment.items() if name != "DOCKER_HOST"}
        | {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        death_signal=signal.SIGTERM,
    )
    try:
        wait_until(lambda: not daemon.alive or _answers(environment), "dockerd answers", daemon, _START_TIMEOUT_S)
        if not daemon.alive:
            raise ConfigurationError(f"dockerd does not run on this machine: {daemon.status}\n{daemon.log_tail()}")
        yield
    finally:
        # It stops its containers; their volumes and images stay.
        daemon.stop(signal.SIGTERM, _STOP_TIMEOUT_S)


def _write_programs(root: Path, folder: Path) -> Path:
    """Scripts that run the root's programs in this machine's file system, by the root's own C library."""
    for name, inside in _PROGRAMS.items():
        program = folder / name
        program.parent.mkdir(parents=True, exist_ok=True)
        loader = next(root.glob("usr/lib64/ld-linux-*.so.*"), None) or next(root.glob("usr/lib/ld-linux-*.so.*"))
        libraries = next(root.glob("usr/lib/*-linux-gnu"))
        program.write_text(f'#!/bin/sh\nexec "{loader}" --library-path "{libraries}" "{root / inside}" "$@"\n')
        program.chmod(0o755)
    return folder


def _answers(environment: Mapping[str, str]) -> bool:
    return (
        subprocess.run(["docker", "version"], env=environment, capture_output=True, check=False, timeout=10).returncode
        == 0
    )
