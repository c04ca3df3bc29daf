"""Brings effects that were put back to their worker again, once they are due.

Each delivery of a retry queue is held unacknowledged, then published to the effects' queue, and then acknowledged. A
worker that stops or dies before that leaves it to another worker, for which it is due at the same time. A crash between
publishing and acknowledging makes two copies, which effects can bear (worker.py).

A message that did not come through `writes.system` is not a lane's effect, and becomes a dead letter, as in the
effects' queue: if it were published from here, it would pass as the system's own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pika
import structlog
from pika.exceptions import AMQPError
from prometheus_client import Gauge

from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.runtime.ending import end_tasks
from coordinator.service.errors import InvalidCommand
from coordinator.service.trace_context import TraceContext, parsed
from coordinator.transports.dead_effects import dead_effect
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.effects.bringing import Bringing
from coordinator.transports.rabbitmq.effects.reading import effect_of, emitted_at_s, headers_of, known_of
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, declare_retry_queues, retry_key, wait_s

HELD_BACK = Gauge(
    "coordinator_effects_held_back", "Effects that this worker holds until their next attempt is due.", ["service"]
)

_HELD_MAX: Final = 100
"""How many deliveries of one queue a worker holds. The deliveries behind them are due later."""

log = structlog.get_logger("effects")


class Returning:
    """The retry queues of one service, on one connection after another. Used within one event loop.

    `on_defect` takes the unforeseen error of a task. `pause` waits for a number of seconds.
    """

    def __init__(
        self,
        service: str,
        bringing: Bringing,
        on_defect: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._service = service
        self._bringing = bringing
        self._on_defect = on_defect
        self._clock = clock
        self._pause = pause
        self._held: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        HELD_BACK.labels(service).set_function(lambda: len(self._held))

    async def consume(self, connection: AmqpConnection, bytes_max: int) -> None:
        """Declare and consume the queues. Raises as `AmqpChannel.call`."""
        channel = await connection.channel()
        await declare_retry_queues(channel, self._service, bytes_max)
        # RabbitMQ counts the prefetch for each consumer of the channel by itself.
        await channel.call(channel.raw.basic_qos, prefetch_count=_HELD_MAX)
        for length_s in DELAYS_S.values():
            await channel.consume(retry_key(self._service, length_s), self._taking(channel, length_s))

    def leave(self) -> None:
        """The connection is gone, and another worker gets the held deliveries."""
        for task in self._held:
            task.cancel()

    def stop(self) -> None:
        """Leave the held deliveries, and take no more."""
        self._is_stopped = True
        self.leave()

    async def close(self) -> None:
        """As `stop`, and return once its tasks have ended."""
        self.stop()
        await end_tasks(*self._held)

    def _taking(self, channel: AmqpChannel, length_s: float) -> Callable[..., None]:
        return lambda _, method, properties, body: self.take(channel, length_s, method, properties, body)

    def take(
        self, channel: AmqpChannel, length_s: float, method: Any, properties: pika.BasicProperties, body: bytes
    ) -> None:
        """Take one delivery of the queue with this wait."""
        if self._is_stopped:
            return
        task = asyncio.create_task(self._hold(channel, length_s, method, properties, body))
        self._held.add(task)
        task.add_done_callback(self._ended)

    async def _hold(
        self, channel: AmqpChannel, length_s: float, method: Any, properties: pika.BasicProperties, body: bytes
    ) -> None:
        message = effect_of(method, properties, body)
        # A worker that held it before has made no call.
        attempted, copy = known_of(properties, is_again=False)
        if message.defect is not None:
            await self._bringing.bury(dead_effect(message, message.defect), copy, message.actor, _trace_of(message))
        else:
            await self._pause(wait_s(headers_of(properties), length_s, self._clock()))
            try:
                await self._bringing.bring_again(message, attempted, emitted_at_s(properties))
            except InvalidCommand as error:
                dead = dead_effect(message, Defect(error.code, str(error)))
                await self._bringing.bury(dead, copy, message.actor, _trace_of(message))
        if channel.raw.is_open:
            try:
                channel.raw.basic_ack(method.delivery_tag)
            except AMQPError as error:
                log.info("acknowledgement_not_sent", error=str(error))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._held.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_defect(error)


def _trace_of(message: CommandMessage) -> TraceContext | None:
    return parsed(message.traceparent, message.tracestate)
