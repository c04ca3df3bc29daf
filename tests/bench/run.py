"""One run of one row: start what it needs, load it, measure, verify."""

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.context import ForkServerContext
from time import monotonic, sleep
from typing import Any

from tests.bench.backlog import run_backlog
from tests.bench.clients import process as client_process
from tests.bench.clients.spec import Spec, Window
from tests.bench.cpu import CpuMeter
from tests.bench.databases import BenchDatabase
from tests.bench.durable.serving import SERVED_BY
from tests.bench.invariants import State, verify
from tests.bench.measurement import ClientResult, Measurement, measured
from tests.bench.rows import TOO_SHORT, Row, RunFailed
from tests.bench.served import Served
from tests.bench.service import LANES
from tests.bench.session import Session
from tests.bench.workers.command_lines import worker_of

READY_TIMEOUT_S = 60.0
RESULT_TIMEOUT_S = 90.0
FILL_TIMEOUT_S = 900.0
_LEAD_S = 0.05
_PRELOADED = [
    "uvloop",
    "tests.bench.clients.process",
    "tests.bench.clients.lane_writes",
    "tests.bench.clients.postgresql",
    "tests.bench.clients.mariadb",
    "tests.bench.clients.mongodb",
]


class Runner:
    """Runs rows, one at a time. Client processes are forked from one that has imported what they need."""

    def __init__(self, session: Session, duration_s: float, warm_s: float) -> None:
        self._session = session
        self._duration_s = duration_s
        self._warm_s = warm_s
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._found: dict[str, State] = {}
        self._numbers = iter(range(1, 1_000_000))

    def run(self, row: Row, repeat: int, duration_s: float | None = None) -> Measurement:
        """One run, with a window of this length if it is given. Raises RunFailed, and whatever a start raises."""
        session = self._session
        if row.method == "backlog":
            self._found.clear()
            return run_backlog(self, session, row, repeat)
        number = next(self._numbers)
        with ExitStack() as stack:
            database = session.database(row.database, row.lane)
            traced = {} if row.traced_share is None else session.trace_settings(row.traced_share)
            settings = row.lane_settings | traced | session.broker_settings(is_on_redis=row.is_on_redis)
            groups: dict[str, list[int]] = {"database": session.server_of(row.database).pids}
            if row.lane is not None and row.method != "lane-alone":
                groups["coordinator"] = [session.lane(row.lane, row.database, settings).pid]
            addresses: list[str] = []
            served = None
            if row.gateway_mode is not None:
                served = stack.enter_context(
                    SERVED_BY[row.gateway_mode](session, database.url)
                    if row.gateway_mode in SERVED_BY
                    else session.gateways(row.gateway_mode, row.gateways, row.database, row.lane, traced)
                )
                addresses = served.addresses
                groups |= served.pids
            directory = session.directory / f"run-{number}"
            directory.mkdir()
            if row.worker is not None:
                argv, own = worker_of(row.worker, database.url, directory, session.environment)
                groups["coordinator"] = [stack.enter_context(session.worker(argv, own)).pid]
            groups["broker"] = [*groups.get("broker", []), *session.broker_pids]
            database.tidy()
            specs = [
                self._spec(row, index, number, repeat, database, addresses, str(directory))
                for index in range(row.clients)
            ]
            return self._load(row, specs, groups, database, served, duration_s or self._duration_s)

    def fill(self, row: Row, repeat: int) -> ClientResult:
        """Put the backlog's commands into the queue of a row's lane, without waiting for outcomes."""
        session, number = self._session, next(self._numbers)
        spec = Spec(
            method="lane",
            workload=row.workload,
            environment=session.environment,
            target=row.lane or "",
            concurrency=row.concurrency,
            total=session.backlog,
            seed=repeat * 100,
            run=f"r{number}",
        )
        with self._clients([spec]) as (client,):
            client.receive(READY_TIMEOUT_S)
            start = monotonic()
            client.pipe.send(Window(start, start, start + FILL_TIMEOUT_S))
            result = client.receive(FILL_TIMEOUT_S + RESULT_TIMEOUT_S)
        assert isinstance(result, ClientResult)
        return result

    def _spec(
        self,
        row: Row,
        index: int,
        number: int,
        repeat: int,
        database: BenchDatabase,
        addresses: list[str],
        directory: str,
    ) -> Spec:
        target = database.url
        if row.method == "lane":
            target = row.lane or LANES[row.database]
        elif addresses:
            target = ",".join(addresses)
        return Spec(
            method=row.method,
            workload=row.workload,
            environment=self._session.environment | self._session.broker_settings(is_on_redis=row.is_on_redis),
            target=target,
            concurrency=row.concurrency // row.clients,
            rate=None if row.rate is None else row.rate / row.clients,
            batch=row.batch,
            # The same draws in every row of a repeat, others in the next.
            seed=repeat * 100 + index,
            run=f"r{number}",
            directory=directory,
            tokens=str(self._session.access.tokens) if row.gateway_mode == "tokens" else None,
        )

    def _load(
        self,
        row: Row,
        specs: list[Spec],
        groups: dict[str, list[int]],
        database: BenchDatabase,
        served: Served | None,
        duration_s: float,
    ) -> Measurement:
        # Nobody writes between two runs, so what was found after the last one is what there is; only the stock is new.
        before = self._found.pop(database.url, None)
        if before is None or row.workload.kind == "reserve":
            before = database.state()
        with self._clients(specs) as clients:
            for client in clients:
                client.receive(READY_TIMEOUT_S)
            start = monotonic() + _LEAD_S
            begin = start + self._warm_s + row.slow_start_s
            window = Window(start, begin, begin + duration_s)
            for client in clients:
                client.pipe.send(window)
            groups["clients"] = [client.process.pid or 0 for client in clients]
            sleep(max(0.0, window.begin - monotonic()))
            meter = CpuMeter(groups)
            sleep(max(0.0, window.end - monotonic()))
            cpu_s = meter.used_s()
            results = [client.receive(RESULT_TIMEOUT_S) for client in clients]
        if served is not None:
            served.await_idle()
        found = [result for result in results if isinstance(result, ClientResult)]
        if not any(result.applied_total for result in found):
            texts = {text for result in found for text in result.error_texts}
            raise RunFailed(f"nothing was applied; {'; '.join(texts)}" if texts else TOO_SHORT)
        found_in_window = measured(found, duration_s, cpu_s, ("", 0, False))
        if not found_in_window.achieved and not found_in_window.rejected:
            raise RunFailed(TOO_SHORT)
        after = database.state()
        self._found[database.url] = after
        verdict = verify(
            row.workload.kind,
            before,
            after,
            applied=sum(result.applied_total for result in found),
            unknown=sum(result.unknown_total for result in found),
        )
        return measured(found, duration_s, cpu_s, verdict.as_tuple())

    @contextmanager
    def _clients(self, specs: list[Spec]) -> Iterator[list["_Client"]]:
        clients = [_Client(self._context, spec) for spec in specs]
        try:
            yield clients
        finally:
            for client in clients:
                client.end()


class _Client:
    """A client process, seen from outside."""

    def __init__(self, context: ForkServerContext, spec: Spec) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=client_process.main, args=(spec, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self._name = spec.method

    def receive(self, timeout_s: float) -> Any:
        try:
            if not self.pipe.poll(timeout_s):
                raise RunFailed(f"{self._name}: no answer within {timeout_s:g} s")
            received = self.pipe.recv()
        except (EOFError, OSError):
            raise RunFailed(f"{self._name}: the client ended with status {self.process.exitcode}") from None
        if isinstance(received, str):
            raise RunFailed(f"{self._name}: {received}")
        return received

    def end(self) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(2.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5.0)
        self.pipe.close()
