"""What lanes have emitted: each effect that was asked for is with the workers, or still in the outbox.

No worker runs here, so the effects of payments stay in their queue.
"""

from collections.abc import Iterator

import msgspec
import pika
import redis

from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.topology import queue_name
from coordinator.transports.redis.entries import BODY
from coordinator.transports.redis.keys import system_stream_key
from tests.faults.tables import Tables

SILENT_S = 1.0
"""A queue that delivers nothing for so long has nothing more."""


def check_effects(payments: Tables, broker_url: str) -> Iterator[str]:
    """Blocking: empties the queue. It must hold an effect for each payment of which the provider is to be asked."""
    asked = {row["id"] for row in payments.rows("payments") if row["payment_method"] is not None}
    target = effects_key("payments")
    waiting = {_payment_of(row["arguments"]) for row in payments.rows("outbox") if row["lane"] == target}
    taken = _read(broker_url, target) if broker_url.startswith("redis") else _taken(broker_url, queue_name(target))
    arrived = set(map(_payment_of, taken))
    for payment in sorted(asked - arrived - waiting):
        yield f"payments: what payment {payment} has emitted is lost: it is in no outbox, and never arrived"
    for payment in sorted(arrived - asked):
        yield f"payments: an effect of payment {payment} arrived, and its commit is not there"


def _read(redis_url: str, target: str) -> Iterator[bytes]:
    with redis.Redis.from_url(redis_url) as client:
        for _, fields in client.xrange(system_stream_key(target)):
            yield fields[BODY]


def _taken(amqp_url: str, queue: str) -> Iterator[bytes]:
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    try:
        channel = connection.channel()
        for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=SILENT_S):
            if method is None:
                return
            yield body
    finally:
        connection.close()


def _payment_of(arguments: bytes | str) -> int:
    number: int = msgspec.json.decode(arguments)["id"]
    return number
