"""A name whose server does not answer keeps nothing else waiting."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from coordinator.runtime.event_loop import new_event_loop

WITHIN_S = 2.0
HUNG = tuple(f"hung-{number}.example" for number in range(8))
"""More than uvloop, or an executor, looks up at a time."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that were looked up."""
    real, answered, names = socket.getaddrinfo, threading.Event(), list[str]()

    def resolve(host: Any, *arguments: Any) -> Any:
        names.append(host)
        if host in HUNG:
            answered.wait()
        return real("localhost", *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield names
    answered.set()


def test_other_names_are_found_meanwhile_and_the_end_waits_for_no_name(asked: list[str]) -> None:
    began_s = time.monotonic()

    async def look_up() -> None:
        loop = asyncio.get_running_loop()
        hung = [asyncio.create_task(loop.getaddrinfo(name, 1)) for name in (*HUNG, *HUNG)]
        async with asyncio.timeout(WITHIN_S):
            assert await loop.getaddrinfo("other.example", 80, type=socket.SOCK_STREAM)
        # Who asks for the same meanwhile waits for the same answer.
        assert sorted(asked) == sorted([*HUNG, "other.example"])
        for each in hung:
            assert not each.done()
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(look_up())
    assert time.monotonic() - began_s < WITHIN_S


def test_a_name_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    async def look_up() -> None:
        with pytest.raises(socket.gaierror, match="not known"):
            await asyncio.get_running_loop().getaddrinfo("none.example", 1)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(look_up())


def test_a_name_is_looked_up_once_for_a_connection(asked: list[str]) -> None:
    async def connect() -> None:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            asked.clear()
            _, writer = await asyncio.open_connection("one.example", port, family=socket.AF_INET)
            writer.close()
        # Some releases of Python then ask for the address that was found, too: no resolver is asked for that.
        assert [name for name in asked if name != "127.0.0.1"] == ["one.example"]

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(connect())


def test_a_name_is_found_once_there_is_a_thread_for_it(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def look_up() -> None:
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", refuse)
            with pytest.raises(OSError, match="can't start new thread"):
                await loop.getaddrinfo("late.example", 1)
        async with asyncio.timeout(WITHIN_S):
            assert await loop.getaddrinfo("late.example", 1)
        assert asked == ["late.example"]

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(look_up())
