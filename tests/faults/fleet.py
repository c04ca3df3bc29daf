"""The whole system on real servers: two coordinators a lane, each behind proxies of its own, and two gateways."""

import asyncio
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from shutil import copy, rmtree

import aiohttp
from msgspec import Struct

from coordinator.dev.install import Installation
from coordinator.dev.servers.addresses import ADMINISTRATOR, Wanted
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.dev.servers.server import Server
from coordinator.dev.servers.server_set import ServerSet, remove_data
from coordinator.migrations.migrate import migrate
from coordinator.registry import APP_SETTING, registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.transports.rabbitmq.rights import OPERATOR
from coordinator.transports.redis.rights import redis_accounts
from tests.faults.clusters import Clusters, running_clusters
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.plan import CACHED, LANES, REPLICATED
from tests.faults.proxies import Proxies
from tests.faults.tables import Tables
from tests.support.accounts import account_of, as_account, believed, names_of_tests, own_settings
from tests.support.callers import ACCESS, KEY, secret_of
from tests.support.servers import REFERENCE_APP, Environment, administrators_of, reference_servers

SLOTS = ("a", "b")
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_SETTINGS = {
    "AMQP_HEARTBEAT_S": "2",
    "LANE_GAP_TIMEOUT_S": "60",  # publishers here never give up, so that a gap is always filled
    "GATEWAY_WAIT_S": "3",
    "GATEWAY_CONFIRM_TIMEOUT_S": "3",
    "PYTHONUNBUFFERED": "1",
    "TELEMETRY_LOG_LEVEL": "INFO",
}


class Member:
    """One of our processes, and how to start it again."""

    def __init__(self, name: str, module: list[str], port: int, environment: Environment, directory: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._argv = [sys.executable, "-m", *module]
        self._environment = environment
        self._log_path = directory / f"{name}.log"
        self.process = self._launch()
        self.lock = asyncio.Lock()

    def _launch(self) -> Process:
        return Process(self._argv, log_path=self._log_path, environment=self._environment)

    def start(self) -> None:
        """Start it, if it is not running; do not wait."""
        if not self.process.alive:
            self.process = self._launch()

    async def wait_ready(self, session: aiohttp.ClientSession, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Whether it says within the time that it is ready."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with session.get(f"{self.url}/readyz", timeout=aiohttp.ClientTimeout(total=2)) as response:
                    if response.status == 200:
                        return True
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.05)
        return False


class Slot(Struct):
    """A coordinator, and the proxies through which it alone goes."""

    member: Member
    database: Proxies
    broker: Proxies
    cache: Proxies | None = None


class Fleet:
    """Everything that can be struck."""

    def __init__(
        self,
        servers: ServerSet,
        directory: Path,
        disk: SmallDisk | None,
        *,
        redis: RedisBroker | None = None,
        clusters: Clusters | None = None,
    ) -> None:
        self.servers = servers
        """Those of the reference system. Where there are clusters some are none of it, and do not run."""
        self.redis = redis
        """The broker, where it is not RabbitMQ."""
        self.running = servers if clusters is None else not_clustered(servers)
        self.clusters = clusters
        """What is more than one server, if anything is."""
        self.disk = disk
        """Under the broker's data, if there is one."""
        self.directory = directory
        self.slots: dict[str, list[Slot]] = {lane: [] for lane in LANES}
        self.gateways: dict[str, list[Member]] = {lane: [] for lane in LANES}
        self.clients_broker: Proxies
        self.secrets: dict[str, str] = {}
        """By lane: with it a client of ours knows the ids of its commands."""
        environment = self.environment()
        self.tables = {lane: Tables(environment[f"{lane.upper()}_DATABASE_URL"]) for lane in LANES}

    @property
    def broker_server(self) -> Server:
        """Of a cluster a node that runs."""
        if self.clusters is not None:
            return self.clusters.broker.living
        return self.servers.rabbitmq if self.redis is None else self.redis

    @property
    def broker_ports(self) -> list[int]:
        """Of all nodes, if there are several."""
        if self.clusters is not None:
            return [node.port for node in self.clusters.broker.nodes]
        return [self.broker_server.port]

    def broker_url(self, account: str) -> str:
        """As this account of it."""
        if self.redis is not None:
            return self.redis.url_of(account)
        if self.clusters is not None:
            return self.clusters.broker.url(account)
        return as_account(self.servers.rabbitmq.url, account)

    @property
    def databases(self) -> dict[str, Server]:
        """The one of each lane that writes."""
        users: Server = self.servers.postgresql if self.clusters is None else self.clusters.database.primary
        return {"users": users, "items": self.servers.mongodb, "payments": self.servers.mysql}

    def _database_ports(self, lane: str) -> list[int]:
        if self.clusters is not None and lane == REPLICATED:
            return self.clusters.database.ports
        return [self.databases[lane].port]

    def environment(self) -> Environment:
        """The addresses of all servers, as an operator has them."""
        return self._clustered(self.servers.environment() | {"REDIS_URL": self.servers.redis.url})

    def _clustered(self, settings: Environment) -> Environment:
        """With both servers where a database has a standby."""
        if self.clusters is None:
            return settings
        name, port = REPLICATED.upper(), self.servers.postgresql.port
        both = {
            setting: self.clusters.database.through_all(settings[setting], port)
            for setting in (f"{name}_DATABASE_URL", f"{name}_READER_URL")
            if setting in settings
        }
        both[f"{name}_DATABASE_URL"] += "?target_session_attrs=read-write"
        return settings | both

    @property
    def members(self) -> Iterator[Member]:
        return itertools.chain(
            (slot.member for slots in self.slots.values() for slot in slots), *self.gateways.values()
        )

    async def start(self, stack: AsyncExitStack) -> None:
        environment = {**self.environment(), **_SETTINGS, **ACCESS, APP_SETTING: REFERENCE_APP}
        environment["LANE_GATEWAY_ACCOUNTS"] = believed(self.servers.rabbitmq.url)
        environment["PATH"] = os.environ.get("PATH", "/usr/bin:/bin")
        self.clients_broker = await Proxies.before(self.broker_ports, stack)
        for lane in LANES:
            url_setting = f"{lane.upper()}_DATABASE_URL"
            reader = None if lane == "items" else environment[f"{lane.upper()}_READER_URL"]
            settings = DatabaseSettings(
                database_url=environment[url_setting],
                reader_url=reader,
                migration_url=self._clustered(administrators_of(self.servers))[url_setting],
            )
            await asyncio.to_thread(migrate, registry().service(lane), settings)
            await asyncio.to_thread(KEY.give_to, {lane: settings.migration_url or settings.database_url})
            self.secrets[lane] = await asyncio.to_thread(secret_of, lane, settings.database_url)
            for name in SLOTS:
                database = await Proxies.before(self._database_ports(lane), stack)
                broker = await Proxies.before(self.broker_ports, stack)
                port = free_port()
                module = ["coordinator", "run", lane, "--metrics-port", str(port)]
                reached = environment | {url_setting: database.through(environment[url_setting])}
                own = own_settings(module, reached) | self._broker_setting(module, broker)
                cache = await Proxies.before([self.servers.redis.port], stack) if lane == CACHED else None
                if cache is not None:
                    own["REDIS_URL"] = cache.through(own["REDIS_URL"])
                if self.clusters is not None and lane == REPLICATED:
                    own["LANE_REQUIRE_SYNC_STANDBY"] = "true"
                member = Member(f"coordinator-{lane}-{name}", module, port, own, self.directory)
                self.slots[lane].append(Slot(member, database, broker, cache))
            for name in SLOTS:
                port = free_port()
                module = ["gateways", lane, "--port", str(port)]
                own = own_settings(module, environment) | self._broker_setting(module, self.clients_broker)
                member = Member(f"gateway-{lane}-{name}", module, port, own, self.directory)
                self.gateways[lane].append(member)

    @property
    def client_broker_url(self) -> str:
        return self.clients_broker.through(self.broker_url(ADMINISTRATOR))

    def _broker_setting(self, module: list[str], proxies: Proxies) -> Environment:
        """Of a process that goes through these proxies, with its own account."""
        url = proxies.through(self.broker_url(account_of(module) or OPERATOR))
        return {"AMQP_URL": url} if self.redis is None else {"AMQP_URL": "", "BROKER_URL": url}

    def by_holder(self, lane: str, holder: str) -> Slot | None:
        """Whose name stands in the lease: behind the machine it has the process's id."""
        pid = int(holder.rpartition(":")[2].split()[0])
        return next((slot for slot in self.slots[lane] if slot.member.process.pid == pid), None)

    def kill_broker(self) -> None:
        """Blocking. Of a cluster all nodes, as where the current fails."""
        nodes = [self.broker_server] if self.clusters is None else self.clusters.broker.nodes
        with ThreadPoolExecutor(len(nodes)) as threads:
            list(threads.map(lambda node: node.kill(), nodes))

    def start_broker(self) -> None:
        """Blocking."""
        if self.clusters is None:
            self.broker_server.start()
        else:
            self.clusters.broker.start_again()

    @property
    def rabbitmq(self) -> RabbitMQ:
        """Of a cluster the first node."""
        return self.servers.rabbitmq if self.clusters is None else self.clusters.broker.nodes[0]

    def set_memory_alarm(self, *, on: bool) -> None:
        """Blocking. RabbitMQ takes any memory for too much, or what it is used to."""
        self.rabbitmq.control("set_vm_memory_high_watermark", "0.0000001" if on else "0.4")

    def set_disk_alarm(self, *, on: bool) -> None:
        """Blocking. RabbitMQ takes any free space for too little, or what it is used to."""
        self.rabbitmq.control("set_disk_free_limit", "1000000GB" if on else "50MB")

    async def unready(self, session: aiohttp.ClientSession) -> list[str]:
        """Wait for all; the ends of the logs of those that are not ready in time."""
        members = list(self.members)
        ready = await asyncio.gather(*(member.wait_ready(session) for member in members))
        return [
            f"{member.name} is not ready:\n{member.process.log_tail(5)}"
            for member, is_up in zip(members, ready, strict=True)
            if not is_up
        ]

    def heal(self) -> None:
        """Blocking: everything runs and nothing is in the way."""
        if self.clusters is not None:
            self.clusters.heal()
        self.running.start()
        if self.redis is not None:
            self.redis.start()
        for member in self.members:
            member.process.resume()
            member.start()

    def stop(self) -> list[str]:
        """Blocking: end our processes in order; which of them did not end well."""
        members = list(self.members)
        for member in members:
            if member.process.alive:
                os.kill(member.process.pid, signal.SIGTERM)
        stubborn = []
        for member in members:
            # Not asked again: at its very end a process of Python's would die of a second SIGTERM.
            member.process.wait(STOP_TIMEOUT_S)
            member.process.kill()
            if member.process.exit_status != 0:
                stubborn.append(f"{member.name} ended with {member.process.status}:\n{member.process.log_tail(15)}")
        for tables in self.tables.values():
            tables.close()
        return stubborn

    def keep_logs(self) -> Path:
        """Blocking: copies of what our processes and the servers wrote, in a folder that stays."""
        kept = Path(tempfile.mkdtemp(prefix="write-coordinator-faults-logs-"))
        parent = self.directory.parent
        for log in sorted(parent.rglob("*.log")):
            copy(log, kept / "-".join(log.relative_to(parent).parts))
        return kept

    def kill(self) -> None:
        """Blocking: nothing of ours runs afterwards."""
        for member in self.members:
            member.process.kill()


def not_clustered(servers: ServerSet) -> ServerSet:
    """Those that run beside clusters."""
    replaced = (servers.rabbitmq, servers.postgresql)
    return ServerSet([server for server in servers.servers if server not in replaced], Wanted({}))


@contextmanager
def _native_servers(*, is_clustered: bool) -> Iterator[tuple[ServerSet, Path, SmallDisk | None, Clusters | None]]:
    # Not under pytest's own folder, which other users, PostgreSQL's among them, cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="write-coordinator-faults-"))
    directory.chmod(0o755)
    try:
        Installation(print, directory / "install.log").run()
        servers = reference_servers(directory)
        if is_clustered:
            running = not_clustered(servers)
            try:
                with running_clusters(directory) as clusters:
                    running.start()
                    yield servers, directory, None, clusters
            finally:
                running.stop()
        else:
            with small_disk(servers.rabbitmq.data, directory / "rabbitmq.image") as disk:
                try:
                    servers.start()
                    yield servers, directory, disk, None
                finally:
                    if disk is not None:
                        disk.release()
                    servers.stop()
        remove_data(directory)
    finally:
        rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def running_fleet(*, is_on_redis: bool = False, is_clustered: bool = False) -> AsyncIterator[Fleet]:
    """The system, ready; nothing of it is left afterwards."""
    with _native_servers(is_clustered=is_clustered) as (servers, directory, disk, clusters):
        async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:
            redis: RedisBroker | None = None
            if is_on_redis:
                accounts = redis_accounts(names_of_tests())
                redis = RedisBroker(directory / RedisBroker.name, accounts=accounts)
                stack.callback(redis.stop)
                redis.start()
            fleet = Fleet(servers, directory / "logs", disk, redis=redis, clusters=clusters)
            try:
                await fleet.start(stack)
                ready = await asyncio.gather(*(member.wait_ready(session) for member in fleet.members))
                assert all(ready), [
                    member.name for member, is_up in zip(fleet.members, ready, strict=True) if not is_up
                ]
                yield fleet
            finally:
                await asyncio.to_thread(fleet.kill)
