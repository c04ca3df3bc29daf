"""The whole system as a user runs it: coordinator and gateway processes on real servers."""

import asyncio
import itertools
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import pika
import redis

from coordinator.dev.servers.addresses import ADMINISTRATOR
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.migrations.migrate import migrate
from coordinator.registry import APP_SETTING, registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.lane_names import settings_prefix
from coordinator.service.outside_calls import effects_key
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.open import open_admin
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, retry_key
from coordinator.transports.rabbitmq.ingress.topology import ingress_name
from coordinator.transports.rabbitmq.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_name,
    mark_queue_name,
    queue_name,
)
from shared.payments.sandbox.defaults import METADATA_KEY
from tests.support.accounts import OUTSIDE, as_account, believed, of_process, own_settings
from tests.support.callers import ACCESS, HEADERS, KEY
from tests.support.forks import Forks
from tests.support.servers import REFERENCE_APP, Environment
from tests.support.torn import TORN

T = TypeVar("T")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


class System:
    """Starts and ends processes of ours, each with its own accounts; the servers are given.

    `environment` has the addresses as an operator has them.
    """

    def __init__(
        self,
        environment: Environment,
        administrators: Environment,
        directory: Path,
        forks: Forks | None = None,
        broker_url: str | None = None,
    ) -> None:
        self.broker_url = broker_url
        """The broker of its processes, where it is not RabbitMQ."""
        self.environment = environment | {
            "PATH": "/usr/bin:/bin",
            APP_SETTING: REFERENCE_APP,
            "AMQP_HEARTBEAT_S": "5",
            "PYTHONUNBUFFERED": "1",
        }
        self.account = urlsplit(administrators["AMQP_URL"]).username or "guest"
        """Of `broker`, for `user_id`: lanes believe it, too, when it says who asks."""
        accounts = f"{believed(self.environment['AMQP_URL'])} {self.account}"
        self.environment.setdefault("LANE_GATEWAY_ACCOUNTS", accounts)
        self.administrators = administrators
        """The addresses of the same servers for what our processes may not do: who owns the databases, for one."""
        self._directory = directory
        self.forks = forks
        """Starts processes faster; without it each is a Python of its own."""
        self._numbers = itertools.count(1)
        self.processes: list[Process] = []
        self.urls: dict[str, str] = {}
        self.named: dict[str, Process] = {}
        """The processes that run, or did when they were last seen, by the names of their logs."""
        self._starts: dict[str, tuple[list[str], dict[str, str], str]] = {}
        self._gateway_ports: dict[str, int] = {}

    def prepare(self, *services: str) -> None:
        """Empty queues, an empty cache, migrated databases."""
        with redis.Redis.from_url(self.administrators["REDIS_URL"]) as cache:
            cache.flushdb()
        if self.broker_url is not None:
            with redis.Redis.from_url(as_account(self.broker_url, ADMINISTRATOR)) as broker:
                broker.flushdb()
        with self.broker() as channel:
            for service in registry().services:
                _delete_queues(channel, service.name)
            for account in OUTSIDE:
                channel.queue_delete(ingress_name(account))
                channel.exchange_delete(ingress_name(account))
            channel.exchange_delete(WRITES_EXCHANGE)
            channel.exchange_delete(SYSTEM_EXCHANGE)
            channel.exchange_delete(DEAD_EXCHANGE)
        for name in services:
            migrate(registry().service(name), self.database(name))
            KEY.give_to({name: self.owner(name)})

    def prepare_other(self, app: str, service: Service, owner: str) -> None:
        """From now on processes run this application, which has this service, on the database of this owner's address.

        Its queues and its database are empty, and the latter is migrated.
        """
        self.environment |= {APP_SETTING: app, f"{settings_prefix(service.lane)}DATABASE_URL": owner}
        with self.broker() as channel:
            _delete_queues(channel, service.lane)
        migrate(service, DatabaseSettings(database_url=owner))

    def database(self, service: str) -> DatabaseSettings:
        prefix = service.upper()
        return DatabaseSettings(
            database_url=self.environment[f"{prefix}_DATABASE_URL"],
            reader_url=None if service == "items" else self.environment[f"{prefix}_READER_URL"],
            migration_url=self.owner(service),
        )

    def owner(self, service: str) -> str:
        """The address of its database for what only the owner may do."""
        return self.administrators[f"{service.upper()}_DATABASE_URL"]

    def operate(self, lane: str, work: Callable[[LaneAdmin], T]) -> T:
        """What an operator does with a lane's database, in this process."""
        with closing(open_admin(self.environment[f"{settings_prefix(lane)}DATABASE_URL"], lane)) as admin:
            return work(admin)

    def broker(self) -> "_BrokerChannel":
        """With all rights."""
        return _BrokerChannel(self.administrators["AMQP_URL"])

    @property
    def operator_environment(self) -> Environment:
        """The settings of an operator's commands."""
        if self.broker_url is None:
            return self.environment
        others = {name: value for name, value in self.environment.items() if name != "AMQP_URL"}
        return others | {"BROKER_URL": self.broker_url}

    def start_coordinator(self, lane: str, **settings: str) -> Process:
        """Return once it consumes, or stands by."""
        process, url = self.launch_coordinator(lane, settings)
        wait_ready(url, process)
        return process

    def start_coordinators(self, *lanes: str) -> None:
        """All at once; return when each consumes, or stands by."""
        for process, url in [self.launch_coordinator(lane, {}) for lane in lanes]:
            wait_ready(url, process)

    def start_gateway(self, service: str, **settings: str) -> Process:
        """Return once it is ready; its address is in `urls`."""
        process, url = self.launch_gateway(service, settings)
        wait_ready(url, process)
        return process

    def start(self, service: str) -> None:
        """Prepare, and start a coordinator and a gateway, in this order in `processes`, at once."""
        self.prepare(service)
        for process, url in (self.launch_coordinator(service, {}), self.launch_gateway(service, {})):
            wait_ready(url, process)

    def stop(self) -> None:
        """Stop every process; those that do not end by themselves fail the test."""
        for process in self.processes:
            # Shown by pytest when the test fails.
            print(f"--- {' '.join(process.argv[2:])}: {process.status}\n{process.log_tail(25)}")
        alive = [process for process in self.processes if process.alive]
        with ThreadPoolExecutor(max(1, len(alive))) as threads:
            list(threads.map(lambda process: process.stop(signal.SIGTERM, STOP_TIMEOUT_S), alive))
        stubborn = [
            f"{process.argv}: {process.status}\n{process.log_tail(40)}" for process in alive if process.exit_status != 0
        ]
        assert not stubborn, "\n".join(stubborn)

    def start_operations(self, *lanes: str, coordinators: Sequence[str] = (), **settings: str) -> Process:
        """The operations gateway of these lanes. Return once it is ready; its address is in `urls`."""
        port = free_port()
        self.urls["operations"] = f"http://127.0.0.1:{port}"
        module = ["coordinator", "operations", *lanes, "--port", str(port)]
        module += [part for url in coordinators for part in ("--coordinator", url)]
        url = f"{self.urls['operations']}/readyz"
        process = self._start("operations", module, ACCESS | settings, url)
        wait_ready(url, process)
        return process

    def start_effects(self, service: str, **settings: str) -> Process:
        """An effect worker. Return once it consumes."""
        port = free_port()
        self.urls[f"effects-{service}"] = f"http://127.0.0.1:{port}"
        module = ["coordinator", "effects", service, "--metrics-port", str(port)]
        process = self._start(f"effects-{service}", module, settings, f"http://127.0.0.1:{port}/readyz")
        wait_ready(f"http://127.0.0.1:{port}/readyz", process)
        return process

    def start_ingress(self, accounts: str = "partner billing", **settings: str) -> Process:
        """The ingress of these accounts. Return once it consumes; its address is in `urls`."""
        port = free_port()
        self.urls["ingress"] = f"http://127.0.0.1:{port}"
        module = ["coordinator", "ingress", "--metrics-port", str(port)]
        process = self._start(
            "ingress", module, {"INGRESS_ACCOUNTS": accounts} | settings, f"{self.urls['ingress']}/readyz"
        )
        wait_ready(f"{self.urls['ingress']}/readyz", process)
        return process

    def start_sandbox(self) -> Process:
        """A payment provider, which calls the payments gateway back; to be started before it."""
        port, gateway = free_port(), free_port()
        self._gateway_ports["payments"] = gateway
        self.urls["sandbox"] = f"http://127.0.0.1:{port}"
        self.environment |= {
            "STRIPE_API_BASE": self.urls["sandbox"],
            "STRIPE_API_KEY": "sk_test_sandbox",
            "STRIPE_WEBHOOK_SECRET": "whsec_sandbox",
            "STRIPE_METADATA_KEY": METADATA_KEY,
        }
        data = str(self._directory / "sandbox.db")
        webhook_url = f"http://127.0.0.1:{gateway}/webhooks/stripe"
        module = ["shared.payments.sandbox", "--port", str(port), "--data", data, "--webhook-url", webhook_url]
        process = self._start("sandbox", module, {}, f"{self.urls['sandbox']}/readyz")
        wait_ready(f"{self.urls['sandbox']}/readyz", process)
        return process

    def replace(self, name: str) -> None:
        """Start another process in the place of one that has ended, at the same address; return once it is ready."""
        module, settings, url = self._starts[name]
        self.named[name] = self._launch(name, module, settings)
        wait_ready(url, self.named[name])

    def launch_coordinator(self, lane: str, settings: dict[str, str]) -> tuple[Process, str]:
        """Of one lane, or of several with spaces between, without waiting; and where it says whether it is ready."""
        port = free_port()
        module = ["coordinator", "run", *lane.split(), "--metrics-port", str(port)]
        url = f"http://127.0.0.1:{port}/readyz"
        return self._start(f"coordinator-{lane.replace(' ', '-')}", module, settings, url), url

    def launch_gateway(self, service: str, settings: dict[str, str]) -> tuple[Process, str]:
        """Without waiting; and where it says whether it is ready."""
        port = self._gateway_ports.pop(service, None) or free_port()
        self.urls[service] = f"http://127.0.0.1:{port}"
        url = f"{self.urls[service]}/readyz"
        module = ["coordinator", "gateway", service, "--port", str(port)]
        if self.environment[APP_SETTING] == REFERENCE_APP:
            # It has rules: its callers prove who they are.
            settings = ACCESS | settings
        return self._start(f"gateway-{service}", module, settings, url), url

    def _start(self, name: str, module: list[str], settings: dict[str, str], url: str) -> Process:
        numbered = f"{name}-{next(self._numbers)}"
        self._starts[numbered] = module, settings, url
        process = self.named[numbered] = self._launch(numbered, module, settings)
        return process

    def _launch(self, name: str, module: list[str], settings: dict[str, str]) -> Process:
        process = self.run(module, self._directory / f"{name}.log", settings)
        self.processes.append(process)
        return process

    def run(self, module: list[str], log_path: Path, settings: dict[str, str]) -> Process:
        """Start `python -m` with these arguments; the caller ends it."""
        environment = own_settings(module, self.operator_environment) | settings
        broker = "AMQP_URL" if self.broker_url is None else "BROKER_URL"
        environment[broker] = of_process(module, environment[broker])
        if self.forks is None:
            return Process([sys.executable, "-m", *module], log_path=log_path, environment=environment)
        return self.forks.run(module, log_path, environment)


class _BrokerChannel:
    """A plain blocking channel, for a test's own looks into the broker."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Any:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _delete_queues(channel: Any, service: str) -> None:
    for key in (service, effects_key(service)):
        channel.queue_delete(queue_name(key))
        channel.queue_delete(dead_queue_name(key))
    channel.queue_delete(mark_queue_name(service))
    for length_s in DELAYS_S.values():
        channel.queue_delete(retry_key(service, length_s))


def wait_ready(url: str, process: Process) -> None:
    """Return once /readyz says so."""

    def is_ready() -> bool:
        assert process.alive, process.log_tail(40)
        try:
            with urllib.request.urlopen(url, timeout=1) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    wait_until(is_ready, f"{url} is ready", process)


def wait_until(
    condition: Callable[[], bool], what: str, process: Process | None = None, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Poll something that offers no event."""
    from threading import Event
    from time import monotonic

    deadline = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline, f"not within {timeout_s} s: {what}\n{process.log_tail(40) if process else ''}"
        Event().wait(0.02)


ANSWERED_WITHIN_S = 100.0
"""A write from its first request on: longer than a server may need to start on a busy machine, which some tests let
writes wait for."""


class Client:
    """An HTTP client that repeats a write with the same key until it is answered, as a careful one does."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str | None = None) -> None:
        """`key` is that of whoever asks, in place of the session's."""
        self._session = session
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def write(self, path: str, body: object, key: str) -> tuple[int, dict[str, Any]]:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            while True:
                try:
                    async with self._session.post(
                        self._url + path, json=body, headers={"Idempotency-Key": key} | self._headers
                    ) as response:
                        answer = await response.json(content_type=None)
                        if response.status not in (202, 503):
                            return response.status, answer
                except TORN:
                    pass
                await asyncio.sleep(0.05)


async def write_all(url: str, path: str, body: object, count: int, connections: int, prefix: str) -> list[Any]:
    """`count` writes over so many connections at once; every answer."""
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=connections)) as session:
        client, turns = Client(session, url), asyncio.Semaphore(connections)

        async def write(key: str) -> tuple[int, dict[str, Any]]:
            async with turns:
                return await client.write(path, body, key)

        return list(await asyncio.gather(*(write(f"{prefix}-{n}") for n in range(count))))
