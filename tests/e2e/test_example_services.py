"""The services of docs/examples, in one process and on servers of each kind: traffic, and a kill -9 in its middle."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.service.rows import key_columns
from tests.support.databases import FreshDatabases
from tests.support.example_services import EXAMPLES, Answered, Example, Row
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


class Deployment(Protocol):
    """Where a service runs. Its process, or one of its processes, applies the commands."""

    url: str
    address: str

    def start(self) -> None:
        """Return once it is ready."""

    def strike(self) -> None:
        """Kill what applies the commands, and start it again; return once it is ready."""

    def stop(self) -> None:
        """Stop what is still running."""


class OneProcess:
    """`coordinator dev`: lane and gateway on a file."""

    def __init__(self, example: Example, folder: Path) -> None:
        self.address = f"sqlite:///{folder / example.name}.sqlite"
        example.at(self.address, example.fill)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "coordinator", "dev", example.target]
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            f"DEV_{example.name.upper()}_PORT": str(port),
            "DEV_OPERATIONS_PORT": str(free_port()),
            f"{example.name.upper()}_DATABASE_URL": self.address,
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
        self.address = owner
        example.at(owner, example.fill)
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


@pytest.fixture(
    params=[
        pytest.param((example, place), id=f"{place}-{example.name}")
        for place in (IN_ONE_PROCESS, *KINDS)
        for example in EXAMPLES
        if place in (IN_ONE_PROCESS, *example.kinds)
    ]
)
def case(request: pytest.FixtureRequest) -> tuple[Example, str]:
    """A service, and where it runs."""
    given: tuple[Example, str] = request.param
    return given


@pytest.fixture
def example(case: tuple[Example, str]) -> Example:
    return case[0]


@pytest.fixture
def deployment(request: pytest.FixtureRequest, case: tuple[Example, str], tmp_path: Path) -> Iterator[Deployment]:
    example, place = case
    deployment: Deployment
    if place == IN_ONE_PROCESS:
        deployment = OneProcess(example, tmp_path)
    else:
        databases: FreshDatabases = request.getfixturevalue("databases")
        system: System = request.getfixturevalue("system")
        deployment = OnServers(example, system, databases.new(KINDS[place]))
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
        urls = {
            model: f"{deployment.url}/{example.service.name}/{model.table}" for model in example.service.public_models
        }
        rows = {model.table: await _all_rows(session, url) for model, url in urls.items()}
        example.check(rows, answers)
        for model, url in urls.items():
            await _look_up(session, url, key_columns(model), rows[model.table])
    await asyncio.to_thread(example.at, deployment.address, example.look)


async def _all_rows(session: aiohttp.ClientSession, url: str) -> list[Row]:
    """In order of their keys, page by page."""
    rows: list[Row] = []
    after: Any = None
    while True:
        page = await _page(session, url, PAGE, after)
        rows += page["items"]
        if page["next"] is None:
            return rows
        after = page["next"]


async def _look_up(session: aiohttp.ClientSession, url: str, key: Sequence[str], rows: Sequence[Row]) -> None:
    """One row, and those behind it."""
    number = len(rows) // 2
    values = [rows[number][column] for column in key]
    async with session.get("/".join((url, *map(str, values)))) as response:
        assert response.status == 200, await response.text()
        assert await response.json() == rows[number]
    page = await _page(session, url, 5, values[0] if len(key) == 1 else values)
    assert page["items"] == rows[number + 1 : number + 6]


async def _page(session: aiohttp.ClientSession, url: str, limit: int, after: Any) -> Any:
    query = {"limit": str(limit)}
    if after is not None:
        query["after"] = json.dumps(after) if isinstance(after, list) else str(after)
    async with session.get(url, params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()
