"""The process: its start, its refusals to start, its stop."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

import coordinator.http.server
from coordinator.dev.servers.process import die_with_parent
from coordinator.http import main
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from tests.support.forks import Forks
from tests.support.system import wait_until
from tests.unit.gateways.conftest import RunningGateway, Start

ROOT = Path(__file__).parents[3]
# Nothing listens on port 9: the broker, the database and the cache are away.
AWAY = {
    "AMQP_URL": "amqp://guest:guest@127.0.0.1:9/%2F",
    "USERS_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/users",
    "ITEMS_DATABASE_URL": "mongodb://127.0.0.1:9/items",
    "PAYMENTS_DATABASE_URL": "mysql://nobody@127.0.0.1:9/payments",
    "REDIS_URL": "redis://127.0.0.1:9/0",
}
ADA = {"name": "Ada", "email": "ada@example.org"}


async def run(*arguments: str, **environment: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateways",
        *arguments,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=PIPE,
        stderr=PIPE,
        # A test that fails leaves no process behind.
        preexec_fn=die_with_parent(signal.SIGKILL),
    )


async def ended(process: Process) -> tuple[int, str]:
    try:
        async with asyncio.timeout(30):
            _, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, stderr.decode()


async def port_of(process: Process) -> int:
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while line := await process.stderr.readline():
            event = json.loads(line)
            if event["body"] == "started":
                return int(event["port"])
    raise AssertionError("the gateway did not start")


async def said_until_started(*arguments: str, **environment: str) -> dict[str, Any]:
    """The first lines of a gateway that is started, by their events."""
    process = await run(*arguments, **environment)
    assert process.stderr is not None
    events: dict[str, Any] = {}
    try:
        async with asyncio.timeout(30):
            while "started" not in events and (line := await process.stderr.readline()):
                event = json.loads(line)
                events[event["body"]] = event
    finally:
        process.kill()
        await process.communicate()
    assert "started" in events
    return events


@pytest.mark.parametrize(("access", "tables"), [({}, ["users"]), ({"ACCESS_METHODS": "keys"}, None)])
async def test_a_gateway_that_asks_nobody_says_which_rows_have_rules_that_it_does_not_ask(
    access: dict[str, str], tables: list[str] | None
) -> None:
    events = await said_until_started("users", "--port", "0", **AWAY, **access)
    assert events.get("rules_not_asked", {}).get("tables") == tables


@pytest.mark.parametrize("reader", [{}, {"USERS_READER_URL": "postgresql://reader@127.0.0.1:9/users"}])
async def test_a_gateway_that_reads_as_a_role_that_may_write_says_so(reader: dict[str, str]) -> None:
    events = await said_until_started("users", "--port", "0", **AWAY, **reader)
    setting = events.get("reads_as_the_lane", {}).get("setting")
    assert setting == (None if reader else "USERS_READER_URL")


@pytest.mark.parametrize("closed", [(2,), (1,), (0, 1, 2)])
def test_a_gateway_without_standard_streams_lives_and_stops(closed: tuple[int, ...]) -> None:
    """A socket had the number of standard error, and the process aborted when it was closed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dying = die_with_parent(signal.SIGKILL)

    def closing() -> None:
        dying()
        for number in closed:
            os.close(number)

    process = subprocess.Popen(
        [sys.executable, "-m", "gateways", "users", "--port", str(port)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **AWAY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=closing,  # noqa: PLW1509  # it only closes
    )
    try:
        # Each look at the broker and the database has opened a socket, and closed it.
        for _ in range(3):
            wait_until(lambda: is_answered(process, port), "the gateway answers")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def is_answered(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "it has ended"
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.makefile("rb").read().startswith(b"HTTP/1.1 503")
    except ConnectionError:
        return False


@pytest.mark.parametrize("service", ["users", "items", "payments"])
async def test_a_gateway_lives_while_everything_else_is_away(service: str) -> None:
    process = await run(service, "--port", "0", **AWAY)
    try:
        address = f"http://127.0.0.1:{await port_of(process)}"
        async with aiohttp.ClientSession(address) as session:
            async with session.get("/healthz") as alive:
                assert alive.status == 200
            async with session.get("/readyz") as ready:
                body = await ready.json(content_type=None)
                assert (ready.status, body["checks"]["broker"], body["checks"]["database"]) == (
                    503,
                    "down",
                    "down",
                )
                assert body["checks"].get("cache") == ("down" if service == "items" else None)
            if service == "users":
                async with session.get("/users/1") as read:
                    assert (read.status, read.headers["Retry-After"]) == (503, "1")
                async with session.post("/users", json=ADA) as write:
                    assert (write.status, write.headers["Retry-After"]) == (503, "1")
                    assert (await write.json(content_type=None))["code"] == "broker_unavailable"
    finally:
        process.send_signal(signal.SIGTERM)
        code, stderr = await ended(process)
    assert code == 0, stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_stop_is_a_success(number: signal.Signals) -> None:
    # Tests that were started by `nohup` would hand on that SIGHUP is ignored.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        process = await run("users", "--port", "0", **AWAY)
    finally:
        signal.signal(signal.SIGHUP, before)
    await port_of(process)
    process.send_signal(number)
    assert (await ended(process))[0] == 0


async def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, stderr = await ended(await run("users", **AWAY, GATEWAY_PORT=port))
    assert code == 2
    message = stderr.strip().splitlines()[-1]
    assert all(part in message for part in (port, "--port", "GATEWAY_PORT", "in use"))
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"USERS_DATABASE_URL": ""}, "USERS_DATABASE_URL"),
        ({"USERS_DATABASE_URL": "mongodb://127.0.0.1:9/users"}, "SQL"),
        ({"GATEWAY_WAIT_S": "-1"}, "GATEWAY_WAIT_S"),
        ({"TELEMETRY_LOG_LEVEL": "LOUD"}, "TELEMETRY_LOG_LEVEL"),
        ({"AMQP_URL": "http://127.0.0.1"}, "AMQP_URL"),
    ],
)
def test_a_wrong_setting_is_named(forks: Forks, tmp_path: Path, changes: dict[str, str], named: str) -> None:
    process = forks.run(["gateways", "users", "--port", "0"], tmp_path / "log", AWAY | changes)
    assert process.wait(30)
    assert process.exit_status == 2
    said = process.log_tail(50)
    assert named in said
    assert "Traceback" not in said


async def test_an_unknown_service_is_answered_with_those_there_are() -> None:
    code, stderr = await ended(await run("orders"))
    assert code == 2
    assert "users" in stderr


async def test_a_gateway_imports_nothing_of_what_runs_a_lane() -> None:
    others = "{'alembic', 'coordinator.dev', 'coordinator.lane.lane', 'coordinator.operate', 'coordinator.worker'}"
    code = f"import sys, coordinator.http.main; sys.exit(bool({others} & set(sys.modules)))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    assert await process.wait() == 0


async def test_a_stop_waits_for_a_request_in_flight_no_longer_than_it_may(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator.http.server, "STOP_MARGIN_S", 0.05)
    users = await start("users", GatewaySettings(wait_s=0))
    users.writes.gate.clear()
    request = asyncio.create_task(users.call("POST", "/users", json=ADA))
    await users.writes.entered.wait()
    async with asyncio.timeout(5):
        await users.runner.cleanup()
    with pytest.raises(aiohttp.ClientError):
        await request


async def test_a_stop_lets_what_is_in_flight_finish(users: RunningGateway) -> None:
    users.writes.gate.clear()
    request = asyncio.create_task(users.call("POST", "/users", json=ADA))
    await users.writes.entered.wait()
    stop = asyncio.create_task(users.runner.cleanup())
    with pytest.raises(OSError):  # noqa: PT012  # until the port is closed
        async with asyncio.timeout(10):
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", users.port)
                writer.close()
    assert not stop.done()
    users.writes.gate.set()
    response, _ = await request
    assert response.status == 201
    await stop


def test_the_program_names_itself_as_it_is_called() -> None:
    command = [sys.executable, "-m", "gateways", "--help"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    used = "Usage: python -m gateways [OPTIONS] SERVICE...\n"
    assert ran.stdout.startswith(f"  $ python -m gateways seats --port 8081\n\n{used}")


def test_what_exits_within_it_is_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route of an author that calls `sys.exit` would end it as an operator does, with 0."""

    async def exits(*_: object) -> None:
        sys.exit()

    monkeypatch.setattr(main, "configure_logging", lambda *_: None)
    monkeypatch.setattr(main, "_serve", exits)
    with capture_logs() as lines:
        assert main.serve([main.Offered(registry().gateway("users"))], "127.0.0.1", 0) == 1
    assert [line["event"] for line in lines] == ["process_failed"]
