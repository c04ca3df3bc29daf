"""The table of a run's faults says in which state each found its lane, and which states none did."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from coordinator.dev.servers.addresses import HOST
from tests.faults.fleet import Slot
from tests.faults.plan import Kind
from tests.faults.proxy import TcpProxy
from tests.faults.states import State, Struck, state_of, table_of

Coordinator = Callable[..., Any]


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    """What a coordinator says of itself, and whether its database owes it an answer; of one that is gone, nothing."""
    async with AsyncExitStack() as stack:

        async def start(epoch: int, unacknowledged: int = 0, status: int = 200, *, asked: bool = False) -> Slot:
            async def metrics(_: web.Request) -> web.Response:
                return web.Response(
                    text=f'coordinator_lane_epoch{{lane="users"}} {epoch:.1f}\n'
                    f'coordinator_lane_unacknowledged{{lane="users"}} {unacknowledged:.1f}\n'
                )

            async def readyz(_: web.Request) -> web.Response:
                return web.Response(status=status)

            app = web.Application()
            app.router.add_get("/metrics", metrics)
            app.router.add_get("/readyz", readyz)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, HOST, 0)
            await site.start()
            member, database = SimpleNamespace(url=f"http://{HOST}:{site.port}"), SimpleNamespace(is_asked=asked)
            return Slot(cast(Any, member), cast(Any, database), cast(Any, None))

        yield start


GONE = Slot(cast(Any, SimpleNamespace(url=f"http://{HOST}:9")), cast(Any, None), cast(Any, None))


async def test_the_active_one_says_in_which_state_its_lane_is(coordinator: Coordinator) -> None:
    standby = await coordinator(0)
    async with aiohttp.ClientSession() as session:
        for active, state in (
            (await coordinator(3), State.IDLE),
            (await coordinator(3, 5), State.WAITING),
            (await coordinator(3, 5, asked=True), State.IN_A_BATCH),
            (await coordinator(3, 5, 503, asked=True), State.SUSPENDED),
            (await coordinator(0, 0, 503), State.VACANT),
            (GONE, State.VACANT),
        ):
            assert await state_of([standby, active], session) is state


async def test_of_two_that_believe_to_be_active_the_later_is_asked(coordinator: Coordinator) -> None:
    async with aiohttp.ClientSession() as session:
        assert await state_of([await coordinator(4, 1), await coordinator(3, 1, asked=True)], session) is State.WAITING


async def test_a_proxy_knows_whether_its_server_owes_an_answer() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        asked.set()
        await answer.wait()
        writer.write(b"yes")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server, TcpProxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        seen = [proxy.is_asked]
        writer.write(b"it?")
        await asked.wait()
        seen.append(proxy.is_asked)
        answer.set()
        assert await reader.readexactly(3) == b"yes"
        seen.append(proxy.is_asked)
        writer.close()
    assert seen == [False, True, False]


def test_the_table_has_each_kind_with_its_states_and_names_the_states_that_no_fault_found() -> None:
    struck = [
        Struck(Kind.KILL_ACTIVE, "users", State.IN_A_BATCH, is_on_top=False),
        Struck(Kind.KILL_ACTIVE, "items", State.IN_A_BATCH, is_on_top=True),
        *(Struck(Kind.KILL_BROKER, lane, State.WAITING, is_on_top=False) for lane in ("users", "items", "payments")),
    ]
    lines = table_of({str(Kind.KILL_ACTIVE): 2, str(Kind.KILL_BROKER): 1}, struck)
    assert [" ".join(line.split()) for line in lines[1:3]] == [
        f"2 {Kind.KILL_ACTIVE} 2 1",
        f"1 {Kind.KILL_BROKER} 3",
    ]
    head, active, broker, every = lines[:4]
    assert active.index("2", 10) + 1 == head.index(State.IN_A_BATCH) + len(State.IN_A_BATCH)
    assert broker.index("3", 10) + 1 == head.index(State.WAITING) + len(State.WAITING)
    assert every.split() == ["3", "all", "2", "3", "1"]
    assert lines[4].strip() == "no fault found a lane that was vacant or suspended or at COMMIT or idle"
