"""A message of a publisher that has no confirm yet."""

import asyncio

import pika

from coordinator.service.errors import OutcomeUnknown


class Unconfirmed:
    """One message on its way."""

    __slots__ = (
        *("body", "exchange", "future", "is_repeated", "is_returned", "number", "properties", "routing_key"),
        *("sent_at_s", "times_sent"),
    )

    def __init__(
        self,
        number: int,
        exchange: str,
        routing_key: str,
        properties: pika.BasicProperties,
        body: bytes,
        future: "asyncio.Future[None]",
        *,
        is_repeated: bool,
    ) -> None:
        self.is_repeated = is_repeated
        self.number = number
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.future = future
        self.is_returned = False
        self.times_sent = 0
        self.sent_at_s = 0.0

    def refused(self, error: Exception) -> Exception:
        """Why the message was refused. If it was sent before, on a lost connection, the broker may have that copy."""
        return error if self.times_sent <= 1 else OutcomeUnknown(f"{error}; sent before, it may have been taken")
