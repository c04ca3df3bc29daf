"""Applications on DBOS and Restate, each for the time of one run.

Both write to the database of the other alternatives. The load generator is that of this project's gateways.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from coordinator.dev.servers.ports import free_port
from tests.bench.durable.packages import installed_restate, require_package, server_of
from tests.bench.served import Served, fetched
from tests.bench.session import READY_TIMEOUT_S, ROOT, Session

PROGRAMS: Final = ROOT / ".dev" / "bench"
"""Where what npm has is kept from run to run."""
_UNDER_WAY: Final = "SELECT count(*) AS n FROM sys_invocation WHERE status <> 'completed'"


def dbos(form: str) -> "Serve":
    """One process, as `uvicorn` runs it; its tables are in a schema of the database that it writes to."""

    @contextmanager
    def serving(session: Session, database_url: str) -> Iterator[Served]:
        port = free_port()
        address = f"127.0.0.1:{port}"
        argv = [sys.executable, "-m", "tests.bench.durable.dbos_application", form, str(port)]
        settings = {"BENCH_DATABASE_URL": database_url}
        with session.process("dbos", argv, settings, f"http://{address}/under-way") as process:
            yield Served([address], {"gateway": [process.pid]}, lambda: int(fetched(f"http://{address}/under-way")))

    return serving


@contextmanager
def restate(session: Session, database_url: str) -> Iterator[Served]:
    """Its server, with a log of its own for the time of the run, and a process with the handlers."""
    handlers, ingress, admin, node = (free_port() for _ in range(4))
    installed = installed_restate(PROGRAMS)
    argv = ["node", str(installed / "application.mjs"), str(handlers)]
    settings = {"BENCH_DATABASE_URL": database_url}
    health = f"http://127.0.0.1:{admin}/health"
    with tempfile.TemporaryDirectory(dir=session.directory, prefix="restate-") as data, ExitStack() as stack:
        worker = stack.enter_context(session.process("restate-handlers", argv, settings))
        its_settings = server_settings(Path(data), ingress=ingress, admin=admin, node=node)
        server = stack.enter_context(
            session.process("restate-server", [str(server_of(installed))], its_settings, health)
        )
        _register(admin, handlers)
        pids = {"broker": [server.pid], "coordinator": [worker.pid]}
        yield Served([f"127.0.0.1:{ingress}"], pids, lambda: _restate_under_way(admin))


def _register(admin: int, handlers: int) -> None:
    """Restate asks the handlers what they are. Raises OSError when they do not answer within READY_TIMEOUT_S."""
    deployment = json.dumps({"uri": f"http://127.0.0.1:{handlers}"}).encode()
    deadline = monotonic() + READY_TIMEOUT_S
    while True:
        try:
            fetched(f"http://127.0.0.1:{admin}/deployments", deployment)
        except OSError:
            if monotonic() > deadline:
                raise
            sleep(0.05)
        else:
            return


def server_settings(data: Path, *, ingress: int, admin: int, node: int) -> dict[str, str]:
    """A server of one node on loopback. Its log is synced at each write, which is its default."""
    return {
        "RESTATE_BASE_DIR": str(data),
        "RESTATE_NODE_NAME": "bench",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        # One row is written to, and so one partition: it spares the server the upkeep of 23 more.
        "RESTATE_DEFAULT_NUM_PARTITIONS": "1",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
    }


def _restate_under_way(admin: int) -> int:
    rows = json.loads(fetched(f"http://127.0.0.1:{admin}/query", json.dumps({"query": _UNDER_WAY}).encode()))["rows"]
    return int(rows[0]["n"])


Serve = Callable[[Session, str], AbstractContextManager[Served]]
SERVED_BY: Final[dict[str, Serve]] = {
    "restate": restate,
    "dbos": dbos("step"),
    "dbos-transaction": dbos("transaction"),
}
REQUIRED_BY: Final[dict[str, Callable[[], object]]] = {
    "restate": lambda: installed_restate(PROGRAMS),
    "dbos": lambda: require_package("dbos"),
    "dbos-transaction": lambda: require_package("dbos"),
}
"""Each raises CannotBeHad where this machine has not what it takes."""
