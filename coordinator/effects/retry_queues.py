"""Where effects wait for their next attempt: queues whose messages go back to the effects' queue after a while.

A queue for each length of time, since RabbitMQ looks at the time of a queue's first message only. A longer pause is
made of several. What a worker holds unacknowledged would keep a place of its prefetch, and RabbitMQ gives it to
another worker after 30 minutes. https://www.rabbitmq.com/docs/ttl and https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
"""

from typing import Final

from shared.effects import effects_key
from shared.messaging.amqp import AmqpChannel
from shared.messaging.topology import DELIVERY_LIMIT, SYSTEM_EXCHANGE, queue_name

DELAYS_S: Final = {"1s": 1, "10s": 10, "1m": 60, "10m": 600}


def retry_key(service: str, delay_s: float) -> str:
    """The routing key, and queue, of the longest wait that is not above `delay_s`, or of the shortest there is."""
    fitting = [name for name, length_s in DELAYS_S.items() if length_s <= delay_s] or list(DELAYS_S)[:1]
    return f"{queue_name(effects_key(service))}.retry.{fitting[-1]}"


async def declare_retry_queues(channel: AmqpChannel, service: str, bytes_max: int) -> None:
    """Raises as `AmqpChannel.call`."""
    for length_s in DELAYS_S.values():
        queue = retry_key(service, length_s)
        arguments = {
            "x-queue-type": "quorum",
            "x-message-ttl": length_s * 1000,
            "x-dead-letter-exchange": SYSTEM_EXCHANGE,
            "x-dead-letter-routing-key": effects_key(service),
            # Confirmed by the effects' queue before it leaves this one; that strategy needs reject-publish.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": bytes_max,
            "x-delivery-limit": DELIVERY_LIMIT,
        }
        raw = channel.raw
        await channel.call(raw.queue_declare, queue=queue, durable=True, arguments=arguments)
        await channel.call(raw.queue_bind, queue=queue, exchange=SYSTEM_EXCHANGE, routing_key=queue)
