"""The services of docs/examples, in one process and on servers of each kind: traffic, and a kill -9 in its middle."""

import asyncio
import importlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.service.service import Service
from tests.support.databases import FreshDatabases
from tests.support.system import Client, System, wait_ready

pytestmark = [pytest.mark.timeout(300), pytest.mark.faults]

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = 16
WRITES: Final = 600
STRUCK_AFTER: Final = 200
PAGE: Final = 100
KINDS: Final = {
    "PostgreSQL": "USERS_DATABASE_URL",
    "MySQL": "PAYMENTS_DATABASE_URL",
    "MongoDB": "ITEMS_DATABASE_URL",
}
IN_ONE_PROCESS: Final = "one process"

Row = dict[str, Any]
Rows = dict[str, list[Row]]
Asked = tuple[str, dict[str, Any]]
"""The name of a command, and its arguments."""


@dataclass(frozen=True)
class Answered:
    """What a client was told in the end, however often it had to ask."""

    command: str
    sent: dict[str, Any]
    status: int
    body: Row

    @property
    def is_applied(self) -> bool:
        return self.status == 200


@dataclass(frozen=True)
class Example:
    """One service, what is asked of it, and what must hold afterwards.

    `traffic` is given the results of `opening`. `check` is given all rows and all answers, without those of `opening`.
    """

    module: str
    opening: Sequence[Asked]
    traffic: Callable[[random.Random, Sequence[Row]], Asked]
    check: Callable[[Rows, Sequence[Answered]], None]

    @property
    def target(self) -> str:
        return f"docs.examples.{self.module}:{self.module}"

    @property
    def service(self) -> Service:
        service = getattr(importlib.import_module(f"docs.examples.{self.module}"), self.module)
        assert isinstance(service, Service)
        return service


def _stock_traffic(draw: random.Random, articles: Sequence[Row]) -> Asked:
    match draw.randrange(10):
        case 0:
            return "list", {"code": f"B{draw.randrange(20)}", "price": "1.05", "pieces": 1}
        case 1 | 2 | 3:
            return "give_back", {"id": draw.randint(1, 100)}
    return "take", {"article": draw.choice(articles)["id"], "pieces": draw.randint(1, 3)}


def _check_stock(rows: Rows, answers: Sequence[Answered]) -> None:
    taken = rows["taken"]
    assert [each["id"] for each in taken] == list(range(1, len(taken) + 1)), "numbers have no gaps"
    applied = Counter(each.command for each in answers if each.is_applied)
    assert len(taken) == applied["take"] > 0
    given_back = [each.sent["id"] for each in answers if each.command == "give_back" and each.is_applied]
    assert sorted(given_back) == sorted(set(given_back)), "what was taken is given back once"
    assert sorted(given_back) == [each["id"] for each in taken if each["status"] == "given_back"]
    codes = [each["code"] for each in rows["articles"]]
    assert len(codes) == len(set(codes)) == applied["list"] + 2
    for article in rows["articles"]:
        out = [each for each in taken if each["article"] == article["id"] and each["status"] == "taken"]
        pieces = {"A1": 100, "A2": 50}.get(article["code"], 1)
        assert article["pieces"] == pieces - sum(each["pieces"] for each in out) >= 0
        for each in out:
            assert Decimal(each["amount"]) == Decimal(article["price"]) * each["pieces"]


def _profile_traffic(draw: random.Random, people: Sequence[Row]) -> Asked:
    key = draw.choice(people)["id"]
    match draw.randrange(10):
        case 0:
            return "register", {"handle": f"new_{draw.randrange(10)}", "born": "1815-12-10"}
        case 1 | 2 | 3:
            address = {"label": f"label {draw.randrange(15)}", "street": "Straße 7", "city": "Łódź"}
            return "add_address", {"id": key, "address": address}
    return "prefer", {"id": key, "name": f"n{draw.randrange(5)}", "value": draw.choice([None, True, "dark", 7, "été"])}


def _check_profiles(rows: Rows, answers: Sequence[Answered]) -> None:
    handles = [each["handle"] for each in rows["profiles"]]
    applied = Counter(each.command for each in answers if each.is_applied)
    assert len(handles) == len(set(handles)) == applied["register"] + 3
    refused = {each.body["code"] for each in answers if not each.is_applied}
    assert refused <= {"handle_taken", "too_many_addresses"}
    for person in rows["profiles"]:
        assert len(person["addresses"]) == len({each["label"] for each in person["addresses"]}) <= 10
        changes = sum(each.is_applied and each.sent.get("id") == person["id"] for each in answers)
        assert person["version"] == 1 + changes, "each change counts its version up, once"
        last = max(
            (each.body for each in answers if each.body.get("id") == person["id"]), key=lambda row: row["version"]
        )
        assert last == person


EXAMPLES: Final = [
    Example(
        "stock",
        [
            ("list", {"code": "A1", "price": "9.90", "pieces": 100}),
            ("list", {"code": "A2", "price": "0.01", "pieces": 50}),
        ],
        _stock_traffic,
        _check_stock,
    ),
    Example(
        "profiles",
        [("register", {"handle": name}) for name in ("ada", "bob", "cy")],
        _profile_traffic,
        _check_profiles,
    ),
]


class Deployment(Protocol):
    """Where a service runs. Its process, or one of its processes, applies the commands."""

    url: str

    def start(self) -> None:
        """Return once it is ready."""

    def strike(self) -> None:
        """Kill what applies the commands, and start it again; return once it is ready."""

    def stop(self) -> None:
        """Stop what is still running."""


class OneProcess:
    """`coordinator dev`: lane and gateway on a file."""

    def __init__(self, example: Example, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "coordinator", "dev", example.target]
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            f"DEV_{example.module.upper()}_PORT": str(port),
        }
        self._folder = folder
        self._process: Process | None = None

    def start(self) -> None:
        log_path = self._folder / "dev.log"
        self._process = Process(self._command, log_path=log_path, environment=self._environment, directory=self._folder)
        wait_ready(f"{self.url}/readyz", self._process)

    def strike(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGTERM, 30.0)
            assert self._process.exit_status == 0, self._process.log_tail(40)


class OnServers:
    """RabbitMQ, a database of one kind, an active coordinator, one that stands by, and a gateway."""

    def __init__(self, example: Example, system: System, owner: str) -> None:
        self._name = example.service.name
        self._system = system
        system.prepare_other(example.target, example.service, owner)
        self.url = ""

    def start(self) -> None:
        active, url = self._system.launch_coordinator(self._name, {})
        wait_ready(url, active)
        self._active = active
        standing_by = self._system.launch_coordinator(self._name, {})
        gateway = self._system.launch_gateway(self._name, {})
        for process, ready in (standing_by, gateway):
            wait_ready(ready, process)
        self.url = self._system.urls[self._name]

    def strike(self) -> None:
        self._active.kill()

    def stop(self) -> None:
        """The system stops its processes itself."""


@pytest.fixture(params=[pytest.param(example, id=example.module) for example in EXAMPLES])
def example(request: pytest.FixtureRequest) -> Example:
    given: Example = request.param
    return given


@pytest.fixture(params=[IN_ONE_PROCESS, *KINDS])
def deployment(request: pytest.FixtureRequest, example: Example, tmp_path: Path) -> Iterator[Deployment]:
    deployment: Deployment
    if request.param == IN_ONE_PROCESS:
        deployment = OneProcess(example, tmp_path)
    else:
        databases: FreshDatabases = request.getfixturevalue("databases")
        system: System = request.getfixturevalue("system")
        deployment = OnServers(example, system, databases.new(KINDS[request.param]))
    yield deployment
    deployment.stop()


async def test_traffic_through_a_kill_is_applied_once_and_as_it_was_answered(
    deployment: Deployment, example: Example
) -> None:
    await asyncio.to_thread(deployment.start)
    draw = random.Random(7)
    async with aiohttp.ClientSession() as session:
        client = Client(session, deployment.url)
        path = f"/{example.service.name}/commands"
        opened = [
            await client.write(f"{path}/{name}", body, f"opening-{number}")
            for number, (name, body) in enumerate(example.opening)
        ]
        assert {status for status, _ in opened} == {200}, opened
        asked = [example.traffic(draw, [row for _, row in opened]) for _ in range(WRITES)]
        answers: list[Answered] = []
        enough = asyncio.Event()
        next_one = iter(enumerate(asked))

        async def issue() -> None:
            for number, (name, body) in next_one:
                status, answer = await client.write(f"{path}/{name}", body, f"write-{number}")
                answers.append(Answered(name, body, status, answer))
                if len(answers) == STRUCK_AFTER:
                    enough.set()

        async def strike() -> None:
            await enough.wait()
            await asyncio.to_thread(deployment.strike)

        await asyncio.gather(strike(), *(issue() for _ in range(CLIENTS)))
        assert len(answers) == WRITES
        assert {each.status for each in answers} <= {200, 404, 409}
        tables = {model.table for model in example.service.public_models}
        example.check({table: await _all_rows(session, deployment.url, example, table) for table in tables}, answers)


async def _all_rows(session: aiohttp.ClientSession, url: str, example: Example, table: str) -> list[Row]:
    """In order of their keys, page by page."""
    rows: list[Row] = []
    after: str | None = None
    while True:
        query = {"limit": str(PAGE)} | ({} if after is None else {"after": after})
        async with session.get(f"{url}/{example.service.name}/{table}", params=query) as response:
            assert response.status == 200, await response.text()
            page = await response.json()
        rows += page["items"]
        if page["next"] is None:
            return rows
        after = str(page["next"])
