"""How many messages wait in lanes' queues, for whoever leaves a lane to its other clients while it has enough to do."""

import time
from typing import Final, Literal

from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.errors import NOT_FOUND, ClosedByBroker
from coordinator.transports.rabbitmq.topology import queue_name

LOOK_EVERY_S: Final = 0.1
"""A queue is looked at so often at most."""
REFUSED_PAUSE_S: Final = 60.0
"""Where the broker does not say how long a queue is."""

Looked = int | Literal["missing"] | None


class QueueLooks:
    """The lengths of lanes' queues as they were a moment ago, by one connection, on a channel of its own."""

    def __init__(self, connection: AmqpConnection) -> None:
        self._connection = connection
        self._channel: AmqpChannel | None = None
        self._known: dict[str, tuple[float, Looked]] = {}

    async def ready(self, lane: str) -> Looked:
        """The messages of a lane's queue that no consumer holds; None: it cannot be seen.

        Raises BrokerUnavailable if the connection is lost.
        """
        until_s, looked = self._known.get(lane, (float("-inf"), None))
        if time.monotonic() >= until_s:
            looked = await self._look(lane)
            pause_s = REFUSED_PAUSE_S if looked is None else LOOK_EVERY_S
            self._known[lane] = (time.monotonic() + pause_s, looked)
        return looked

    def note_sent(self, lane: str) -> None:
        """One more message is in the queue than was seen there: many go on between two looks."""
        until_s, looked = self._known.get(lane, (float("-inf"), None))
        if isinstance(looked, int):
            self._known[lane] = (until_s, looked + 1)

    async def _look(self, lane: str) -> Looked:
        try:
            if self._channel is None or not self._channel.raw.is_open:
                # The broker closes the channel of whoever asks for a queue that is not there.
                self._channel = await self._connection.channel(is_beside=True)
            channel = self._channel
            declared = await channel.call(channel.raw.queue_declare, queue=queue_name(lane), passive=True)
        except ConfigurationError:
            return None
        except BrokerUnavailable as error:
            if isinstance(error, ClosedByBroker) and error.reply_code == NOT_FOUND:
                return "missing"
            if self._connection.lost.done():
                raise
            return None
        return int(declared.method.message_count)
