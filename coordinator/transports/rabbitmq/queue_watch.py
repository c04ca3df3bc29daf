"""How many messages wait in a queue, for its consumers' metrics: RabbitMQ is asked now and then."""

import asyncio
import math
import time
from contextlib import suppress
from typing import Any, Final

import pika
from prometheus_client import Gauge

from coordinator.runtime.broker_accounts import BrokerAccounts
from coordinator.service.errors import CoordinatorError
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.properties import is_strangers

ASK_EVERY_S: Final = 5.0


class QueueWatch:
    """The length of one queue, as its consumers see it, standbys too."""

    def __init__(self, queue: str, shown: Gauge) -> None:
        self._queue = queue
        self._ready = math.nan
        shown.set_function(lambda: self._ready)

    async def watch(self, connection: AmqpConnection) -> None:
        """Ask again and again while the connection lasts, or until cancelled."""
        channel: AmqpChannel | None = None
        try:
            while not connection.lost.done():
                # What goes wrong with the connection is for others to say.
                ready = math.nan
                with suppress(CoordinatorError):
                    channel = channel or await connection.channel()
                    # Another connection may be blocked, since it publishes; the one that consumes is never.
                    declared = await channel.call(channel.raw.queue_declare, queue=self._queue, passive=True)
                    ready = declared.method.message_count
                self._ready = ready
                await asyncio.sleep(ASK_EVERY_S)
        finally:
            self._ready = math.nan


def sent_at_s(method: Any, properties: pika.BasicProperties, accounts: BrokerAccounts) -> float:
    """When a message was sent, as its publisher says, in seconds since the Unix epoch; now, where it does not say, or
    is a stranger: anybody may write a time, and operators are alarmed by it.

    Nothing comes from the future: clocks differ, and some publishers count milliseconds.
    """
    now_s, said_s = time.time(), properties.timestamp
    if not isinstance(said_s, int) or is_strangers(properties, method.exchange, accounts):
        return now_s
    return min(now_s, float(said_s))
