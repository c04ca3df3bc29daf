"""A PostgreSQL with a synchronous standby, which is promoted when it dies, and whose place it takes then; and what is
done to the two."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from threading import Event
from time import monotonic

import psycopg

from coordinator.dev.servers.addresses import ACCOUNT, HOST
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.programs import require
from tests.faults.plan import Fault, Kind

WITHIN_S = 60.0
SENT_AFTER_S = 0.5
_FOLLOWS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"

_END_CLIENTS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Replica(PostgreSQL):
    """Begins as a copy of `source`, and streams from it; without one it begins empty."""

    source: PostgreSQL | None = None

    def follow(self, source: PostgreSQL) -> None:
        """Forget what it has; it is a standby from its next start on."""
        self.source = source
        rmtree(self.data, ignore_errors=True)

    def _prepare(self) -> None:
        if self.source is None or self.data.exists():
            super()._prepare()
            return
        program = require("postgres").resolve().with_name("pg_basebackup")
        source = f"postgresql://{ACCOUNT}:{ACCOUNT}@{HOST}:{self.source.port}/"
        self._make_data(program, f"--dbname={source}", "--pgdata=.", "--checkpoint=fast", "--wal-method=stream", "-R")

    def _probe(self) -> str:
        if self.source is None:
            return super()._probe()
        psycopg.connect(self.url, connect_timeout=5).close()
        return ""


class Replicas:
    """A primary and its standby. Blocking. Each commit waits for the standby, whichever of the two that is."""

    def __init__(self, directory: Path, databases: Sequence[str]) -> None:
        self.primary, self.standby = (Replica(directory / f"postgresql-{name}", databases) for name in ("a", "b"))
        self.ports = [self.primary.port, self.standby.port]

    def through_all(self, url: str, port: int) -> str:
        """The address of a server at a port, as that of both."""
        return url.replace(f"{HOST}:{port}/", ",".join(f"{HOST}:{each}" for each in self.ports) + "/")

    def start(self) -> None:
        """Both of them."""
        self.primary.start()
        self.standby.follow(self.primary)
        self.standby.start()
        for server in (self.primary, self.standby):
            _run(server, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            _run(server, "SELECT pg_reload_conf()")
        self.wait_synchronous()

    def wait_synchronous(self) -> None:
        """Return once commits wait for a standby that is there. Raises TimeoutError."""
        until = monotonic() + WITHIN_S
        while True:
            try:
                if _run(self.primary, _FOLLOWS) == 1:
                    return
            except psycopg.OperationalError:
                pass
            if monotonic() > until:
                raise TimeoutError(f"the standby was not synchronous within {WITHIN_S:g} s")
            Event().wait(0.1)

    def wait_for_none(self) -> None:
        """From now on no commit of the primary waits for the standby; that of the promoted one does."""
        _run(self.primary, "ALTER SYSTEM SET synchronous_standby_names = ''")
        _run(self.primary, "SELECT pg_reload_conf()")

    def promote(self) -> None:
        """The primary is dead: the standby takes its place. The old one follows it then, from a new copy.

        Raises TimeoutError.
        """
        until = monotonic() + WITHIN_S
        while _is_in_recovery(self.standby):
            if monotonic() > until:
                raise TimeoutError(f"the standby was not promoted within {WITHIN_S:g} s")
            # What is replayed meanwhile may remove what a statement sees, or a login, which is cancelled then. One that
            # waited for the promotion would have the replay wait for it, up to max_standby_streaming_delay.
            with suppress(psycopg.OperationalError):
                _run(self.standby, "SELECT pg_promote(false)")
            Event().wait(0.1)
        self.primary, self.standby = self.standby, self.primary
        self.primary.source = None

    def rebuild(self) -> None:
        """A standby for the one that was promoted."""
        self.standby.follow(self.primary)
        self.standby.start()
        self.wait_synchronous()

    def heal(self) -> None:
        """Both run."""
        for server in (self.primary, self.standby):
            server.resume()
            server.start()
        self.wait_synchronous()

    def stop(self) -> None:
        """None of them is left."""
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(PostgreSQL.kill, (self.standby, self.primary)))


async def strike_replicas(replicas: Replicas, fault: Fault) -> None:
    """Return once what it broke is mended. Raises TimeoutError where it does not mend."""
    match fault.kind:
        case Kind.KILL_REPLICA:
            await asyncio.to_thread(replicas.standby.kill)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(replicas.standby.start)
            await asyncio.to_thread(replicas.wait_synchronous)
        case _:
            if fault.kind is Kind.FAIL_OVER_ASYNCHRONOUS:
                # A commit that waited is with the standby a moment later.
                await asyncio.to_thread(replicas.wait_for_none)
                await asyncio.sleep(SENT_AFTER_S)
            if fault.kind is not Kind.FAIL_OVER:
                await asyncio.to_thread(replicas.standby.kill)
                await asyncio.sleep(fault.lasts_s / 2)
                # Whoever waits for the standby is cut off; what he has written is in this server alone.
                await asyncio.to_thread(_run, replicas.primary, _END_CLIENTS)
                await asyncio.sleep(fault.lasts_s / 2)
            await asyncio.to_thread(replicas.primary.kill)
            await asyncio.to_thread(replicas.standby.start)
            await asyncio.sleep(fault.lasts_s / 2)
            await asyncio.to_thread(replicas.promote)
            await asyncio.to_thread(replicas.rebuild)


def _is_in_recovery(server: PostgreSQL) -> bool:
    try:
        return bool(_run(server, "SELECT pg_is_in_recovery()"))
    except psycopg.OperationalError:
        return True


def _run(server: PostgreSQL, statement: str) -> object:
    with psycopg.connect(server.url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description is not None else None
        return None if row is None else row[0]
