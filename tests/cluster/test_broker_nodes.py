"""Nodes of a cluster of RabbitMQ die and come back; clients who wait hardly notice."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from coordinator.transports.rabbitmq.topology import queue_name
from tests.cluster.load import judge, under_load
from tests.support.accounts import accounts_of_tests
from tests.support.outside import CarefulPartner, all_are_applied, are_settled, settled
from tests.support.rabbitmq_cluster import ClusterNode, RabbitMQCluster
from tests.support.servers import Environment
from tests.support.system import System, wait_until, write_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
ADA = {"name": "Ada", "email": "ada@example.org"}
QUEUE = queue_name("users")
MAKE_WATCHER = """
rabbitmqctl add_user watcher watcher
rabbitmqctl set_user_tags watcher monitoring
rabbitmqctl set_permissions watcher '^$' '^$' '^$'
"""
SILENCE_S_MAX = 3.0
"""On a machine of two cores that all nodes, clients and processes share; the report shows what it was."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQCluster]:
    cluster = RabbitMQCluster(tmp_path_factory.mktemp("cluster"), accounts_of_tests())
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def clustered(system: System, cluster: RabbitMQCluster) -> System:
    """The system with all nodes of the cluster, two coordinators and a gateway; all members of its queues are there."""
    cluster.start_again()
    wait_until_whole(cluster, has_queues=False)
    system.environment["AMQP_URL"] = cluster.url("operator")
    system.administrators["AMQP_URL"] = cluster.nodes[0].url
    system.prepare("users")
    system.start_coordinators("users", "users")
    system.start_gateway("users")
    wait_until_whole(cluster)
    wait_until(lambda: cluster.is_noted, "each node has noted its queues", timeout_s=10)
    return system


def wait_until_whole(cluster: RabbitMQCluster, *, has_queues: bool = True) -> None:
    """Return once every node runs, and is up to date with each quorum queue."""

    def is_whole() -> bool:
        queues = [each for each in cluster.queues().values() if each["type"] == "quorum"]
        return bool(queues or not has_queues) and all(len(each["online"]) == 3 for each in queues)

    try:
        wait_until(is_whole, "all members of the queues are online", timeout_s=60)
    except AssertionError as error:
        raise AssertionError(f"{error}: {cluster.lack()}; of all: {cluster.queues()}") from None


def node_of(cluster: RabbitMQCluster, which: str) -> ClusterNode:
    if which == "the reply queue's":
        return cluster.home_of("replies.")
    leader = cluster.named(cluster.queues()[QUEUE]["leader"])
    if which == "the leader's":
        return leader
    return next(node for node in cluster.nodes if node is not leader)


@pytest.mark.parametrize("which", ["the leader's", "a follower's", "the reply queue's"])
async def test_a_node_that_is_killed_costs_a_moment(
    clustered: System, cluster: RabbitMQCluster, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = clustered.urls["users"]
    await write_all(url, "/users", ADA, 1, 1, "ada")
    victim = await asyncio.to_thread(node_of, cluster, which)
    async with under_load(url) as load:
        victim.kill()
        await load.wait_for_answers(1000)
    judge(load, f"kill -9 of {which} node", SILENCE_S_MAX, capsys)


async def test_a_rolling_restart_costs_moments(
    clustered: System, cluster: RabbitMQCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    url = clustered.urls["users"]
    await write_all(url, "/users", ADA, 1, 1, "ada")
    async with under_load(url) as load:
        for node in cluster.nodes:
            await asyncio.to_thread(node.stop)
            await load.wait_for_answers(100)
            await asyncio.to_thread(node.start)
            await asyncio.to_thread(wait_until_whole, cluster)
    judge(load, "rolling restart", SILENCE_S_MAX, capsys)


async def test_outside_commands_are_applied_once_in_their_order_while_each_node_dies(
    clustered: System, cluster: RabbitMQCluster
) -> None:
    """One of them has the connections of the ingress, and one leads its queue."""
    ingress = await asyncio.to_thread(clustered.start_ingress, "partner", INGRESS_ACCOUNT_RATE_MAX="0")
    await asyncio.to_thread(wait_until_whole, cluster)
    partner = CarefulPartner(clustered)

    def kill_each() -> None:
        for node in cluster.nodes:
            wait_until(lambda: cluster.is_noted, "each node has noted its queues", timeout_s=10)
            node.kill()
            goal = settled(clustered) + 100
            wait_until(partial(are_settled, clustered, goal), "it goes on", ingress, timeout_s=40)
            node.start()
            wait_until_whole(cluster)

    publishing = asyncio.create_task(partner.run())
    try:
        await asyncio.to_thread(kill_each)
    finally:
        partner.stop()
        await publishing
    await asyncio.to_thread(all_are_applied, clustered, partner.ids)
    assert "broker_connection_lost" in ingress.log_path.read_text()


async def test_an_operator_sees_the_members_and_gives_a_node_that_joined_its_own(
    clustered: System, cluster: RabbitMQCluster
) -> None:
    new = cluster.nodes[2].node
    await asyncio.to_thread(cluster.run_script, f"rabbitmq-queues shrink {new}")
    assert new not in cluster.queues()[QUEUE]["members"]
    await asyncio.to_thread(cluster.run_script, MAKE_WATCHER)
    watcher = f"http://watcher:watcher@127.0.0.1:{cluster.nodes[0].management_port}"
    environment = clustered.operator_environment | {"RABBITMQ_ADMIN_URL": watcher}
    line = await asyncio.to_thread(coordinator, environment, "grow", new)
    await asyncio.to_thread(cluster.run_script, f"{line}\nrabbitmq-diagnostics check_if_node_is_quorum_critical")
    assert all(len(queue["members"]) == 3 for queue in cluster.queues().values() if queue["type"] == "quorum")

    def shows_all() -> bool:
        # The management is some seconds late.
        return "3 of 3 members online (a majority)" in coordinator(environment, "status", "users", "--sample-s", "0")

    await asyncio.to_thread(wait_until, shows_all, "all members are shown", None, 60)


def coordinator(environment: Environment, *arguments: str) -> str:
    """What a command of the operator prints."""
    program = [sys.executable, "-m", "coordinator", *arguments]
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
