"""docs/examples: a FastAPI and a Flask application with a lane, as their servers run them."""

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.server_set import ServerSet
from coordinator.transports.rabbitmq.rights import gateway_account
from tests.e2e.test_outages import query
from tests.support.accounts import as_account
from tests.support.databases import FreshDatabases
from tests.support.servers import quorum_queues_are_noted
from tests.support.system import System, wait_until
from tests.support.torn import TORN

pytestmark = pytest.mark.authors

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
WORKERS = 2
CLIENTS = 16
SEATS = 200
START_TIMEOUT_S = 60.0
WITHIN_S = 60.0
STARTS = {
    "fastapi": ["uvicorn", "fastapi_shop.app:app", "--workers", str(WORKERS), "--host", "127.0.0.1", "--port"],
    "flask": ["gunicorn", "--config", "python:flask_shop.gunicorn", "flask_shop.app:app", "--bind"],
}


class Shop:
    """An application under its server, with the lane of its seats."""

    def __init__(self, kind: str, process: Process, url: str, database: str) -> None:
        self.kind = kind
        self.process = process
        self.database = database
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: object = None, key: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        headers = {} if key is None else {"Idempotency-Key": key}
        async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None), dict(response.headers)

    async def settled(self, path: str, body: object, key: str) -> tuple[int, Any]:
        """Repeat it with its key until it is answered, as a careful client does."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    status, answer, _ = await self.call("POST", path, body, key)
                    if status not in (202, 503):
                        return status, answer
                except TORN:
                    pass
                await asyncio.sleep(0.05)

    def workers(self) -> list[int]:
        """Its processes that serve requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"resource_tracker" not in _command_line(pid)]


def _command_line(pid: str) -> bytes:
    """Of a process that has ended since it was listed: what no worker has."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b"resource_tracker"


@pytest.fixture
def seats_lane(
    databases: FreshDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[System, str]]:
    """The lane of the examples' seats, and the address of its database."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "seats", raising=False)
    service = importlib.import_module("seats").seats
    monkeypatch.delitem(sys.modules, "seats")
    database = databases.new("USERS_DATABASE_URL")
    # Without forks: theirs do not look where this service is.
    system = System(*databases.environments(), tmp_path)
    system.environment |= {"PYTHONPATH": str(EXAMPLES), "SEATS_READER_URL": database}
    system.prepare_other("seats:seats", service, database)
    system.start_coordinator("seats")
    yield system, database
    system.stop()


@pytest.fixture(params=STARTS)
async def shop(request: pytest.FixtureRequest, seats_lane: tuple[System, str], tmp_path: Path) -> AsyncIterator[Shop]:
    system, database = seats_lane
    port = free_port()
    *start, option = STARTS[request.param]
    place = str(port) if request.param == "fastapi" else f"127.0.0.1:{port}"
    log_path = tmp_path / f"{request.param}.log"
    # gunicorn has a socket there.
    account = gateway_account(f"{request.param}_shop")
    environment = system.environment | {
        "HOME": str(tmp_path),
        "AMQP_URL": as_account(system.environment["AMQP_URL"], account),
    }
    program = Path(sys.executable).parent / start[0]
    process = Process([program, *start[1:], option, place], log_path=log_path, environment=environment)
    shop = Shop(request.param, process, f"http://127.0.0.1:{port}", database)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                assert process.alive, process.log_tail(40)
                try:
                    if (await shop.call("GET", "/seats/1"))[0] == 404:
                        break
                except TORN:
                    await asyncio.sleep(0.1)
        yield shop
        await shop.close()
        await asyncio.to_thread(process.stop, signal.SIGTERM, 20)
        assert process.exit_status == 0, process.log_tail(40)
    finally:
        await shop.close()
        process.kill()
        print(process.log_tail(40))


async def test_a_seat_is_booked_once(shop: Shop) -> None:
    assert await shop.settled("/seats", {"place": "A1"}, "add") == (201, {"id": 1, "place": "A1", "holder": None})
    assert (await shop.settled("/seats", {"place": "A1"}, "add"))[0] == 201
    status, problem = await shop.settled("/seats", {"place": "A1"}, "add again")
    assert (status, problem["code"]) == (409, "place_taken")

    booked = (200, {"id": 1, "place": "A1", "holder": "ada"})
    for _ in range(3):
        # Whichever worker has it.
        assert await shop.settled("/seats/1/booking", {"holder": "ada"}, "order-1") == booked
    status, problem = await shop.settled("/seats/1/booking", {"holder": "bob"}, "order-2")
    assert (status, problem["code"]) == (409, "taken")
    status, problem = await shop.settled("/seats/1/booking", {"holder": "bob"}, "order-1")
    assert (status, problem["code"]) == (422, "idempotency_mismatch")
    status, problem = await shop.settled("/seats/9/booking", {"holder": "bob"}, "order-3")
    assert (status, problem["code"]) == (404, "seat_not_found")
    assert (await shop.call("GET", "/seats/1"))[:2] == booked

    for body, key in (({"place": "a"}, "wrong"), ({}, "missing"), ({"place": "A2"}, None), ({"place": 7}, "number")):
        assert (await shop.call("POST", "/seats", body, key))[0] == 422, (body, key)
    assert query(shop.database, "SELECT count(*) FROM command_log WHERE status = 'applied'") == [(2,)]


async def test_a_worker_that_is_killed_does_half_of_nothing(shop: Shop) -> None:
    """Each client repeats its request with its key. Every seat is added once, whatever became of the first try."""
    added = 0
    half = asyncio.Event()
    turns = asyncio.Semaphore(CLIENTS)

    async def add(number: int) -> tuple[int, Any]:
        nonlocal added
        async with turns:
            answer = await shop.settled("/seats", {"place": f"A{number}"}, f"add-{number}")
        added += 1
        if added == SEATS // 4:
            half.set()
        return answer

    adding = asyncio.gather(*(add(number) for number in range(SEATS)))
    async with asyncio.timeout(WITHIN_S):
        await half.wait()
    before = shop.workers()
    assert len(before) == WORKERS
    os.kill(before[0], signal.SIGKILL)
    assert not adding.done(), "the kill came too late to prove anything"
    answers = await adding
    assert {status for status, _ in answers} == {201}
    assert sorted(seat["id"] for _, seat in answers) == list(range(1, SEATS + 1))
    assert query(shop.database, "SELECT count(*), count(DISTINCT place) FROM seats") == [(SEATS, SEATS)]
    await asyncio.to_thread(
        wait_until, lambda: len(set(shop.workers()) - {before[0]}) == WORKERS, "there is another worker", shop.process
    )
    assert (await shop.settled("/seats/1/booking", {"holder": "ada"}, "order-1"))[0] == 200


@pytest.mark.faults
async def test_without_a_broker_it_answers_503_and_loses_nothing(shop: Shop, native_servers: ServerSet) -> None:
    await shop.settled("/seats", {"place": "A1"}, "add")
    await asyncio.to_thread(wait_until, lambda: quorum_queues_are_noted(native_servers.rabbitmq), "the queue survives")
    await asyncio.to_thread(native_servers.rabbitmq.kill)
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                status, problem, headers = await shop.call("POST", "/seats/1/booking", {"holder": "ada"}, "order-1")
                assert status == 503, (status, problem)
                assert headers["Retry-After"] == "1"
                assert "127.0.0.1" not in problem["message"], "strangers learn no server's address"
                if problem["code"] == "broker_unavailable":
                    break
        assert (await shop.call("GET", "/seats/1"))[0] == 200, "reads go to the database"
    finally:
        await asyncio.to_thread(native_servers.rabbitmq.start)
    booked = (200, {"id": 1, "place": "A1", "holder": "ada"})
    assert await shop.settled("/seats/1/booking", {"holder": "ada"}, "order-1") == booked
    assert (await shop.settled("/seats/1/booking", {"holder": "bob"}, "order-2"))[0] == 409
