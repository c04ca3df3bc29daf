"""One client that asks for as much as it can, and heeds no refusal: the others wait at most twice as long."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from tests.e2e.test_access import ADA, call, keys
from tests.support.brief import BRIEF
from tests.support.system import System, wait_until

ROUNDS = 1 if BRIEF else 4
WRITES = 100
"""Of the honest client in each half of a round."""
CONNECTIONS = 200
"""Of the greedy one."""
PAUSE_S = 0.02
"""Between two writes of the honest client, which keeps to its rate however fast the machine is."""
SLACK_S = 0.03
"""What a busy machine may add."""

FLOOD = """
import asyncio, sys, aiohttp
async def ask(session, url, counts):
    while True:
        async with session.post(url, json={"amount": 1}) as answer:
            await answer.read()
            counts[answer.status] = counts.get(answer.status, 0) + 1
async def main(url, key, connections):
    counts = {}
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer " + key}) as session:
        asks = [asyncio.create_task(ask(session, url, counts)) for _ in range(connections)]
        while 429 not in counts and sum(counts.values()) < 2000:
            await asyncio.sleep(0.01)
        print("flooding", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for each in asks:
            each.cancel()
        print(counts, flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@contextmanager
def flood(url: str, key: str) -> Iterator[None]:
    """In a process of its own, until the end of the block."""
    program = [sys.executable, "-c", FLOOD, url, key, str(CONNECTIONS)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "flooding\n"
            yield
        finally:
            process.stdin.close()
            print(process.stdout.read())
    assert process.returncode == 0


async def latencies_s(session: aiohttp.ClientSession, url: str) -> list[float]:
    """Of writes one after the other."""
    found = []
    for _ in range(WRITES):
        began_s = time.perf_counter()
        async with session.post(url, json={"amount": 1}) as answer:
            assert answer.status == 200, await answer.text()
        found.append(time.perf_counter() - began_s)
        await asyncio.sleep(PAUSE_S)
    return found


def p99_s(found: list[float]) -> float:
    return sorted(found)[len(found) * 99 // 100]


async def measured(system: System, limits: dict[str, str]) -> tuple[float, float]:
    """The 99th percentile of an honest client alone, and beside a greedy one, in turns."""
    system.prepare("users")
    system.start_coordinator("users")
    system.start_gateway("users", ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.2", **limits)
    # What is written here is for cashiers: nobody adds to his own credit.
    made = [keys(system, "create", "users", "--subject", who, "--scope", "cashier") for who in ("honest", "greedy")]
    honest, greedy = (each["key"] for each in made)
    wait_until(lambda: {call(system, "/users", each)[0] for each in (honest, greedy)} == {200}, "the keys count")
    user: Any = call(system, "/users", honest, ADA)[1]
    url = f"{system.urls['users']}/users/{user['id']}/credit"
    alone: list[float] = []
    beside: list[float] = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {honest}"}) as session:
        await latencies_s(session, url)
        for _ in range(ROUNDS):
            alone += await latencies_s(session, url)
            with flood(url, greedy):
                beside += await latencies_s(session, url)
    print(json.dumps({"alone_p99_ms": p99_s(alone) * 1000, "beside_p99_ms": p99_s(beside) * 1000}))
    return p99_s(alone), p99_s(beside)


@pytest.mark.flood
async def test_a_greedy_client_makes_others_wait_at_most_twice_as_long(system: System) -> None:
    limits = {"GATEWAY_PRINCIPAL_RATE_MAX": "100", "GATEWAY_PRINCIPAL_BURST_MAX": "500"}
    alone_s, beside_s = await measured(system, limits)
    assert BRIEF or beside_s <= 2 * alone_s + SLACK_S
