"""How RabbitMQ keeps how far a lane has come: in a queue of one message, the newest."""

import structlog

from coordinator.lane.high_water import Mark, decode_mark, encode_mark
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.properties import mark_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import mark_queue_name

log = structlog.get_logger("consumer")


async def read_mark(connection: AmqpConnection, lane: str) -> Mark | None:
    """The mark, which stays in its queue; None: there is none. Raises as `AmqpChannel.call`."""
    channel = await connection.channel()
    mark = None
    for body in await channel.peek(mark_queue_name(lane)):
        try:
            mark = decode_mark(body)
        except ValueError as error:
            log.warning("mark_unreadable", lane=lane, reason=str(error))
    await channel.close()
    return mark


def send_mark(publisher: Publisher, lane: str, mark: Mark) -> None:
    """Replace the mark, without a confirm: the next one follows soon."""
    publisher.send(mark_queue_name(lane), mark_properties(), encode_mark(mark))
