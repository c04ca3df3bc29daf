"""The reference system in one process, as `make monolith` runs it, in a folder of a test's own."""

import os
import re
import signal
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from tests.support.callers import HEADERS, KEY
from tests.support.servers import REFERENCE_APP
from tests.support.system import wait_until

ROOT: Final = Path(__file__).parents[2]
STARTED: Final = "Ctrl-C stops it"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
SERVICES: Final = ("users", "items", "payments")


class Monolith:
    """It may be started again and again. All services are at `url`, and so `urls` has it for each."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.process: Process | None = None
        self.starts = 0
        ports = {name: free_port() for name in ("GATEWAY", "OPERATIONS", "SANDBOX")}
        self.url = f"http://127.0.0.1:{ports['GATEWAY']}"
        self.urls = dict.fromkeys(SERVICES, self.url)
        self.urls |= {name.lower(): f"http://127.0.0.1:{ports[name]}" for name in ("OPERATIONS", "SANDBOX")}
        self.settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **{f"DEV_{name}_PORT": str(port) for name, port in ports.items()},
            **settings,
        }

    def start(self) -> str:
        """What it says, once it is ready."""
        self.starts += 1
        log_path = self.folder / f"monolith-{self.starts}.log"
        command = [sys.executable, "-m", "coordinator", "dev", REFERENCE_APP]
        process = self.process = Process(command, log_path=log_path, environment=self.settings, directory=self.folder)
        wait_until(
            lambda: not process.alive or STARTED in log_path.read_text(), "it is ready", process, START_TIMEOUT_S
        )
        assert process.alive, log_path.read_text()
        return log_path.read_text()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int | None:
        """Its exit status."""
        assert self.process is not None
        self.process.stop(number, STOP_TIMEOUT_S)
        return self.process.exit_status

    def admit_caller(self) -> None:
        """Have it know the key of the tests' caller. Return once it does."""
        elsewhere = self.settings.get("DEV_ELSEWHERE", "").split()
        KEY.give_to({service: self.owner(service) for service in SERVICES if service not in elsewhere})
        wait_until(lambda: self.lets_in(HEADERS), "the key counts", self.process)

    def lets_in(self, headers: dict[str, str]) -> bool:
        """Whether it knows who asks so."""
        asked = urllib.request.Request(f"{self.url}/schemas", headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=30):
                return True
        except urllib.error.HTTPError as error:
            return error.code != HTTPStatus.UNAUTHORIZED

    def owner(self, service: str) -> str:
        """The address of its database."""
        return self.environment[f"{service.upper()}_DATABASE_URL"]

    @property
    def environment(self) -> dict[str, str]:
        """What `source .dev/env` brings."""
        return dict(re.findall(r"export (\w+)='(.*)'", (self.folder / ".dev" / "env").read_text()))

    @property
    def headers(self) -> dict[str, str]:
        """Of the developer, who has every scope."""
        return {"Authorization": f"Bearer {self.environment['DEV_KEY']}"}

    def rows(self, service: str, query: str) -> Sequence[Any]:
        """What is in a service's file."""
        path = self.folder / ".dev" / "data" / f"{service}.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()
