"""The system of compose.yaml, driven as an operator does: by `docker compose`, and by its published ports."""

import json
import os
import signal
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from coordinator.dev.servers.ports import free_port
from tests.support.compose_file import COMPOSE_FILE
from tests.support.system import wait_until

_PORTS: Final = (
    "OPERATIONS",
    "USERS",
    "ITEMS",
    "PAYMENTS",
    "SANDBOX",
    "AMQP",
    "POSTGRESQL",
    "MYSQL",
    "MONGODB",
    "REDIS",
)
_TIMEOUT_S: Final = 600.0
# The main process is the only child of `init`. What Docker itself kills it would not start again.
_KILL_MAIN: Final = """
import os, signal
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        stat = open(f"/proc/{pid}/stat").read()
    except OSError:
        continue
    if stat.rpartition(")")[2].split()[1] == "1":
        os.kill(int(pid), signal.SIGKILL)
"""
# The container ends with its process, and what is executed in it may be killed by that before it has ended.
_KILLED_WITH_ITS_CONTAINER: Final = 128 + signal.SIGKILL
_ASK: Final = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


class Composed:
    """One project of Compose, with ports and volumes of its own."""

    project = "write-coordinator-tests"

    def __init__(self, *overlays: Path) -> None:
        """The `overlays` are laid over compose.yaml."""
        self._overlays = overlays
        self._ports = {name: free_port() for name in _PORTS}
        self._environment = (
            dict(os.environ)
            | {f"DEV_{name}_PORT": str(port) for name, port in self._ports.items()}
            | {name: str(free_port()) for name in ("RABBITMQ_MANAGEMENT_PORT", "BROKER_PORT")}
            | {"RABBITMQ_ERLANG_COOKIE": token_hex()}
        )

    def url(self, service: str) -> str:
        """Where a service is published."""
        return f"http://127.0.0.1:{self._ports[service.upper()]}"

    def set(self, name: str, value: str) -> None:
        """Set a variable of the files, from the next command on."""
        self._environment[name] = value

    def compose(self, *arguments: str, file: Path = COMPOSE_FILE) -> str:
        """Run `docker compose`, and return what it prints."""
        place = ("--project-name", self.project, "--project-directory", str(COMPOSE_FILE.parent))
        files = (part for each in (file, *self._overlays) for part in ("--file", str(each)))
        return self.docker("compose", *place, *files, *arguments)

    def up(self, *arguments: str) -> None:
        """Return when everything is healthy."""
        self.compose("up", "--detach", "--wait", *arguments)

    def containers(self, service: str) -> list[str]:
        """The ids of those that run, or are about to."""
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """All that Docker knows of a container."""
        [found] = json.loads(self.docker("inspect", container))
        return dict(found)

    def ask(self, container: str, url: str) -> str:
        """What a process answers inside its container."""
        return self.docker("exec", container, "python", "-c", _ASK, url)

    def active(self, lane: str) -> str:
        """The container of the coordinator that has the lane."""
        for container in self.containers(f"{lane}-coordinator"):
            try:
                metrics = self.ask(container, "http://127.0.0.1:9100/metrics").splitlines()
            except AssertionError:  # it was killed, and is not up again
                continue
            epochs = [line.rpartition(" ")[2] for line in metrics if line.startswith("coordinator_lane_epoch{")]
            if any(float(epoch) > 0 for epoch in epochs):
                return container
        raise AssertionError(f"nobody has lane {lane}")

    def kill(self, container: str) -> None:
        """SIGKILL its process, as a crash does: Docker starts it again."""
        command = ["docker", "exec", container, "python", "-c", _KILL_MAIN]
        run(command, self._environment, (0, _KILLED_WITH_ITS_CONTAINER))

    def wait_restarted(self, container: str) -> None:
        """Return when a container that was killed is healthy again."""

        def is_healthy() -> bool:
            found = self.inspect(container)
            return bool(found["RestartCount"]) and found["State"]["Health"]["Status"] == "healthy"

        wait_until(is_healthy, f"{container} runs again", timeout_s=90)

    def remove(self) -> None:
        """Containers and data."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def docker(self, *arguments: str) -> str:
        """Run `docker`, and return what it prints."""
        return run(["docker", *arguments], self._environment)


def run(command: Sequence[str], environment: dict[str, str], succeeded: Collection[int] = (0,)) -> str:
    """Its output. Where it ends with another exit status, the test fails, with all that it said."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode in succeeded, (
        f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout
