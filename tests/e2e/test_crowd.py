"""A million messages wait for a lane, and it has 10,000 dead letters: whoever looks at it waits no longer for that.

Of `make crowd` alone: it measures times, and publishes for minutes. Each page's figures are printed.
"""

import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote
from urllib.request import Request, urlopen

import pika
import pytest
import redis
from click.testing import CliRunner
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.service.ids import new_command_id
from coordinator.transports.rabbitmq.rights import OPERATOR
from coordinator.transports.rabbitmq.topology import queue_name
from coordinator.transports.redis.keys import commands_key, counter_key
from coordinator.transports.redis.scripts import ADD, ENTRY_BYTES, NUMBER_MAX
from tests.support.brief import BRIEF
from tests.support.callers import key_of
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

pytestmark = [pytest.mark.crowd, pytest.mark.timeout(1800)]

WAITING: Final = int(os.environ.get("CROWD_MESSAGES", "20000" if BRIEF else "1000000"))
LETTERS: Final = 10_000
PAGE_MS_MAX: Final = 300
COMMAND_MS_MAX: Final = 2_500
"""Of the command line: `status` looks twice, a second apart."""
TRIES: Final = 5
BODY: Final = b'{"name":"A"}'

FILL: Final = f"""
    INSERT INTO dead_letters (
        id, source, target, command_id, type, origin, code, reason, sequence, size_bytes, arguments, traceback, copies,
        dead_at, options
    ) SELECT
        n, 'command ' || n, 'users', '01a20505-b7c5-73ed-8a97-' || lpad(to_hex(n), 12, '0'), 'users.create', 'public',
        'handler_error', repeat('why ', 100), n, 2000, convert_to('{{"name": "' || repeat('x', 2000) || '"}}', 'UTF8'),
        repeat('line ', 400), 1, now(), '{{}}'
    FROM generate_series(1, {LETTERS}) AS n
    """


@pytest.fixture(params=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "rabbitmq":
        return None
    found: RedisBroker = request.getfixturevalue("redis_broker")
    return found.url_of(OPERATOR)


def publish(system: System, redis_url: str | None) -> str:
    """All of them, and the id of the last one."""
    last = ""
    if redis_url is None:
        with system.broker() as channel:
            for _ in range(WAITING):
                last = new_command_id()
                properties = pika.BasicProperties(message_id=last, type="users.create", delivery_mode=2)
                channel.basic_publish("", queue_name("users"), BODY, properties)
        return last
    with redis.Redis.from_url(redis_url) as client:
        run = client.info("server")["run_id"]
        client.script_load(ADD.text)
        at = 0
        while at < WAITING:
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(min(1000, WAITING - at)):
                    last = new_command_id()
                    head = json.dumps({"id": last, "type": "users.create", "content": "application/json"})
                    keys = (commands_key("users", is_system=False), counter_key("users"))
                    pipeline.evalsha(ADD.sha, 2, *keys, run, 1 << 40, ENTRY_BYTES, head, BODY, NUMBER_MAX)
                    at += 1
                assert min(pipeline.execute()) > 0
    return last


class Looks:
    """What somebody looks at, and how long he waits for it."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def look(self, name: str, ask: Callable[[], Any]) -> Any:
        """The median of some tries."""
        spent_ms: list[float] = []
        for _ in range(TRIES):
            began_s = time.perf_counter()
            found = ask()
            spent_ms.append((time.perf_counter() - began_s) * 1000)
        self.ms[name] = statistics.median(spent_ms)
        return found


class Page:
    """Whoever has a session at the operations gateway."""

    def __init__(self, address: str, key: str) -> None:
        self._address = address
        body = json.dumps({"key": key}).encode()
        with urlopen(Request(f"{address}/api/session", body, {"Content-Type": "application/json"})) as answer:
            self._headers = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}

    def read(self, path: str) -> Any:
        with urlopen(Request(f"{self._address}{path}", headers=self._headers), timeout=60) as answer:
            return answer.read()

    def lane_in_events(self, backlog: int | None = None) -> Any:
        """The lane in the first event; in the first one that shows such a backlog, if one is given."""
        with urlopen(Request(f"{self._address}/api/events", headers=self._headers), timeout=60) as answer:
            for line in answer:
                if line.startswith(b"data:"):
                    lane = json.loads(line.removeprefix(b"data:"))["lanes"]["users"]
                    if backlog is None or lane["backlog"] == backlog:
                        return lane
        raise AssertionError("the events ended")


def add_letters(system: System) -> None:
    engine = sql_engine(system.owner("users"))
    with engine.begin() as connection:
        connection.execute(text(FILL))
    engine.dispose()


def test_nobody_who_looks_at_a_crowded_lane_waits_for_that(
    system: System, broker_url: str | None, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = system.environment
    redis_url = None
    if broker_url is not None:
        redis_url = request.getfixturevalue("redis_broker").url
        environment = {name: value for name, value in environment.items() if name != "AMQP_URL"}
        environment["BROKER_URL"] = broker_url
    system.prepare("users")
    # It makes the queue.
    system.start_coordinator("users").stop(signal.SIGTERM, 20)
    add_letters(system)
    last = publish(system, redis_url)
    key = key_of("ada", {"users": environment["USERS_DATABASE_URL"]}, "operator")
    system.start_operations("users")
    page = Page(system.urls["operations"], key)

    def waiting() -> int:
        return int(json.loads(run("status", "users", "--sample-s", "0.1"))[0]["ready"])

    def run(*words: str) -> str:
        ran = CliRunner().invoke(cli, [*words, "--json"], env=environment)
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
        return ran.stdout

    wait_until(lambda: waiting() >= WAITING, "all of them wait", timeout_s=300)
    looks = Looks()
    for path in (
        "/",
        "/api/lanes/users/letters",
        "/api/lanes/users/letters/5000",
        "/api/lanes/users/parked",
        "/api/lanes/users/commands",
        "/api/lanes/users/acts",
        f"/api/commands/{last}",
        f"/api/find?what={quote(last)}",
        "/api/find?what=17",
    ):
        looks.look(path.replace(last, "<waiting>"), partial(page.read, path))
    looks.look("/api/events, the first", page.lane_in_events)
    # The collector looks at the broker beside.
    assert page.lane_in_events(WAITING)["backlog"] == WAITING
    pages = dict(looks.ms)
    for words in (
        ("status", "users", "--sample-s", "0.1"),
        ("command", last),
        ("find", last),
        ("find", "17"),
        ("dead", "list", "users"),
        ("top", "users", "--rounds", "1"),
    ):
        looks.look(f"coordinator {' '.join(words)}".replace(last, "<waiting>"), partial(run, *words))
    with capsys.disabled():
        for name, ms in looks.ms.items():
            print(f"{ms:>8.0f} ms  {name}")
    if BRIEF:
        return
    assert {name: ms for name, ms in pages.items() if ms > PAGE_MS_MAX} == {}
    assert {name: ms for name, ms in looks.ms.items() if ms > COMMAND_MS_MAX} == {}
