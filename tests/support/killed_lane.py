"""A lane of the ledger on a file of SQLite, in a process that can be killed."""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from coordinator.client.writes import WriteOptions, execute
from coordinator.dev.servers.process import Process
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from coordinator.worker.inprocess import InProcessWrites
from tests.support.forks import Forks
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.system import wait_until

WITHIN_S = 30.0
_RUNS = "it runs, and has done what it was to do"


class KilledLane:
    """May be started again and again."""

    def __init__(self, forks: Forks, path: Path, log_path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._forks = forks
        self._log_path = log_path
        self._process: Process | None = None

    def start(self, *owners: str) -> str | None:
        """Why it does not start; None: it runs, and has opened these accounts one after the other."""
        process = self._forks.run([__name__, str(self.path), *owners], self._log_path, {})
        self._process = process
        wait_until(lambda: not process.alive or _RUNS in process.log_tail(2), "it runs or ends", process, WITHIN_S)
        return None if process.alive else process.log_tail(2)

    def stop(self) -> None:
        """End it: what is in the log comes into the file."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(signal.SIGTERM, WITHIN_S)

    def kill(self) -> None:
        """Leave the log as it is."""
        assert self._process is not None
        self._process.kill()

    def run(self, *owners: str) -> None:
        """Open accounts, and stop."""
        said = self.start(*owners)
        assert said is None, said
        self.stop()

    def owners(self) -> Sequence[str]:
        """Of all accounts, as a process that starts now finds them, and leaves them."""
        self.run()
        with closing(sqlite3.connect(self.path)) as connection:
            return [owner for (owner,) in connection.execute("SELECT owner FROM accounts ORDER BY id")]

    @property
    def log(self) -> bytes:
        """What is in it now."""
        return Path(f"{self.path}-wal").read_bytes()


async def _serve(path: str, owners: Sequence[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with InProcessWrites({"ledger": open_store(f"sqlite:///{path}", LEDGER)}, [LEDGER]) as writes:
        for owner in owners:
            await execute(writes, OpenAccount(owner=owner), Account, WriteOptions())
        print(_RUNS, flush=True)
        await stop.wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(sys.argv[1], sys.argv[2:]))
    except ConfigurationError as refused:
        sys.exit(str(refused))
