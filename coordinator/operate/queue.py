"""`coordinator queue delete`: so that a queue can be declared again with another limit."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from coordinator.arguments import LANE
from coordinator.exemplified import ExemplifiedGroup
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.one_process import socket_of
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, json_option, print_json, refusing
from coordinator.operate.queue_depth import QueueDepth
from coordinator.registry import registry
from coordinator.runtime.settings import BrokerSettings, LaneSettings, load

if TYPE_CHECKING:
    from coordinator.transports.rabbitmq.bindings import BoundQueue


@click.group("queue", cls=ExemplifiedGroup, example="queue delete seats")
def queue_group() -> None:
    """The queues of lanes and of effects, in RabbitMQ."""


@queue_group.command(example="queue delete seats")
@click.argument("lane", type=LANE)
@click.option("--effects", "is_of_effects", is_flag=True, help="The queues of LANE's effects, and not its own.")
@reason_option
@json_option
@refusing
def delete(lane: str, reason: str | None, *, is_of_effects: bool, as_json: bool) -> None:
    """Delete the queue of LANE if it is empty and nobody consumes it, so that its coordinator declares it again.

    With --effects it deletes the queues of its effects together, those for later attempts included.

    The commands in a queue are confirmed, and are nowhere else. RabbitMQ itself checks neither condition: it ignores
    if-empty and if-unused for quorum queues. So publishers are cut off, and a probe goes through the queue. AMQP_URL
    and LANE_PREFETCH must be those of a coordinator, which may declare and delete. Exit status 1: it stays as it was.
    """
    # Only who deletes a queue needs the library for RabbitMQ.
    from coordinator.operate.broker_connection import connected  # noqa: PLC0415
    from coordinator.operate.deletion import delete_if_unused  # noqa: PLC0415
    from coordinator.transports.rabbitmq.bindings import queue_of_lane, queues_of_effects  # noqa: PLC0415

    service = registry().service(lane)
    if is_of_effects and service.effects is None:
        raise click.UsageError(f"{lane} has no effects")
    if socket_of(lane) is not None:
        raise CommandRefused(f"lane {lane} runs in one process, without a broker: it has no queue to delete")
    queues = queues_of_effects(lane) if is_of_effects else [queue_of_lane(lane)]
    settings = load(BrokerSettings)
    if not settings.is_rabbitmq:
        raise CommandRefused(
            "Redis keeps no limit with a queue: AMQP_QUEUE_BYTES_MAX of those who publish decides, so nothing need be "
            "deleted"
        )
    with connected(settings) as rabbit:
        depths = {queue: rabbit.depth(queue.name) for queue in queues}
    problem = _stated(depths)
    if problem is None:
        there = [queue for queue, depth in depths.items() if depth is not None]
        with lane_admin(lane) as admin:
            admin.record(act_of(lane, "queue delete", reason, queues=[queue.name for queue in there]))
        problem = asyncio.run(delete_if_unused(settings, there, load(LaneSettings).prefetch))
    if problem is not None:
        raise CommandRefused(problem)
    if as_json:
        print_json({"lane": lane, "queues": [queue.name for queue in there], "deleted": True})
    else:
        for queue in there:
            click.echo(f"{queue.name} was empty and is deleted")
        click.echo(
            "start its processes, which declare it" if len(there) == 1 else "start its processes: they declare them"
        )


def _stated(depths: Mapping["BoundQueue", QueueDepth | None]) -> str | None:
    """Why the queues may not be deleted, as far as RabbitMQ states it. Not all have an effect's every queue."""
    if not any(depths.values()):
        return f"there is no queue {next(iter(depths)).name}"
    for queue, depth in depths.items():
        if depth is not None and depth.consumers:
            return f"queue {queue.name} has consumers: stop its processes first"
        if depth is not None and depth.ready:
            return f"queue {queue.name} holds {depth.ready} messages, which are nowhere else: have them applied first"
    return None
