"""How outcomes leave a lane on RabbitMQ: to the queues that those who wait have named."""

import asyncio
from collections import deque
from collections.abc import Container, Sequence
from typing import Final

from coordinator.lane.delivery import Reply
from coordinator.transports.not_sent import NotSent
from coordinator.transports.outcome_packs import OutcomeMessage, messages_of
from coordinator.transports.rabbitmq.properties import outcome_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import takes_outcomes

KEPT_BYTES_MAX: Final = 16 << 20
"""Outcomes that wait for the next connection take no more than this."""


class Replies:
    """Used within the loop of its publisher."""

    def __init__(self, publisher: Publisher, not_sent: NotSent, named: Container[str] = ()) -> None:
        """`named` are the queues that a setting has."""
        self._publisher = publisher
        self._not_sent = not_sent
        self._named = named
        self._kept: deque[OutcomeMessage] = deque()
        self._kept_bytes = 0
        self._sending: asyncio.Task[None] | None = None

    def send(self, replies: Sequence[Reply]) -> None:
        """Send outcomes once and without a confirm: a client that misses one finds it in the command log.

        While there is no connection they are kept for the next one, in their order.
        """
        if self._kept:
            self._send_kept()
        for message in messages_of(replies):
            is_taken = takes_outcomes(message.reply_to, self._named)
            if not (is_taken and (self._keep(message) if self._is_away else self._send(message))):
                self._not_sent.count(message.reply_to)

    def stop(self) -> None:
        """Forget those that wait for a connection: there will be none."""
        if self._sending is not None:
            self._sending.cancel()

    @property
    def _is_away(self) -> bool:
        return not (self._publisher.is_ready or self._publisher.is_blocked)

    def _send(self, message: OutcomeMessage) -> bool:
        properties = outcome_properties(message.correlation_id, is_pack=message.is_pack)
        return self._publisher.send(message.reply_to, properties, message.body)

    def _keep(self, message: OutcomeMessage) -> bool:
        if self._kept_bytes + len(message.body) > KEPT_BYTES_MAX:
            return False
        self._kept.append(message)
        self._kept_bytes += len(message.body)
        if self._sending is None:
            self._sending = asyncio.create_task(self._wait_and_send(), name="kept outcomes")
        return True

    async def _wait_and_send(self) -> None:
        await self._publisher.wait_ready()
        self._sending = None
        self._send_kept()

    def _send_kept(self) -> None:
        while self._kept and not self._is_away:
            message = self._kept.popleft()
            self._kept_bytes -= len(message.body)
            if not self._send(message):
                self._not_sent.count(message.reply_to)
