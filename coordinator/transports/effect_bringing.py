"""The messages of an effect worker to lanes, and of effects that are carried on: published until they are taken."""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final

import structlog

from coordinator.client.publish_spans import publish_span_of
from coordinator.lane.control import DeadEffect
from coordinator.protocol.actors import HEADER_ACTOR
from coordinator.protocol.attempted import Attempted, attempted_of
from coordinator.protocol.fields import VERSION
from coordinator.protocol.tracestates import HEADER_TRACESTATE
from coordinator.protocol.wire import HEADER_REPLAYED, HEADER_RESULT_OF, HEADER_TRACEPARENT, CommandMessage
from coordinator.runtime.recording import Attributes
from coordinator.service.commands import Command, version_sent
from coordinator.service.errors import Unavailable
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.transports.dead_effects import DEAD, dead_effect_id, log_dead

_PAUSE_S_MAX: Final = 30.0
_LINE_S: Final = 60.0

log = structlog.get_logger("effects")


class EffectBringing(ABC):
    """Publishes for the effects of one service. Each message waits by itself for a queue that takes it."""

    messaging: ClassVar[Attributes]
    """What spans say of the messages."""

    def __init__(self, service: str, pause_s: float) -> None:
        self._service = service
        self._pause_s = pause_s
        self._logged_at: dict[str, float] = {}

    @abstractmethod
    def _put(self, lane: str, message: CommandMessage, headers: dict[str, Any]) -> Awaitable[None]:
        """Publish a command to its lane, as the system's; return once it is safe. Raises Unavailable."""

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        """Bring an unreadable effect to the lane. `copy` tells its deliveries from those of a replay."""
        log_dead(dead)
        await self.bring(dead, dead_effect_id(self._service, dead, copy), self._service, actor, trace)
        DEAD.labels(self._service).inc()

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
        result_of: str | None = None,
    ) -> None:
        """Bring a command to its lane. Return once the broker has it. Raises InvalidCommand if it refuses that one."""
        message = CommandMessage(
            command_id,
            command.type,
            command.arguments(),
            command_version=version_sent(command),
            actor=actor,
            traceparent=None if trace is None else trace.traceparent,
            tracestate=None if trace is None else trace.tracestate,
            result_of=result_of,
        )
        span = publish_span_of(message)
        sent = message if span is None else span.carried
        details = {"command_id": command_id, "type": command.type}
        await self._insist("result_not_taken", lane, lambda: self._put(lane, sent, headers_of_carrier(sent)), details)
        if span is not None:
            span.end(lane, self.messaging)

    async def _carry_on(self, target: str, put: Callable[[], Awaitable[None]], message: CommandMessage) -> None:
        """Bring an effect that was put back to the workers. Return once the broker has it."""
        details = {"command_id": message.command_id, "type": message.type}
        await self._insist("effect_not_brought_again", target, put, details)

    async def _insist(
        self, event: str, target: str, put: Callable[[], Awaitable[None]], details: Mapping[str, str | None]
    ) -> None:
        """Publish until a queue has taken the message, with pauses that grow."""
        pause_s = self._pause_s
        while True:
            try:
                await put()
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


def headers_of_carrier(message: CommandMessage) -> dict[str, Any]:
    """The headers of a message of ours: who asked for it, its trace, and the effect whose result it is."""
    headers: dict[str, Any] = {}
    if message.actor is not None:
        headers[HEADER_ACTOR] = message.actor.as_json
    if message.traceparent is not None:
        headers[HEADER_TRACEPARENT] = message.traceparent
    if message.tracestate is not None:
        headers[HEADER_TRACESTATE] = message.tracestate
    if message.result_of is not None:
        headers[HEADER_RESULT_OF] = message.result_of
    return headers


def headers_carrying(message: CommandMessage, attempted: Attempted) -> dict[str, Any]:
    """The headers of a message that carries an effect on."""
    headers = attempted.headers() | headers_of_carrier(message)
    if message.command_version is not None:
        headers[VERSION.header] = message.command_version
    return headers


def known_of_effect(headers: Mapping[str, Any], emitted_at_s: int | None, *, is_again: bool) -> tuple[Attempted, str]:
    """The record of the attempts, and the mark that tells this copy's dead letter from that of a later replay.

    `is_again`: it was delivered before, to a worker that may have made a call.
    """
    is_replayed = bool(headers.get(HEADER_REPLAYED))
    attempted = attempted_of(
        headers,
        time.time(),
        # A replay is emitted long after the effect was.
        published_at_s=None if is_replayed or emitted_at_s is None else float(emitted_at_s),
        is_again=is_replayed or is_again,
    )
    return attempted, f"{int(attempted.asked_at_s * 1000)} {attempted.calls}"
