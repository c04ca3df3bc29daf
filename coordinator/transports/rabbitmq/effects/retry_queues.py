"""The queues where effects wait for their next attempt: durable, one for each wait; the workers keep the time.

They have no time to live and no dead-letter exchange. RabbitMQ would publish the messages that it takes out of a
queue as the system's, even if a stranger put them in. And a stranger can end that part of RabbitMQ 3.10 with one
malformed header, in any queue. Instead each worker holds the first deliveries unacknowledged until they are due
(returning.py). Within one queue all effects wait equally long, so that the first is the first that is due.

A longer pause is made of several: RabbitMQ closes a channel whose deliveries are unacknowledged for 30 minutes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, effects_queue_arguments, queue_name

if TYPE_CHECKING:
    # Whoever wants the names of these queues only needs no library for RabbitMQ.
    from coordinator.transports.rabbitmq.amqp import AmqpChannel

DELAYS_S: Final = {"1s": 1.0, "10s": 10.0, "1m": 60.0, "10m": 600.0}
HEADER_PUT_BACK_AT: Final = "put-back-at-ms"


def retry_key(service: str, delay_s: float) -> str:
    """The routing key, and queue, of the longest wait up to `delay_s`, or else of the shortest wait."""
    fitting = [name for name, length_s in DELAYS_S.items() if length_s <= delay_s] or list(DELAYS_S)[:1]
    return f"{queue_name(effects_key(service))}.retry.{fitting[-1]}"


async def declare_retry_queues(channel: "AmqpChannel", service: str, bytes_max: int) -> None:
    """Raises as `AmqpChannel.call`."""
    for length_s in DELAYS_S.values():
        queue = retry_key(service, length_s)
        arguments = effects_queue_arguments(bytes_max)
        raw = channel.raw
        await channel.call(raw.queue_declare, queue=queue, durable=True, arguments=arguments)
        await channel.call(raw.queue_bind, queue=queue, exchange=SYSTEM_EXCHANGE, routing_key=queue)


def wait_s(headers: Mapping[str, Any], length_s: float, now_s: float) -> float:
    """How long to hold a delivery. Never longer than its queue's wait, whatever clocks and headers say."""
    put_back_at_ms = headers.get(HEADER_PUT_BACK_AT)
    if not isinstance(put_back_at_ms, int):
        return length_s
    # Compared as they are: a number of any size has no place among floats.
    passed_ms = int(now_s * 1000) - put_back_at_ms
    return length_s if passed_ms <= 0 else max(0.0, length_s - min(passed_ms, length_s * 1000) / 1000)
