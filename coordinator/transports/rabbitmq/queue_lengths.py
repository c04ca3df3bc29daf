"""How many messages wait in lanes' queues, for those who ask about a command that is not settled.

Each look has a connection of its own: the broker closes the channel of whoever asks for a queue that is not there, and
a channel of ours takes its connection with it.
"""

import asyncio
from time import monotonic
from typing import Final

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.topology import queue_name

LOOK_EVERY_S: Final = 1.0
"""However many ask, a queue is looked at so often at most."""
LOOK_TIMEOUT_S: Final = 2.0


class QueueLengths:
    """The lengths of lanes' queues as they were a moment ago. Used within one event loop."""

    def __init__(self, broker: BrokerSettings, name: str) -> None:
        self._broker = broker
        self._name = name
        self._known: dict[str, tuple[float, int | None]] = {}
        self._looking = asyncio.Lock()

    async def ready(self, lane: str) -> int | None:
        """The messages of a lane's queue that no consumer holds; None: it cannot be seen. Never raises for that."""
        async with self._looking:
            looked_at_s, count = self._known.get(lane, (float("-inf"), None))
            if monotonic() - looked_at_s >= LOOK_EVERY_S:
                count = await self._look(lane)
                self._known[lane] = (monotonic(), count)
            return count

    async def _look(self, lane: str) -> int | None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                connection = await AmqpConnection.open(self._broker, f"{self._name} look")
                try:
                    channel = await connection.channel()
                    answer = await channel.call(channel.raw.queue_declare, queue=queue_name(lane), passive=True)
                    return int(answer.method.message_count)
                finally:
                    await connection.close()
        except (BrokerUnavailable, ConfigurationError, TimeoutError):
            return None
