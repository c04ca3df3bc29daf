"""What is done to the nodes of a broker that is a cluster. Then all of them must come back to it by themselves."""

import asyncio
import random
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from coordinator.transports.rabbitmq.topology import queue_name
from tests.faults.plan import LANES, Fault, Kind
from tests.support.rabbitmq_cluster import ClusterNode, RabbitMQCluster

STOPPED_S = 16.0
"""Longer than net_ticktime: after 10 to 13 s the others believe that the node is gone."""
WHOLE_WITHIN_S = 60.0
POLL_S = 0.5
_AT_ITS_PLACE = frozenset({Kind.KILL_LEADER_NODE, Kind.KILL_FOLLOWER_NODE, Kind.KILL_REPLY_NODE})
"""They strike a node because of what it has."""


class NotWhole(Exception):
    """The cluster has not come back by itself."""


async def victims_of(cluster: RabbitMQCluster, fault: Fault) -> list[ClusterNode]:
    """The nodes that the fault strikes, the first of them more than the others. Of a lane that the fault picks.

    Raises NotWhole if no node can say who has what.
    """
    any_order = random.Random(fault.pick).sample(cluster.nodes, len(cluster.nodes))
    if fault.kind not in _AT_ITS_PLACE:
        return any_order
    queues = await _queues(cluster)
    if fault.kind is Kind.KILL_REPLY_NODE:
        # A queue of outcomes whose node has died has no process, and is replaced.
        pids = [str(queue["pid"]) for name, queue in queues.items() if name.startswith("replies.")]
        homes = [node for node in any_order if any(node.node in pid for pid in pids)]
        return (homes or any_order)[:1]
    leader = queues[queue_name(LANES[fault.pick % len(LANES)])]["leader"]
    is_chosen = fault.kind is Kind.KILL_LEADER_NODE
    return [node for node in any_order if (node.node == leader) is is_chosen][:1]


async def _queues(cluster: RabbitMQCluster) -> dict[str, dict[str, Any]]:
    """What there is, once each lane's queue has a leader."""
    until = monotonic() + WHOLE_WITHIN_S
    turn = 0
    while True:
        try:
            queues = await asyncio.to_thread(cluster.queues, turn)
        except subprocess.SubprocessError as error:
            # After what has struck just before.
            lack = f"rabbitmqctl says {error}"
        else:
            without = [lane for lane in LANES if not queues.get(queue_name(lane), {}).get("leader")]
            if not without:
                return queues
            lack = f"no leader is known of {', '.join(without)}"
        if monotonic() > until:
            raise NotWhole(f"it was not seen within {WHOLE_WITHIN_S:g} s where the queues are: {lack}")
        await asyncio.sleep(POLL_S)
        turn += 1


async def strike_nodes(
    cluster: RabbitMQCluster, fault: Fault, victims: Sequence[ClusterNode], carry_on: Callable[[], Awaitable[None]]
) -> None:
    """Return once what it broke is mended. Raises NotWhole.

    `carry_on` returns once the system goes on; where only one node is struck, that is before the node is back.
    """
    match fault.kind:
        case Kind.RESTART_NODES:
            for node in victims:
                await asyncio.to_thread(node.stop)
                await asyncio.sleep(fault.lasts_s / 4)
                await carry_on()
                await asyncio.to_thread(node.start)
                await _whole(cluster)
        case Kind.RESTART_NODE:
            await asyncio.to_thread(victims[0].stop)
            await asyncio.sleep(fault.lasts_s / 4)
            await carry_on()
            await asyncio.to_thread(victims[0].start)
        case Kind.STOP_NODE:
            try:
                await asyncio.to_thread(victims[0].pause)
                await asyncio.sleep(STOPPED_S + fault.lasts_s)
                await carry_on()
            finally:
                await asyncio.to_thread(victims[0].resume)
        case Kind.CUT_NODE | Kind.CUT_LINK:
            others = victims[1:] if fault.kind is Kind.CUT_NODE else victims[1:2]
            try:
                await asyncio.to_thread(cluster.cut, victims[0], others)
                await asyncio.sleep(fault.lasts_s)
                if fault.kind is Kind.CUT_NODE:
                    await carry_on()
            finally:
                await asyncio.to_thread(cluster.mend, victims[0], others)
        case _:
            killed = victims[:2] if fault.kind is Kind.KILL_TWO_NODES else victims
            await asyncio.gather(*(asyncio.to_thread(node.kill) for node in killed))
            await asyncio.sleep(fault.lasts_s)
            if len(killed) == 1:
                await carry_on()
            await asyncio.to_thread(cluster.start_again)
    await _whole(cluster)


async def _whole(cluster: RabbitMQCluster) -> None:
    until = monotonic() + WHOLE_WITHIN_S
    while lack := await asyncio.to_thread(cluster.lack):
        if monotonic() > until:
            raise NotWhole(f"the cluster was not whole again within {WHOLE_WITHIN_S:g} s: {lack}")
        await asyncio.sleep(POLL_S)
