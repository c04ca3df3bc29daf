"""Deletes queues that are empty and that nobody consumes, both as the queues themselves show.

RabbitMQ ignores its conditions (if-empty, if-unused) for quorum queues, and the lengths that it states are no proof: if
the queue's leader does not answer within 250 ms, it states 0 messages and 0 consumers. So we consume the queue and send
a probe through it. If the probe alone arrives here, then nothing was ahead of it, nothing came behind it, and no other
consumer was there to get it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pika import BasicProperties

from coordinator.lane.control import Marker
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import CoordinatorError
from coordinator.service.ids import new_command_id
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.bindings import BoundQueue
from coordinator.transports.rabbitmq.properties import command_properties
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

PROBE_TIMEOUT_S = 10.0
ARRIVAL_S = 1.0
"""The time for messages that were on their way when their publishers were cut off."""


async def delete_if_unused(settings: BrokerSettings, queues: Sequence[BoundQueue], prefetch: int) -> str | None:
    """Delete queues if all of them are empty and nobody consumes them.

    Return the reason if they stay, with their messages in order. `prefetch` is that of their consumers: with another
    one the messages that dead consumers have left could be reordered. Raises BrokerUnavailable, ConfigurationError.
    """
    connection = await AmqpConnection.open(settings, "operator delete")
    try:
        deletions = [_Deletion(await connection.channel(), queue) for queue in queues]
        try:
            for each in deletions:
                await each.cut_off(prefetch)
            for each in deletions:
                await each.wait_for_probe()
            await asyncio.sleep(ARRIVAL_S)
            problem = next(filter(None, (each.problem for each in deletions)), None)
            if problem is None:
                for each in deletions:
                    await each.delete()
            return problem
        finally:
            for each in deletions:
                await each.bind_again()
    finally:
        # An abort, and no close or cancel: it gives back in order what the queue has handed out.
        await connection.end()


class _Deletion:
    """The deletion of one queue."""

    def __init__(self, channel: AmqpChannel, queue: BoundQueue) -> None:
        self._channel = channel
        self._queue = queue
        self._probe = CommandMessage(new_command_id(), Marker.type, b"{}")
        self._others = 0
        self._probed = asyncio.Event()
        self._is_cut_off = False

    async def cut_off(self, prefetch: int) -> None:
        """Consume the queue, send the probe, and let nothing else in."""
        call, raw, queue = self._channel.call, self._channel.raw, self._queue
        await call(raw.basic_qos, prefetch_count=prefetch)
        await call(raw.basic_consume, queue.name, on_message_callback=self._on_message)
        raw.basic_publish(SYSTEM_EXCHANGE, queue.key, self._probe.arguments, command_properties(self._probe, {}))
        self._is_cut_off = True
        for exchange in queue.exchanges:
            await call(raw.queue_unbind, queue.name, exchange, queue.key)

    async def wait_for_probe(self) -> None:
        """Return when the probe has arrived, or after PROBE_TIMEOUT_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._probed.wait()

    @property
    def problem(self) -> str | None:
        """Why the queue may not be deleted."""
        if self._others:
            return f"queue {self._queue.name} holds messages, which are nowhere else: have them applied first"
        if not self._probed.is_set():
            return (
                f"queue {self._queue.name} has not answered within {PROBE_TIMEOUT_S:g} s: it has consumers, or "
                "RabbitMQ is busy or recovering"
            )
        return None

    async def delete(self) -> None:
        await self._channel.call(self._channel.raw.queue_delete, self._queue.name)
        self._is_cut_off = False

    async def bind_again(self) -> None:
        """Bind it as its processes do. If this fails, they do it at their next start."""
        if self._is_cut_off:
            with suppress(CoordinatorError):
                for exchange in self._queue.exchanges:
                    await self._channel.call(self._channel.raw.queue_bind, self._queue.name, exchange, self._queue.key)

    def _on_message(self, _: Any, method: Any, properties: BasicProperties, __: bytes) -> None:
        if properties.message_id == self._probe.command_id:
            self._channel.raw.basic_ack(method.delivery_tag)
            self._probed.set()
        else:
            self._others += 1
