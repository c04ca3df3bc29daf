"""An operations gateway in this process, and the lane that it operates: on a file, with commands and dead letters."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from coordinator.http.server import create_runner
from coordinator.migrations.migrate import migrate
from coordinator.operations.main import operations_app
from coordinator.operations.sessions import MARK_HEADER
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import APP_SETTING
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.service.ids import new_command_id
from coordinator.transports.inprocess.operators_socket import operators_socket, socket_beside
from coordinator.worker.inprocess import InProcessWrites
from coordinator.writing import open_store
from tests.support.callers import key_of
from tests.support.seats import seats

LANE = "seats"
COMMANDS = 20
"""So many are applied, and so many are letters."""


class OperatedLane:
    """A running operations gateway, and an operator's headers there: those of his session, and of what he changes."""

    def __init__(self, address: str, session: dict[str, str], mark: dict[str, str]) -> None:
        self.address = address
        self.session = session
        self.mark = mark


@contextmanager
def operated_lane(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[OperatedLane]:
    """Serve it, and run its lane, for as long as the block runs."""
    url = f"sqlite:///{directory}/seats.sqlite"
    patch.setenv(APP_SETTING, "tests.support.seats:seats")
    patch.setenv("SEATS_DATABASE_URL", url)
    patch.setenv("ACCESS_METHODS", "keys")
    patch.setenv("OPERATIONS_WAIT_S", "1")
    patch.delenv("AMQP_URL", raising=False)
    migrate(seats, DatabaseSettings(database_url=url))
    key = key_of("ada", {LANE: url}, "operator")
    with _in_a_thread() as run, _closing(run) as stack:
        yield run(_serve(stack, url, directory, key))


async def _serve(stack: AsyncExitStack, url: str, directory: Path, key: str) -> OperatedLane:
    lanes = InProcessWrites({LANE: open_store(url, seats)}, [seats], addresses={LANE: url})
    await stack.enter_async_context(lanes)
    await stack.enter_async_context(operators_socket(socket_beside(directory / "seats.sqlite"), lanes))
    for number in range(1, COMMANDS + 1):
        arguments = b'{"id":%d,"code":"A%d"}' % (number, number)
        for command_type in ("seats.add", "seats.nonsense"):
            await lanes.issue(LANE, CommandMessage(new_command_id(), command_type, arguments), None)
    app = operations_app([LANE], "127.0.0.1", GatewaySettings())
    runner = create_runner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(f"{address}/api/session", json={"key": key}) as answer:
            assert answer.status == 204
            (cookie,) = answer.cookies.values()
        async with session.get(f"{address}/api/session") as answer:
            mark = (await answer.json())["mark"]
    return OperatedLane(address, {"Cookie": f"{cookie.key}={cookie.value}"}, {MARK_HEADER: mark})


@contextmanager
def _in_a_thread() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """An event loop of another thread, and what has it run something."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="operations")
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _closing(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Iterator[AsyncExitStack]:
    stack = AsyncExitStack()
    try:
        yield stack
    finally:
        run(stack.aclose())
