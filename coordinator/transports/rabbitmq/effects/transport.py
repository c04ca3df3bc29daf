"""The queue of a service's effects, and what its workers publish."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import pika
import structlog
from pika.exceptions import AMQPError

from coordinator.lane.control import DeadEffect
from coordinator.runtime.awaited import Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.commands import Command
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.outside_calls import effects_key
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.transports.port import EffectDelivery
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.bindings import keep_bound, queues_of_effects
from coordinator.transports.rabbitmq.effects.bringing import Bringing
from coordinator.transports.rabbitmq.effects.reading import effect_of, emitted_at_s, known_of
from coordinator.transports.rabbitmq.effects.returning import Returning
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, queue_name
from coordinator.transports.reconnecting import Reconnecting

_ACKNOWLEDGED_WITHIN_S: Final = 1.0

log = structlog.get_logger("effects")


class RabbitEffects:
    """Implements `EffectTransport`. A worker has at most `prefetch` effects at a time."""

    def __init__(self, service: str, broker: BrokerSettings, prefetch: int, publisher: Publisher | None = None) -> None:
        self._service = service
        self._broker = broker
        self._prefetch = prefetch
        self._publisher = publisher or Publisher(
            broker, f"effects {service} publish", (SYSTEM_EXCHANGE,), declares=True
        )
        self._bringing = Bringing(service, self._publisher, broker.reconnect_delay_s)
        self._returning: Returning | None = None
        self._take: Callable[[EffectDelivery], None] | None = None
        self._connection: AmqpConnection | None = None
        self._channel: AmqpChannel | None = None
        self._consuming: asyncio.Task[Any] | None = None
        self._reconnecting = Reconnecting(f"effects {service}", broker)

    @property
    def unready_reason(self) -> str | None:
        if not self._reconnecting.connected.is_set():
            return self._reconnecting.reason
        if not self._publisher.is_ready:
            return self._publisher.unready_reason
        return None if (late := self.late) is None else str(late)

    @property
    def late(self) -> Late | None:
        connection = self._connection
        return self._publisher.late or (None if connection is None else connection.late)

    def start(
        self, take: Callable[[EffectDelivery], None], on_defect: Callable[[BaseException], None]
    ) -> Sequence["asyncio.Future[Any]"]:
        self._take = take
        self._returning = Returning(self._service, self._bringing, on_defect)
        self._consuming = asyncio.create_task(self._reconnecting.run(self._consume), name=f"effects of {self._service}")
        return [self._publisher.start(), self._consuming]

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
        result_of: str | None = None,
    ) -> None:
        await self._bringing.bring(command, command_id, lane, actor, trace, result_of)

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        await self._bringing.bury(dead, copy, actor, trace)

    async def put_back(self, delivery: EffectDelivery, delay_s: float) -> bool:
        return await self._bringing.put_back(delivery.message, delivery.attempted, delivery.emitted_at_s, delay_s)

    def has(self, delivery: EffectDelivery) -> bool:
        channel: AmqpChannel = delivery.receipt[0]
        return channel is self._channel and bool(channel.raw.is_open)

    def acknowledge(self, deliveries: Sequence[EffectDelivery]) -> None:
        for delivery in deliveries:
            channel: AmqpChannel = delivery.receipt[0]
            tag: int = delivery.receipt[1]
            if self.has(delivery):
                try:
                    channel.raw.basic_ack(tag)
                except AMQPError as error:
                    log.info("acknowledgement_not_sent", error=str(error))

    def stop(self) -> None:
        if self._returning is not None:
            self._returning.stop()

    async def close(self) -> None:
        await self._have_acknowledged()
        await end_tasks(self._consuming)
        if self._returning is not None:
            await self._returning.close()
        await self._publisher.close()

    async def _have_acknowledged(self) -> None:
        """Return once the broker has the last acknowledgements: what was put back would come again else, in doubt."""
        channel = self._channel
        if channel is not None and channel.raw.is_open:
            with suppress(BrokerUnavailable, TimeoutError):
                async with asyncio.timeout(_ACKNOWLEDGED_WITHIN_S):
                    # Its answer comes after all that was sent before it.
                    await channel.call(channel.raw.basic_qos, prefetch_count=self._prefetch)

    async def _consume(self) -> BrokerUnavailable:
        """Consume until the connection is lost; first declare the queues again, which may have been deleted."""
        connection = self._connection = await AmqpConnection.open(self._broker, f"effects {self._service}")
        returning = self._returning
        binding: asyncio.Task[None] | None = None
        try:
            channel = await connection.channel()
            await channel.declare_effects(self._service, self._broker.queue_bytes_max)
            await channel.call(channel.raw.basic_qos, prefetch_count=self._prefetch)
            self._channel = channel
            await channel.consume(
                queue_name(effects_key(self._service)),
                lambda _, method, properties, body: self.deliver(channel, method, properties, body),
            )
            if returning is not None:
                await returning.consume(connection, self._broker.queue_bytes_max)
            self._reconnecting.is_up()
            log.info("consuming", service=self._service)
            queues = queues_of_effects(self._service)
            binding = asyncio.create_task(keep_bound(connection, queues), name=f"bindings of effects {self._service}")
            return await asyncio.shield(connection.lost)
        finally:
            self._channel = None
            if returning is not None:
                returning.leave()
            try:
                await end_tasks(binding)
            finally:
                await connection.end()

    def deliver(self, channel: AmqpChannel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        """Hand a delivery of the queue to the worker."""
        attempted, copy = known_of(properties, is_again=bool(method.redelivered))
        message = effect_of(method, properties, body)
        if self._take is not None:
            self._take(
                EffectDelivery(message, attempted, copy, emitted_at_s(properties), (channel, method.delivery_tag))
            )
