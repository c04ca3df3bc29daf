"""No password of an address is ever shown: not by logs, errors, /readyz, `ps`, reprs, or the operator's commands."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pytest
import redis
from sqlalchemy import Connection

from coordinator.dev.servers.server_set import ServerSet
from tests.support.callers import HEADERS, KEY
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

pytestmark = [pytest.mark.timeout(400), pytest.mark.doors]
SECRET = "hunter2"
AWKWARD = "%@:/?#&+ '\"\\é"
ADDRESSES = (
    *(f"{service}_{role}_URL" for service in ("USERS", "PAYMENTS") for role in ("DATABASE", "READER")),
    *("AMQP_URL", "REDIS_URL"),
)


def password_of(setting: str) -> str:
    return f"{SECRET}-{setting}-{AWKWARD}"


def with_password(url: str, user: str, password: str) -> str:
    address = urlsplit(url)
    host = f"{quote(user, safe='')}:{quote(password, safe='')}@{address.hostname}:{address.port}"
    return address._replace(netloc=host).geturl()


@pytest.fixture
def secret_system(system: System, native_servers: ServerSet) -> Iterator[System]:
    """With a secret in every address, and all of them valid."""
    owners = {name: system.owner(name) for name in ("USERS", "PAYMENTS")}
    broker, cache = native_servers.rabbitmq, redis.Redis.from_url(system.administrators["REDIS_URL"])
    broker.control("add_user", "spy", password_of("AMQP_URL"))
    broker.control("set_permissions", "spy", ".*", ".*", ".*")
    cache.acl_setuser("spy", enabled=True, passwords=[f"+{password_of('REDIS_URL')}"], categories=["+@all"], keys=["*"])
    system.prepare()
    for setting in ADDRESSES:
        user = {"DATABASE": "spy_lane", "READER": "spy_reader"}.get(setting.split("_")[1], "spy")
        system.environment[setting] = with_password(system.environment[setting], user, password_of(setting))
    for name, url in owners.items():
        system.environment[f"{name}_MIGRATION_URL"] = url
    yield system
    system.stop()
    cache.acl_deluser("spy")
    cache.close()
    broker.control("delete_user", "spy")
    for name, url in owners.items():
        with connected(url) as connection:
            for role in ("spy_lane", "spy_reader"):
                if name == "USERS":
                    execute(connection, f"DROP OWNED BY {role}")
                execute(connection, f"DROP {'ROLE' if name == 'USERS' else 'USER'} {role}")


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = sql_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


class Seen:
    """Everything that anybody can look at."""

    def __init__(self, system: System, directory: Path) -> None:
        self._system = system
        self._directory = directory
        self._numbers = itertools.count(1)
        self.texts: dict[str, str] = {}

    def run(self, *arguments: str, **settings: str) -> int | None:
        name = f"{' '.join(arguments)} {' '.join(settings)}"
        log_path = self._directory / f"run-{next(self._numbers)}.log"
        process = self._system.run(list(arguments), log_path, {"TELEMETRY_LOG_LEVEL": "DEBUG"} | settings)
        self.look_at_commands()
        assert process.wait(90), process.log_tail(50)
        self.texts[name] = process.log_tail(1000)
        return process.exit_status

    def look(self, name: str) -> None:
        for number, process in enumerate(self._system.processes):
            self.texts[f"{name}: log {number}"] = process.log_path.read_text()
        for _, _, url in self._system._starts.values():
            for path in ("readyz", "healthz", "metrics"):
                self.texts[f"{name}: {url} {path}"] = get(url.replace("readyz", path))
        self.look_at_commands()

    def look_at_commands(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if _is_ours(int(path.parent.name)):
                    self.texts[str(path)] = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")

    def with_secrets(self) -> dict[str, str]:
        return {
            name: next(line for line in text.splitlines() if SECRET in line)
            for name, text in self.texts.items()
            if SECRET in text
        }


def _is_ours(pid: int) -> bool:
    """Whether this process of the tests has started it: those of the other set users up, with these passwords."""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def get(url: str) -> str:
    try:
        with urlopen(Request(url, headers=HEADERS), timeout=10) as response:
            return str(response.read().decode())
    except HTTPError as error:
        return error.read().decode()
    except OSError as error:
        return str(error)


def test_no_secret_is_seen_while_all_works_and_while_it_is_refused(
    secret_system: System, native_servers: ServerSet, tmp_path: Path
) -> None:
    system, seen = secret_system, Seen(secret_system, tmp_path)
    system.forks = None  # a fork's command line is not its own
    assert seen.run("coordinator", "migrate", "users", "payments") == 0, seen.texts
    KEY.give_to({lane: system.owner(lane) for lane in ("users", "payments")})
    system.prepare("items")
    for lane in ("users", "items", "payments"):
        system.start_coordinator(lane, TELEMETRY_LOG_LEVEL="DEBUG")
    for service in ("users", "payments"):
        system.start_gateway(service, TELEMETRY_LOG_LEVEL="DEBUG")
    assert seen.run("coordinator", "status", "--sample-s", "0") == 0, seen.texts
    user = '{"name": "Ada", "email": "ada@example.org"}'
    assert seen.run("coordinator", "send", "users.create", user, "--wait", "10") == 0, seen.texts
    assert seen.run("coordinator", "dead", "list") == 0
    seen.look("all works")
    # Every login is refused from now on.
    native_servers.rabbitmq.control("change_password", "spy", "another")
    native_servers.rabbitmq.control("close_all_user_connections", "spy", "maintenance")
    with connected(system.environment["USERS_MIGRATION_URL"]) as connection:
        for role in ("spy_lane", "spy_reader"):
            execute(connection, f"ALTER ROLE {role} PASSWORD 'another'")
        execute(connection, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'spy%'")
    with connected(system.environment["PAYMENTS_MIGRATION_URL"]) as connection:
        for role in ("spy_lane", "spy_reader"):
            execute(connection, f"ALTER USER {role}@'%' IDENTIFIED BY 'another'")
        for (number,) in connection.exec_driver_sql(
            "SELECT id FROM information_schema.processlist WHERE user IN ('spy_lane', 'spy_reader')"
        ).all():
            with contextlib.suppress(Exception):
                execute(connection, f"KILL {number}")
    coordinator = system.processes[0]
    wait_until(lambda: "refuses user" in coordinator.log_path.read_text(), "the broker refuses", coordinator)
    for gateway, path in (("users", "users/1"), ("payments", "payments/1")):
        seen.texts[f"read of {gateway}"] = get(f"{system.urls[gateway]}/{path}")
    for command in (
        ("coordinator", "status", "--sample-s", "0"),
        ("coordinator", "send", "users.create", user, "--wait", "1"),
        ("coordinator", "run", "users"),
        ("coordinator", "run", "payments"),
        ("coordinator", "effects", "payments"),
    ):
        assert seen.run(*command) != 0
    assert seen.run("coordinator", "ingress", INGRESS_ACCOUNTS="partner") == 2
    assert (
        seen.run("coordinator", "migrate", "users", USERS_MIGRATION_URL=system.environment["USERS_DATABASE_URL"]) == 2
    )
    seen.look("all is refused")
    assert seen.with_secrets() == {}
    native_servers.rabbitmq.control("change_password", "spy", password_of("AMQP_URL"))


WRONG = (
    "{scheme}://u:{secret}%@{host}/d",
    "{scheme}://u:{secret}/x@{host}/d",
    "{scheme}://u:{secret}@{host}:{secret}/d",
    "{scheme}://u:p@{host}/0?password={secret}",
    "nonsense://u:{secret}@{host}/d",
    "{secret}",
)


def test_no_secret_is_seen_of_an_address_that_is_none(system: System, tmp_path: Path) -> None:
    """Each setting in each process that reads it; the others are as they should be."""
    system.prepare("items")
    seen = Seen(system, tmp_path)
    settings = {
        "coordinator run items": ("ITEMS_DATABASE_URL", "AMQP_URL", "REDIS_URL"),
        "gateways items": ("ITEMS_READER_URL", "AMQP_URL", "REDIS_URL"),
        "coordinator run users": ("USERS_DATABASE_URL",),
        "gateways payments": ("PAYMENTS_READER_URL",),
        "coordinator migrate": ("USERS_DATABASE_URL", "PAYMENTS_READER_URL"),
        "coordinator status items": ("ITEMS_DATABASE_URL", "AMQP_URL"),
        "coordinator ingress": ("AMQP_URL",),
    }
    wrong = itertools.cycle(WRONG)
    runs = [(command.split(), name, next(wrong)) for command, names in settings.items() for name in names]

    def run(arguments: list[str], name: str, template: str) -> tuple[int | None, str]:
        right = urlsplit(system.environment[name])
        host = right.netloc.rpartition("@")[2]
        address = template.format(scheme=right.scheme, secret=SECRET, host=host)
        owners = {f"{each.upper()}_MIGRATION_URL": system.owner(each) for each in ("users", "items", "payments")}
        given = {name: address} | (owners if "migrate" in arguments else {})
        return seen.run(*arguments, **given), seen.texts[f"{' '.join(arguments)} {' '.join(given)}"]

    with ThreadPoolExecutor(3) as threads:
        ended = list(threads.map(lambda each: run(*each), runs))
    assert seen.with_secrets() == {}
    for (_, name, _), (status, text) in zip(runs, ended, strict=True):
        assert status == 2, (name, text)
        assert f"{name}: " in text
        assert len([line for line in text.splitlines() if not line.startswith("{")]) == 1, text
