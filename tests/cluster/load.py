"""Clients who wait for each of their writes, and how long none of them was answered."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import NamedTuple

import aiohttp
import pytest

from tests.support.callers import HEADERS
from tests.support.torn import TORN

CLIENTS = 16
PAUSE_S = 0.05
ANSWERED_WITHIN_S = 40.0


class Write(NamedTuple):
    """What each client asks for, again and again. Each answer counts one more than the one before it in the lane."""

    path: str
    body: dict[str, object]
    """`{key}` in a text is the write's own."""
    status: int
    counts: str
    """The field of the answer."""


CREDIT = Write("/users/1/credit", {"amount": 1}, 200, "credit")
USER = Write("/users", {"name": "Ada", "email": "{key}@example.org"}, 201, "id")
PAYMENT = Write("/payments", {"user_id": 1, "amount": 9900, "currency": "EUR"}, 201, "id")


class Load:
    """Each client writes again and again, under a key of its own for each write, until `stop`."""

    def __init__(self, url: str, write: Write = CREDIT) -> None:
        self._url = url
        self._write = write
        self._is_over = False
        self._has_answered = asyncio.Event()
        self.answered_at_s: list[float] = []
        self.counts: list[list[int]] = [[] for _ in range(CLIENTS)]
        """By client: what each of its answers counts."""
        self.sequences: list[list[int]] = [[] for _ in range(CLIENTS)]
        """The same for its place in the lane's order."""
        self.others: Counter[str] = Counter()
        """What clients were told in place of an outcome, after which they asked again."""

    @property
    def silence_s(self) -> float:
        """The longest time without a success."""
        return max((after - before for before, after in pairwise(sorted(self.answered_at_s))), default=float("inf"))

    def check_order(self) -> None:
        """All acknowledged writes were applied once, none beside them, and each client's in its order."""
        for own in self.counts:
            assert own == sorted(own)
        told = sorted(count for own in self.counts for count in own)
        assert told == list(range(1, len(told) + 1))

    def check_numbers(self) -> None:
        """No place in the lane's order was given twice, and no number; each client's are in its order."""
        for of_clients in (self.counts, self.sequences):
            for own in of_clients:
                assert own == sorted(own)
            told = [number for own in of_clients for number in own]
            assert len(set(told)) == len(told)

    def report(self, what: str) -> str:
        others = dict(self.others) or "no error"
        return f"{what}: {self.silence_s:.2f} s without a success; {len(self.answered_at_s)} answers; {others}"

    async def wait_for_answers(self, more: int) -> None:
        """Return once so many more answers have come."""
        wanted = len(self.answered_at_s) + more
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            while len(self.answered_at_s) < wanted:
                self._has_answered.clear()
                await self._has_answered.wait()

    def stop(self) -> None:
        """Each client waits for its last answer, and then ends."""
        self._is_over = True

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=CLIENTS)
        async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session, asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._be_client(session, number))

    async def _be_client(self, session: aiohttp.ClientSession, number: int) -> None:
        for write in count():
            if self._is_over:
                return
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                counted, sequence = await self._written(session, f"client-{number}-{write}")
            self.answered_at_s.append(time.monotonic())
            self.counts[number].append(counted)
            self.sequences[number].append(sequence)
            self._has_answered.set()

    async def _written(self, session: aiohttp.ClientSession, key: str) -> tuple[int, int]:
        url, headers = f"{self._url}{self._write.path}", {"Idempotency-Key": key}
        asked = {
            name: value.format(key=key) if isinstance(value, str) else value for name, value in self._write.body.items()
        }
        while True:
            try:
                async with session.post(url, json=asked, headers=headers) as answer:
                    body = await answer.json(content_type=None)
                    if answer.status == self._write.status:
                        return int(body[self._write.counts]), int(answer.headers["Command-Sequence"])
                    self.others[f"{answer.status} {body.get('code')}: {body.get('detail')}"] += 1
            except TORN as error:
                self.others[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def under_load(url: str, write: Write = CREDIT) -> AsyncIterator[Load]:
    """Clients at work; after the block each has its last answer."""
    load = Load(url, write)
    running = asyncio.create_task(load.run())
    try:
        await load.wait_for_answers(100)
        yield load
        await load.wait_for_answers(100)
    finally:
        load.stop()
        await running


def judge(load: Load, what: str, silence_s_max: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Say how long nobody was answered; nothing may be lost, nobody told of an error, and no silence be longer."""
    with capsys.disabled():
        print(f"\n{load.report(what)}")
    load.check_order()
    assert not load.others
    assert load.silence_s <= silence_s_max, load.report(what)
