"""Ending tasks that lose a cancellation, as drivers of databases make them."""

import ast
import asyncio
from pathlib import Path

import pytest

from coordinator.access.api_keys import KeyRing
from coordinator.access.keyed_ids import KeyedIds
from coordinator.runtime import ending
from coordinator.runtime.ending import AGAIN_S, end_tasks
from coordinator.transports.rabbitmq import amqp

PRODUCT = [path for folder in ("coordinator", "shared", "gateways") for path in Path(folder).rglob("*.py")]
DEADLINE_S = 10


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.01)


class Losing:
    """A call that loses as many cancellations as it is told to."""

    def __init__(self, times: int) -> None:
        self.times_left = times
        self.has_begun = asyncio.Event()

    async def __call__(self) -> None:
        try:
            self.has_begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.times_left == 0:
                raise
            self.times_left -= 1
            raise ConnectionRefusedError("the call has just ended") from None

    async def again_and_again(self) -> None:
        while True:
            try:
                await self()
            except ConnectionRefusedError:
                await asyncio.sleep(0)


@pytest.mark.parametrize("times", [0, 1, 5])
async def test_a_task_that_loses_cancellations_ends(times: int) -> None:
    call = Losing(times)
    task = asyncio.create_task(call.again_and_again())
    await call.has_begun.wait()
    async with asyncio.timeout(DEADLINE_S):
        await end_tasks(None, task)
    assert task.cancelled()
    assert call.times_left == 0


def test_no_connection_is_cut_short_while_it_closes() -> None:
    # It closes in the protocol's way, and then drops its socket: each may take that long.
    assert AGAIN_S > 2 * amqp._END_TIMEOUT_S


async def test_tasks_that_have_ended_are_not_waited_for() -> None:
    done = asyncio.create_task(asyncio.sleep(0, 7))
    await done
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    asyncio.get_running_loop().call_soon(count)
    await end_tasks(done)
    assert turns == 0


async def test_what_a_task_returned_or_raised_stays_with_it() -> None:
    async def raising() -> None:
        raise ValueError("seven")

    raised, returned = asyncio.create_task(raising()), asyncio.create_task(asyncio.sleep(0, 7))
    await asyncio.wait([raised, returned])
    await end_tasks(raised, returned)
    assert str(raised.exception()) == "seven"
    assert returned.result() == 7


async def test_no_error_of_an_ended_task_is_reported_as_lost() -> None:
    reported = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def raising() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("at its end")

    task = asyncio.create_task(raising())
    await asyncio.sleep(0)
    await end_tasks(task)
    del task
    await asyncio.sleep(0)
    assert reported == []


@pytest.mark.parametrize("kind", [KeyedIds, KeyRing])
async def test_what_reads_again_and_again_ends(kind: type[KeyedIds | KeyRing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.access.keyed_ids.READ_AGAIN_S", 0.0)
    lost = Losing(1)
    times_read = 0

    async def read() -> list[object]:
        nonlocal times_read
        times_read += 1
        if times_read > 1:
            await lost()
        raise ConnectionRefusedError("there is no server")

    reading = KeyedIds(read) if kind is KeyedIds else KeyRing(read, 0.0)  # type: ignore[arg-type]  # it returns nothing
    await reading.start()
    async with asyncio.timeout(DEADLINE_S):
        await lost.has_begun.wait()
        await reading.close()
    assert lost.times_left == 0


def calls_of(path: Path, name: str) -> list[ast.Call]:
    found = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call))
    return [call for call in found if isinstance(call.func, ast.Attribute) and call.func.attr == name]


def test_nobody_waits_for_a_task_that_is_cancelled_only_once() -> None:
    """`gather(…, return_exceptions=True)` after `cancel()` waits for ever for a task that lost it."""
    waiting = [
        str(path)
        for path in PRODUCT
        for call in calls_of(path, "gather")
        if any(keyword.arg == "return_exceptions" for keyword in call.keywords)
    ]
    # They gather outcomes, entries of logs, the ends of applications, and answers of Redis, and cancel nothing.
    assert sorted(waiting) == [
        "coordinator/client/command_log.py",
        "coordinator/http/tenants.py",
        "coordinator/operate/giving_orders.py",
        "coordinator/transports/redis/unable.py",
    ]


def test_nobody_loses_cancellations_by_wait_for() -> None:
    called = [(path, ast.unparse(call.func)) for path in PRODUCT for call in calls_of(path, "wait_for")]
    assert [str(path) for path, what in called if what == "asyncio.wait_for"] == []
