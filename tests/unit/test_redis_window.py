"""What a consumer of Redis has read and the lane has not settled: so many bytes, beside what the lane keeps back."""

import asyncio
from typing import Any

import pytest
import redis

from coordinator.transports.redis import window
from coordinator.transports.redis.entries import Head, StreamEntry
from coordinator.transports.redis.lane_lease import LaneLease
from coordinator.transports.redis.window import EntryWindow

PREFETCH = 8


class Connection:
    """Takes out whatever it is told to."""

    def run_script(self, *_: object) -> "asyncio.Future[int]":
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answer.set_result(1)
        return answer


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch) -> EntryWindow:
    monkeypatch.setattr(window, "BYTES_MAX", 20)
    connection: Any = Connection()
    return EntryWindow("one", connection, LaneLease("one", connection, 10.0), PREFETCH, lambda: None)


def read(opened: EntryWindow, count: int) -> list[int]:
    """Of ten bytes each."""
    return [
        opened.delivered(StreamEntry(b"1-%d" % each, Head(), b"x" * 10, 10, is_system=False, size_bytes=10), 0.0)
        for each in range(count)
    ]


async def test_it_is_full_of_bytes_until_they_are_settled(opened: EntryWindow) -> None:
    tags = read(opened, 2)
    assert opened.room == 0
    opened.settle(tags)
    assert opened.room == PREFETCH


async def test_what_the_lane_keeps_back_leaves_room_for_what_it_waits_for(opened: EntryWindow) -> None:
    read(opened, 2)
    opened.keep_back()
    assert opened.room == PREFETCH - 2
    async with asyncio.timeout(5):
        await opened.wait_for_room()


async def test_what_was_kept_back_and_is_settled_leaves_no_room_for_others(opened: EntryWindow) -> None:
    kept_back = read(opened, 2)
    opened.keep_back()
    read(opened, 2)
    assert opened.room == 0
    opened.settle(kept_back)
    assert opened.room == 0


async def test_there_are_never_more_than_the_prefetch(opened: EntryWindow) -> None:
    for _ in range(PREFETCH // 2):
        read(opened, 2)
        opened.keep_back()
    assert opened.room == 0


async def test_a_window_with_room_keeps_counting(opened: EntryWindow) -> None:
    read(opened, 1)
    opened.keep_back()
    read(opened, 1)
    assert opened.room == 0


class Refusing:
    """Refuses a right to take anything out, after a while in which more is settled."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.refuses = True

    def run_script(self, _script: object, _keys: object, *arguments: Any) -> "asyncio.Future[int]":
        self.asked.append(len(arguments) - 4)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.002, self._answer, answer)
        return answer

    def _answer(self, answer: "asyncio.Future[int]") -> None:
        if self.refuses:
            answer.set_exception(redis.ResponseError("NOPERM this user has no permissions to run the 'xdel' command"))
        else:
            answer.set_result(1)


async def test_while_a_right_is_missing_all_that_waits_is_not_sent_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "_AGAIN_S", 0.2)
    monkeypatch.setattr(window, "TAKEN_OUT_MAX", 10)
    refusing = Refusing()
    connection: Any = refusing
    opened = EntryWindow("one", connection, LaneLease("one", connection, 10.0), PREFETCH, lambda: None)
    for _ in range(150):
        opened.settle(read(opened, 1))
        await asyncio.sleep(0.002)
    assert opened.refusal is not None
    assert len(refusing.asked) <= 10
    refusing.asked.clear()
    refusing.refuses = False
    await asyncio.sleep(0.5)
    assert not opened.refusal
    # Some may have been on their way.
    assert sum(refusing.asked) >= 140
