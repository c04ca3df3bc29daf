"""Which queues are bound to which exchanges, and that they stay so while there is somebody who consumes them.

Somebody may delete an exchange, or a binding, under processes that run. RabbitMQ tells nobody: publishers are told that
the exchange is not there, or that no queue takes their messages, and consumers wait.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec import Struct

from coordinator.service.errors import CoordinatorError
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, retry_key
from coordinator.transports.rabbitmq.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_name,
    queue_name,
)

BIND_EVERY_S: Final = 5.0


class BoundQueue(Struct, frozen=True):
    """A queue, and the exchanges that its messages come from."""

    name: str
    key: str
    exchanges: tuple[str, ...]


def queue_of_lane(lane: str) -> BoundQueue:
    """The queue of its commands, which `AMQP_QUEUE_BYTES_MAX` limits."""
    return BoundQueue(queue_name(lane), lane, (WRITES_EXCHANGE, SYSTEM_EXCHANGE))


def queue_of_dead_letters(lane: str) -> BoundQueue:
    """The queue of what RabbitMQ itself takes out of a lane's queue."""
    return BoundQueue(dead_queue_name(lane), lane, (DEAD_EXCHANGE,))


def queues_of_effects(service: str) -> list[BoundQueue]:
    """The queues of its effects: for the first attempt, and for the later ones."""
    first = effects_key(service)
    later = [retry_key(service, length_s) for length_s in DELAYS_S.values()]
    keys = {queue_name(first): first} | {name: name for name in later}
    return [BoundQueue(name, key, (SYSTEM_EXCHANGE,)) for name, key in keys.items()]


async def keep_bound(connection: AmqpConnection, queues: Sequence[BoundQueue]) -> None:
    """Declare the exchanges and bind these queues, which are there, again and again while the connection lasts.

    What is there already stays as it is.
    """
    channel: AmqpChannel | None = None
    while not connection.lost.done():
        await asyncio.sleep(BIND_EVERY_S)
        # What goes wrong with the connection is for others to say.
        with suppress(CoordinatorError):
            # Another connection may be blocked, since it publishes; the one that consumes is never.
            channel = channel or await connection.channel()
            await channel.declare_exchanges()
            for queue in queues:
                for exchange in queue.exchanges:
                    await channel.call(
                        channel.raw.queue_bind, queue=queue.name, exchange=exchange, routing_key=queue.key
                    )
