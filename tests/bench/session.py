"""Everything that runs while it is measured: servers, databases, lanes, gateways, workers."""

import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from signal import SIGTERM
from time import monotonic, sleep

from coordinator.dev.install import PROGRAMS, Installation, NeededProgram
from coordinator.dev.servers.addresses import ADMINISTRATOR
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.dev.servers.server import Server
from coordinator.dev.servers.server_set import ServerSet, remove_data
from coordinator.registry import APP_SETTING
from coordinator.runtime.addresses import parse_address
from tests.bench.access import Access
from tests.bench.databases import BenchDatabase, fill_log, open_bench_database
from tests.bench.served import Served, fetched
from tests.bench.service import LANE_BIG_LOG, LANE_WITH_RULES, NO_LANE
from tests.support.databases import FreshDatabases
from tests.support.servers import REFERENCE_APP, administrators_of, reference_servers

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
SETTING_OF = {"postgresql": "USERS_DATABASE_URL", "mariadb": "PAYMENTS_DATABASE_URL", "mongodb": "ITEMS_DATABASE_URL"}
ROOT = Path(__file__).parents[2]
_IN_FLIGHT = re.compile(r"^coordinator_gateway_in_flight\{.*\} (\S+)$", re.MULTILINE)


class Session:
    """Starts what a row needs, once, and keeps it."""

    def __init__(self, servers: ServerSet, directory: Path) -> None:
        self.servers = servers
        self.directory = directory
        self.log_entries = 0
        self.backlog = 0
        self._fresh = FreshDatabases(servers.environment(), administrators_of(servers))
        self.environment = servers.environment(ADMINISTRATOR) | {
            APP_SETTING: REFERENCE_APP,
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "TELEMETRY_LOG_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            "GATEWAY_IN_FLIGHT_MAX": "5000",
            # For the lock in Redis: what a cache's user may do is not enough for it.
            "REDIS_URL": servers.redis.administrator_url,
        }
        self.access = Access(directory / "access")
        self._databases: dict[str, BenchDatabase] = {}
        self._lanes: dict[str, tuple[Process, dict[str, str]]] = {}
        self._processes: list[Process] = []
        self._collector_url: str | None = None
        self._redis: RedisBroker | None = None

    def broker_settings(self, *, is_on_redis: bool) -> dict[str, str]:
        """For whoever uses a Redis as the broker; the first call starts it."""
        if not is_on_redis:
            return {}
        if self._redis is None:
            self._redis = RedisBroker(self.directory / RedisBroker.name)
            self._redis.start()
        return {"AMQP_URL": "", "BROKER_URL": self._redis.url}

    @property
    def broker_pids(self) -> list[int]:
        """Of RabbitMQ, and of every Redis."""
        servers = self.servers
        return [*servers.rabbitmq.pids, *servers.redis.pids, *(() if self._redis is None else self._redis.pids)]

    def database(self, kind: str, lane: str | None) -> BenchDatabase:
        """The database of a lane, or that of the alternatives on this kind of server; made when first asked for."""
        name = lane or f"direct-{kind}"
        known = self._databases.get(name)
        if known is None:
            known = open_bench_database(self._fresh.new(SETTING_OF[kind]), lane)
            known.prepare()
            if lane == LANE_BIG_LOG:
                fill_log(known.url, lane, self.log_entries)
            self._databases[name] = known
        return known

    def url_of(self, kind: str, lane: str | None) -> str:
        return self.database(kind, lane).url

    def lane(self, name: str, kind: str, settings: dict[str, str]) -> Process:
        """The coordinator of a lane, with these settings; another of the same lane is stopped first."""
        running = self._lanes.get(name)
        if running is not None and running[0].alive and running[1] == settings:
            return running[0]
        self.stop_lane(name)
        environment = {f"{name.upper()}_DATABASE_URL": self.url_of(kind, name)} | settings
        if name == LANE_WITH_RULES:
            # It asks who asks, and so must believe its gateway.
            account = parse_address(self.environment["AMQP_URL"]).user or ""
            environment["LANE_GATEWAY_ACCOUNTS"] = account
        process = self._ready(f"coordinator-{name}", ["tests.bench.lane", name], environment)
        self._lanes[name] = (process, settings)
        return process

    def trace_settings(self, share: float) -> dict[str, str]:
        """For processes that export the spans of such a share of the traces; the first call starts the collector."""
        if self._collector_url is None:
            port = free_port()
            self._start("collector", [sys.executable, "-m", "tests.bench.sink", str(port)], {})
            self._collector_url = f"http://127.0.0.1:{port}"
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._collector_url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(share),
        }

    def stop_lane(self, name: str) -> None:
        running = self._lanes.pop(name, None)
        if running is not None:
            running[0].stop(SIGTERM, STOP_TIMEOUT_S)

    @contextmanager
    def gateways(self, mode: str, number: int, kind: str, lane: str | None, more: dict[str, str]) -> Iterator[Served]:
        """So many gateways for a while. Without a lane they write by themselves."""
        name = lane or NO_LANE
        settings = {f"{name.upper()}_DATABASE_URL": self.url_of(kind, lane)} | more
        if mode == "tokens":
            settings |= self.access.gateway_settings()
        started: list[Process] = []
        ports: list[int] = []
        try:
            for _ in range(number):
                ports.append(free_port())
                started.append(self._ready("gateway", ["tests.bench.gateway", mode, name], settings, port=ports[-1]))
            addresses = [f"127.0.0.1:{port}" for port in ports]
            yield Served(addresses, {"gateway": [process.pid for process in started]}, lambda: _in_flight(addresses))
        finally:
            for process in started:
                process.stop(SIGTERM, STOP_TIMEOUT_S)

    @contextmanager
    def process(
        self, name: str, argv: Sequence[str], settings: dict[str, str], ready_url: str | None = None
    ) -> Iterator[Process]:
        """A process for a while, once it answers there."""
        started = self._start(name, list(argv), settings)
        try:
            if ready_url is not None:
                self._await_answer(name, started, ready_url)
            yield started
        finally:
            started.stop(SIGTERM, STOP_TIMEOUT_S)

    @contextmanager
    def worker(self, argv: Sequence[str], settings: dict[str, str]) -> Iterator[Process]:
        """A worker of an alternative, for the time of one run."""
        process = self._start("worker", [sys.executable, *argv], settings)
        try:
            yield process
        finally:
            process.stop(SIGTERM, 5.0)

    def server_of(self, kind: str) -> Server:
        servers = self.servers
        return {"postgresql": servers.postgresql, "mariadb": servers.mysql, "mongodb": servers.mongodb}[kind]

    def stop(self) -> None:
        """Stop every process of ours; the servers are whose they are."""
        for process in self._processes:
            if process.alive:
                process.stop(SIGTERM, STOP_TIMEOUT_S)
        if self._redis is not None:
            self._redis.stop()
        for database in self._databases.values():
            database.close()

    def drop(self) -> None:
        """Drop the databases, where the servers are to live on."""
        self._fresh.drop()

    def _ready(self, name: str, module: list[str], settings: dict[str, str], port: int | None = None) -> Process:
        port = port or free_port()
        process = self._start(name, [sys.executable, "-m", *module, str(port)], settings)
        self._await_answer(name, process, f"http://127.0.0.1:{port}/readyz")
        return process

    def _await_answer(self, name: str, process: Process, url: str) -> None:
        deadline = monotonic() + READY_TIMEOUT_S
        while not answers(url):
            if not process.alive or monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready ({process.status}):\n{process.log_tail(20)}")
            sleep(0.02)

    def _start(self, name: str, argv: list[str], settings: dict[str, str]) -> Process:
        process = Process(
            argv, log_path=self.directory / "logs" / f"{name}.log", environment=self.environment | settings
        )
        self._processes.append(process)
        return process


def _in_flight(addresses: Sequence[str]) -> int:
    """Of these gateways together; a request for the metrics counts itself."""
    texts = (fetched(f"http://{address}/metrics") for address in addresses)
    counts = (sum(float(found) for found in _IN_FLIGHT.findall(text)) for text in texts)
    return sum(max(0, int(count) - 1) for count in counts)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def running_session(programs: Sequence[NeededProgram] = ()) -> Iterator[Session]:
    """The servers of a benchmark of its own; nothing of them is left afterwards.

    `programs` are installed beside the servers'. Raises ConfigurationError when one cannot be had.
    """
    directory = Path(tempfile.mkdtemp(prefix="write-coordinator-bench-"))
    directory.chmod(0o755)
    try:
        Installation(print, directory / "install.log", (*PROGRAMS, *programs)).run()
        servers = reference_servers(directory)
        servers.start(lambda what, seconds: print(f"  {what} ({seconds:.1f} s)", flush=True))
        session = Session(servers, directory)
        try:
            yield session
        finally:
            session.stop()
            servers.stop()
    finally:
        remove_data(directory)
        rmtree(directory, ignore_errors=True)
