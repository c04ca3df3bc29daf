"""Which queues are bound to which exchanges, and that they stay so while there is somebody who consumes them.

Somebody may delete an exchange, or a binding, under processes that run. RabbitMQ tells nobody: publishers are told that
the exchange is not there, or that no queue takes their messages, and consumers wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from msgspec import Struct

from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.errors import ConfigurationError, CoordinatorError
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
REFUSED_PAUSE_S: Final = 60.0
"""Where a right is missing: the broker logs each refusal, too."""

log = structlog.get_logger("broker")


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


async def keep_bound(
    connection: AmqpConnection,
    queues: Sequence[BoundQueue],
    declare: Callable[[AmqpChannel], Awaitable[None]] = AmqpChannel.declare_exchanges,
) -> None:
    """Declare the exchanges and bind these queues, which are there, again and again while the connection lasts.

    What is there already stays as it is. Whoever consumes goes on where that is refused: a process that has declared
    all of it needs the right no more.
    """
    channel: AmqpChannel | None = None
    line, pause_s = RepeatedLine(), BIND_EVERY_S
    while not connection.lost.done():
        await asyncio.sleep(pause_s)
        pause_s = BIND_EVERY_S
        try:
            if channel is None or not channel.raw.is_open:
                # Another connection may be blocked, since it publishes; the one that consumes is never.
                channel = await connection.channel(is_beside=True)
            await declare(channel)
            for queue in queues:
                for exchange in queue.exchanges:
                    await channel.call(
                        channel.raw.queue_bind, queue=queue.name, exchange=exchange, routing_key=queue.key
                    )
        except ConfigurationError as error:
            pause_s = REFUSED_PAUSE_S
            if line.is_due(str(error), time.monotonic()):
                log.warning("bindings_not_kept", queues=[queue.name for queue in queues], error=str(error))
        except CoordinatorError:
            # What goes wrong with the connection is for others to say.
            continue
