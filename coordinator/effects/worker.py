"""Takes effects from their queue, has them carried out concurrently, and brings the results to the lane.

Acknowledged is an effect once the broker has its result safe. A worker that dies before leaves it to another, which
makes the call again with the same idempotency key; the result has an id derived from the effect's, so the lane applies
it once.
"""

import asyncio
import itertools
import random
import traceback
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pika
import structlog
from prometheus_client import Counter, Gauge, Histogram

from coordinator.effects.attempts import Attempts
from coordinator.lane.control import EFFECT_TEXT_CHARACTERS_MAX, DeadEffect
from coordinator.rabbitmq.emitted import PERSISTENT
from shared.commands import Command, parse
from shared.effects import Effect, EffectHandler, Effects, effects_key
from shared.errors import BrokerUnavailable, InvalidCommand, Unavailable
from shared.ids import derived_command_id, new_command_id
from shared.messaging.amqp import AmqpChannel, AmqpConnection
from shared.messaging.publisher import Publisher
from shared.messaging.topology import SYSTEM_EXCHANGE, queue_name
from shared.messaging.wire import JSON_CONTENT, CommandMessage, Problem, decode, envelope_of
from shared.settings import BrokerSettings, EffectSettings

CARRIED_OUT = Counter("effects_total", "Effects whose result the lane was told.", ["service", "type", "result"])
SECONDS = Histogram("effects_seconds", "From the delivery of an effect until its result is safe.", ["service", "type"])
UNDER_WAY = Gauge("effects_under_way", "Effects that this worker has taken.", ["service"])

_PACKED = Problem("malformed_effect", "an effect travels alone, and not in a pack")

log = structlog.get_logger("effects")


class Stopping(Exception):
    """Raised in a pause between two attempts: the effect is left to another worker."""


class EffectWorker:
    """The effects of one service. Used within one event loop."""

    def __init__(
        self,
        service: str,
        effects: Effects,
        broker: BrokerSettings,
        settings: EffectSettings,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._handlers: dict[str, EffectHandler[Any]] = {each.effect.type: each for each in effects.handlers}
        self._broker = broker
        self._settings = settings
        self._publisher = Publisher(broker, f"effects {service} publish")
        self._attempts = Attempts(settings, chance, self._pause)
        self._channel: AmqpChannel | None = None
        self._tags: dict[str, tuple[AmqpChannel, int]] = {}
        self._nameless = itertools.count(1)
        self._under_way: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self.is_consuming = False

    async def run(self, stop: asyncio.Event) -> bool:
        """Until `stop`; then finish the calls under way. False: they took longer than the stop timeout.

        Raises ConfigurationError when the queue exists with other arguments.
        """
        self._publisher.start()
        consuming = asyncio.create_task(self._keep_consuming())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({consuming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if consuming.done():
                consuming.result()
            self._stop.set()
            if self._under_way:
                _, late = await asyncio.wait(self._under_way, timeout=self._settings.stop_timeout_s)
                return not late
            return True
        finally:
            tasks = [consuming, stopping, *self._under_way]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._publisher.close()

    async def _keep_consuming(self) -> None:
        while True:
            try:
                await self._consume()
            except BrokerUnavailable as error:
                log.warning("broker_unavailable", connection=f"effects {self._service}", error=str(error))
            await asyncio.sleep(self._broker.reconnect_delay_s)

    async def _consume(self) -> None:
        """Consume until the connection is lost."""
        connection = await AmqpConnection.open(self._broker, f"effects {self._service}")
        try:
            channel = await connection.channel()
            await channel.declare_effects(self._service, self._broker.queue_bytes_max)
            await channel.call(channel.raw.basic_qos, prefetch_count=self._settings.concurrency)
            self._channel = channel
            await channel.call(
                channel.raw.basic_consume,
                queue_name(effects_key(self._service)),
                on_message_callback=lambda _, method, properties, body: self._take(channel, method, properties, body),
            )
            self.is_consuming = True
            log.info("consuming", service=self._service)
            reason = await asyncio.shield(connection.lost)
            log.warning("broker_connection_lost", connection=f"effects {self._service}", error=str(reason))
        finally:
            self.is_consuming = False
            self._channel = None
            connection.abort()

    def _take(self, channel: AmqpChannel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        if self._stop.is_set():
            return
        message, *others = decode(envelope_of(properties, method.exchange), body)
        if others:
            message = CommandMessage(command_id=None, type=None, arguments=body, problem=_PACKED)
        # Tags begin anew with each channel; one without an id must not be taken for another.
        command_id = message.command_id or f"nameless {next(self._nameless)}"
        is_under_way = command_id in self._tags
        # Delivered again, on another channel, while it is carried out: the new delivery is to be acknowledged.
        self._tags[command_id] = channel, method.delivery_tag
        if not is_under_way:
            task = asyncio.create_task(self._serve(command_id, message, is_redelivered=bool(method.redelivered)))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _serve(self, command_id: str, message: CommandMessage, *, is_redelivered: bool) -> None:
        UNDER_WAY.labels(self._service).inc()
        try:
            await self._settle(command_id, message, is_redelivered=is_redelivered)
            self._acknowledge(command_id)
        except Stopping:
            log.info("effect_left", command_id=command_id, type=message.type)
        finally:
            UNDER_WAY.labels(self._service).dec()
            self._tags.pop(command_id, None)

    async def _settle(self, command_id: str, message: CommandMessage, *, is_redelivered: bool) -> None:
        """Return once the broker has the result, or a dead letter. Raises Stopping."""
        try:
            prepared = self._prepared(message)
            if not isinstance(prepared, Problem):
                await self._carry_out(command_id, *prepared, is_redelivered=is_redelivered)
                return
            problem, trace = prepared, None
        except Stopping:
            raise
        except Exception as error:
            # Left as it is, its delivery would keep a place of the prefetch until the next start, and fail again then.
            log.exception("effect_failed", command_id=command_id, type=message.type)
            problem, trace = Problem("handler_error", f"{type(error).__name__}: {error}"), traceback.format_exc()
        text = message.arguments.decode("utf-8", "backslashreplace")[:EFFECT_TEXT_CHARACTERS_MAX]
        dead = DeadEffect(
            command_id=message.command_id,
            effect_type=message.type,
            body=text,
            code=problem.code,
            reason=problem.message,
            traceback=trace,
        )
        await self._tell_lane(dead, self._service, new_command_id())

    async def _carry_out(
        self, command_id: str, handler: EffectHandler[Any], effect: Effect, *, is_redelivered: bool
    ) -> None:
        """Return once the broker has the result. Raises Stopping, and whatever a defect of the handler's raises."""
        began = perf_counter()
        result = await self._attempts.carry_out(handler, effect, command_id, may_have_happened=is_redelivered)
        await self._tell_lane(result, result.lane(), derived_command_id(command_id, 0))
        CARRIED_OUT.labels(self._service, effect.type, result.type).inc()
        SECONDS.labels(self._service, effect.type).observe(perf_counter() - began)

    def _prepared(self, message: CommandMessage) -> tuple[EffectHandler[Any], Effect] | Problem:
        if message.problem is not None:
            return message.problem
        handler = self._handlers.get(message.type or "")
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return Problem(
                "unknown_effect_type", f"{self._service} has no effect type {message.type!r}; it has {known}"
            )
        try:
            effect: Effect = parse(handler.effect, message.arguments)
        except InvalidCommand as error:
            return Problem(error.code, str(error))
        return handler, effect

    async def _tell_lane(self, result: Command, lane: str, command_id: str) -> None:
        """Return once the broker has it."""
        arguments = result.arguments()
        while True:
            properties = pika.BasicProperties(
                message_id=command_id, type=result.type, content_type=JSON_CONTENT, delivery_mode=PERSISTENT
            )
            try:
                await self._publisher.publish(SYSTEM_EXCHANGE, lane, properties, arguments)
            except Unavailable as error:
                log.error("result_not_taken", command_id=command_id, type=result.type, error=str(error))
                await asyncio.sleep(self._broker.reconnect_delay_s)
            else:
                return

    def _acknowledge(self, command_id: str) -> None:
        channel, tag = self._tags[command_id]
        if channel is self._channel and channel.raw.is_open:
            channel.raw.basic_ack(tag)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._stop.wait()
        except TimeoutError:
            return
        raise Stopping
