"""compose.cluster.yaml: purchases go on while a node of RabbitMQ and the process that writes to PostgreSQL die."""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.compose.composed import Composed
from tests.compose.conftest import headers_of, running
from tests.compose.user import User
from tests.support.compose_overlays import CLUSTER_FILE
from tests.support.system import Client, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
QUEUE = "writes.users"
SCALING = (Path(__file__).parents[2] / "docs" / "SCALING.md").read_text()
STOCK = 10
REPLICATION = "SELECT application_name, sync_state FROM pg_stat_replication"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Composed]:
    """Up and healthy, by itself."""
    cluster = Composed(CLUSTER_FILE)
    cluster.project = "write-coordinator-tests-cluster"
    with running(cluster):
        yield cluster


def queues(cluster: Composed, node: str) -> dict[str, dict[str, Any]]:
    """What a node knows of the queues."""
    listed = cluster.compose(
        *("exec", "--no-TTY", node, "rabbitmqctl", "--quiet", "list_queues"),
        *("name", "leader", "members", "online", "--formatter", "json"),
    )
    return {each["name"]: each for each in json.loads(listed)}


def sql(cluster: Composed, server: str, statement: str) -> str:
    asked = (
        "psql",
        "--host",
        "127.0.0.1",
        "--username",
        "coordinator",
        "--dbname",
        "users",
        "--no-align",
        "--tuples-only",
    )
    return cluster.compose("exec", "--no-TTY", server, *asked, "--command", statement).strip()


def told(part: str) -> list[str]:
    """The words of a command that docs/SCALING.md has, behind the names of the files."""
    [line] = re.findall(rf"^docker compose -f compose.yaml -f compose.cluster.yaml ({part} .*)$", SCALING, re.MULTILINE)
    return shlex.split(line)


def test_queues_are_on_all_nodes_and_each_commit_waits_for_the_standby(cluster: Composed) -> None:
    for name, queue in queues(cluster, "rabbitmq").items():
        if name.startswith(("writes.", "effects.")):
            assert sorted(queue["members"]) == sorted(f"rabbit@{node}" for node in NODES), (name, queue)
    assert sql(cluster, "postgres", REPLICATION) == "standby|sync"
    assert sql(cluster, "postgres-standby", "SELECT pg_is_in_recovery()") == "t"
    for lane in ("users", "items", "payments"):
        assert len(cluster.containers(f"{lane}-coordinator")) == len(cluster.containers(f"{lane}-gateway")) == 2


async def test_purchases_go_on_while_the_leader_s_node_and_the_active_coordinator_die(cluster: Composed) -> None:
    headers = await asyncio.to_thread(headers_of, cluster)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=headers) as session:
        user = User(cluster, session)
        await user.register("cluster@example.org")
        item_id = await user.offer("7A", STOCK)
        assert (await user.buy(item_id, "before"))["status"] == "completed"

        leader = str((await asyncio.to_thread(queues, cluster, "rabbitmq"))[QUEUE]["leader"]).partition("@")[2]
        active = await asyncio.to_thread(cluster.active, "users")
        await asyncio.to_thread(cluster.compose, "kill", leader)
        await asyncio.to_thread(cluster.kill, active)
        for number in range(3):
            assert (await user.buy(item_id, f"without-{number}"))["status"] == "completed"
        assert await asyncio.to_thread(cluster.active, "users") != active

        await asyncio.to_thread(cluster.compose, "start", leader)
        others = next(node for node in NODES if node != leader)

        def all_are_back() -> bool:
            found = queues(cluster, others)[QUEUE]["online"]
            return isinstance(found, list) and len(found) == len(NODES)

        await asyncio.to_thread(wait_until, all_are_back, "the node takes part again", None, 180)
        assert (await user.buy(item_id, "after"))["status"] == "completed"
        # Each once, whatever was repeated.
        assert await user.stock(item_id) == STOCK - 5

        # A read after it finds it, on the standby or on the primary.
        path = f"{cluster.url('users')}/users/{user.id}"
        async with session.post(f"{path}/credit", json={"amount": 1}) as written:
            assert written.status == 200
            place = {"Read-After": written.headers["Read-After"]}
        async with session.get(path, headers=place) as read:
            assert (await read.json())["credit"] == 1
            assert read.headers["Served-By"]


async def test_the_lane_follows_a_standby_that_is_promoted_as_scaling_says(cluster: Composed) -> None:
    headers = await asyncio.to_thread(headers_of, cluster)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=headers) as session:
        client = Client(session, cluster.url("users"))
        status, user = await client.write("/users", {"name": "Ada", "email": "promoted@example.org"}, "promoted")
        assert status == 201, user
        path = f"/users/{user['id']}/credit"
        assert (await client.write(path, {"amount": 1}, "before-promotion"))[0] == 200

        await asyncio.to_thread(cluster.compose, *told("stop"))
        first, *words = told("exec")
        await asyncio.to_thread(cluster.compose, first, "--no-TTY", *words)
        for statement in ("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"):
            assert f"`{statement}`" in SCALING
            await asyncio.to_thread(sql, cluster, "postgres-standby", statement)
        cluster.set("LANE_REQUIRE_SYNC_STANDBY", "false")
        await asyncio.to_thread(cluster.up, "--no-deps", "users-coordinator")
        status, credited = await client.write(path, {"amount": 1}, "after-promotion")
        assert (status, credited["credit"]) == (200, 2), "what the primary had acknowledged is there"
