"""Faults below the composed system, and changes of it: its clients hear as little of them as may be."""

import asyncio
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from tests.compose.composed import Composed
from tests.compose.load import Load
from tests.support.compose_file import COMPOSE_FILE

pytestmark = pytest.mark.timeout(900)

THREE_GATEWAYS = ("--no-recreate", "--scale", "users-gateway=3")


@pytest.fixture
async def load(composed: Composed, session: aiohttp.ClientSession, request: pytest.FixtureRequest) -> Load:
    load = Load(session, composed.url("users"))
    await load.prepare(f"{request.node.name}@example.org")
    return load


async def all_are_answered(load: Load) -> None:
    """Each write was 200 at the first try, and counts once."""
    print(f"{load.applied} writes, first answers {dict(load.seen)}, slowest {load.slowest_s:.2f} s")
    assert set(load.seen) == {"200"}
    assert await load.credit() == load.applied


async def test_a_killed_coordinator_is_followed_by_its_standby(composed: Composed, load: Load) -> None:
    active = await asyncio.to_thread(composed.active, "users")
    async with load.running():
        await load.reached(50)
        await asyncio.to_thread(composed.kill, active)
        await load.reached(50)
    await all_are_answered(load)
    assert await asyncio.to_thread(composed.active, "users") != active
    await asyncio.to_thread(composed.wait_restarted, active)


async def test_gateways_are_added_and_one_that_is_killed_costs_nobody_an_answer(composed: Composed, load: Load) -> None:
    await asyncio.to_thread(composed.up, *THREE_GATEWAYS)
    killed = (await asyncio.to_thread(composed.containers, "users-gateway"))[0]
    async with load.running():
        await load.reached(100)
        await asyncio.to_thread(composed.kill, killed)
        await load.reached(100)
        await asyncio.to_thread(composed.wait_restarted, killed)
        await load.reached(100)
    await all_are_answered(load)


async def test_a_process_that_is_stopped_ends_by_itself(composed: Composed, load: Load) -> None:
    await asyncio.to_thread(composed.up, *THREE_GATEWAYS)
    async with load.running():
        for service in ("users-gateway", "users-coordinator"):
            await load.reached(50)
            [stopped, *_] = await asyncio.to_thread(composed.containers, service)
            began = monotonic()
            await asyncio.to_thread(composed.docker, "stop", stopped)
            took_s = monotonic() - began
            state = composed.inspect(stopped)["State"]
            print(f"{service} stopped within {took_s:.2f} s")
            assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
            await load.reached(50)
            await asyncio.to_thread(composed.docker, "start", stopped)
    await all_are_answered(load)


def test_a_changed_configuration_reaches_the_proxy(composed: Composed, tmp_path: Path) -> None:
    [before] = composed.containers("proxy")
    changed = tmp_path / "compose.yaml"
    text = COMPOSE_FILE.read_text()
    assert text.count("timeout queue 2s") == 1
    changed.write_text(text.replace("timeout queue 2s", "timeout queue 3s"))
    composed.compose("up", "--detach", "--wait", "--no-deps", "proxy", file=changed)
    [after] = composed.containers("proxy")
    assert after != before
    written = composed.docker("exec", after, "cat", "/usr/local/etc/haproxy/haproxy.cfg")
    assert "timeout queue 3s" in written


@pytest.mark.long
async def test_a_broker_that_starts_again_loses_nothing(composed: Composed, load: Load) -> None:
    async with load.running():
        await load.reached(50)
        await asyncio.to_thread(composed.compose, "restart", "rabbitmq")
        await load.reached(50)
    print(f"{load.applied} writes, first answers {dict(load.seen)}, slowest {load.slowest_s:.2f} s")
    assert set(load.seen) <= {"200", "202", "503"}
    assert await load.credit() == load.applied


async def test_down_and_up_keeps_the_data(composed: Composed, load: Load) -> None:
    async with load.running():
        await load.reached(50)
    await asyncio.to_thread(composed.compose, "down")
    await asyncio.to_thread(composed.up)
    assert await load.credit() == load.applied
    async with load.running():
        await load.reached(10)
    assert await load.credit() == load.applied
