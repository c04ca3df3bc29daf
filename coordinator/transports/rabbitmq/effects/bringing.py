"""The messages of an effect worker: results, unreadable effects, and effects that are put back."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import pika
import structlog

from coordinator.client.publish_spans import messaging, publish_span_of
from coordinator.lane.control import DeadEffect
from coordinator.protocol.actors import HEADER_ACTOR, encoded_actor
from coordinator.protocol.attempted import Attempted
from coordinator.protocol.fields import VERSION
from coordinator.protocol.tracestates import HEADER_TRACESTATE
from coordinator.protocol.wire import HEADER_TRACEPARENT, CommandMessage
from coordinator.service.commands import Command, version_sent
from coordinator.service.errors import Unavailable
from coordinator.service.outside_calls import effects_key
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.transports.dead_effects import DEAD, dead_effect_id, log_dead
from coordinator.transports.rabbitmq.effects.retry_queues import HEADER_PUT_BACK_AT, retry_key
from coordinator.transports.rabbitmq.properties import app_id, command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

_PAUSE_S_MAX: Final = 30.0
_LINE_S: Final = 60.0
MESSAGING: Final = messaging(is_rabbitmq=True)

log = structlog.get_logger("effects")


class Bringing:
    """Publishes for the effects of one service. Each message waits by itself for a queue that takes it."""

    def __init__(self, service: str, publisher: Publisher, pause_s: float) -> None:
        self._service = service
        self._publisher = publisher
        self._pause_s = pause_s
        self._app_id = app_id(f"effects.{service}")
        self._logged_at: dict[str, float] = {}

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        """Bring an unreadable effect to the lane. `copy` tells its deliveries from those of a replay."""
        log_dead(dead)
        await self.bring(dead, dead_effect_id(self._service, dead, copy), self._service, actor, trace)
        DEAD.labels(self._service).inc()

    async def put_back(
        self, message: CommandMessage, attempted: Attempted, emitted_at_s: int | None, delay_s: float
    ) -> bool:
        """Have the effect come again after about this delay, to any worker. False: no queue takes it now."""
        target = retry_key(self._service, delay_s)
        properties = _carrying(message, attempted, emitted_at_s, self._app_id)
        properties.headers[HEADER_PUT_BACK_AT] = int(time.time() * 1000)
        try:
            await self._publisher.publish(SYSTEM_EXCHANGE, target, properties, message.arguments)
        except Unavailable as error:
            self._warn("effect_not_put_back", target, error, command_id=message.command_id)
            return False
        return True

    async def bring_again(self, message: CommandMessage, attempted: Attempted, emitted_at_s: int | None) -> None:
        """Bring an effect that was put back to the workers. Return once the broker has it."""
        details = {"command_id": message.command_id, "type": message.type}
        await self._insist(
            "effect_not_brought_again",
            effects_key(self._service),
            lambda: _carrying(message, attempted, emitted_at_s, self._app_id),
            message.arguments,
            details,
        )

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
    ) -> None:
        """Bring a command to its lane. Return once the broker has it. Raises InvalidCommand if it refuses that one."""
        version = version_sent(command)
        message = CommandMessage(
            command_id,
            command.type,
            command.arguments(),
            command_version=version,
            actor=actor,
            traceparent=None if trace is None else trace.traceparent,
            tracestate=None if trace is None else trace.tracestate,
        )
        span = publish_span_of(message)
        sent = message if span is None else span.carried
        await self._insist(
            "result_not_taken",
            lane,
            lambda: command_properties(sent, _headers_of(sent), timestamp=int(time.time()), app_id=self._app_id),
            message.arguments,
            {"command_id": command_id, "type": command.type},
        )
        if span is not None:
            span.end(lane, MESSAGING)

    async def _insist(
        self,
        event: str,
        target: str,
        properties: Callable[[], pika.BasicProperties],
        body: bytes,
        details: Mapping[str, str | None],
    ) -> None:
        """Publish until a queue has taken the message, with pauses that grow."""
        pause_s = self._pause_s
        while True:
            try:
                await self._publisher.publish(SYSTEM_EXCHANGE, target, properties(), body)
            except Unavailable as error:
                self._warn(event, target, error, **details)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_S_MAX)
            else:
                return

    def _warn(self, event: str, target: str, error: Unavailable, **details: str | None) -> None:
        """Log a warning, once a minute for each target."""
        now = time.monotonic()
        if now - self._logged_at.get(target, -math.inf) >= _LINE_S:
            self._logged_at[target] = now
            log.warning(event, target=target, error=str(error), **details)


def _headers_of(message: CommandMessage) -> dict[str, Any]:
    """The headers of a message of ours: who asked for it, and its trace."""
    headers: dict[str, Any] = {}
    if message.actor is not None:
        headers[HEADER_ACTOR] = encoded_actor(message.actor)
    if message.traceparent is not None:
        headers[HEADER_TRACEPARENT] = message.traceparent
    if message.tracestate is not None:
        headers[HEADER_TRACESTATE] = message.tracestate
    return headers


def _carrying(
    message: CommandMessage, attempted: Attempted, emitted_at_s: int | None, publisher: str | None = None
) -> pika.BasicProperties:
    """The properties of a message that carries an effect on."""
    headers = attempted.headers() | _headers_of(message)
    if message.command_version is not None:
        headers[VERSION.header] = message.command_version
    return command_properties(message, headers, timestamp=emitted_at_s, app_id=publisher)
