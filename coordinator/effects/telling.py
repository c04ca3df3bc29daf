"""What an effect worker publishes: results, what it could make nothing of, and effects that are put back."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

import pika
import structlog
from prometheus_client import Counter

from coordinator.effects.attempted import Attempted
from coordinator.effects.attempts import Told
from coordinator.effects.retry_queues import HEADER_PUT_BACK_AT, retry_key
from coordinator.lane.control import EFFECT_TEXT_CHARACTERS_MAX, DeadEffect
from coordinator.lane.letters import REASON_CHARACTERS_MAX, TRACEBACK_CHARACTERS_MAX
from coordinator.protocol.wire import CommandMessage, Problem
from coordinator.service.commands import Command
from coordinator.service.errors import Unavailable
from coordinator.service.ids import system_command_id
from coordinator.service.outside_calls import effects_key
from coordinator.service.text import storable, storable_end
from coordinator.transports.rabbitmq.properties import command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

DEAD = Counter("effects_dead_total", "Messages that are no effect, or met a defect; the lane was told.", ["service"])

_PAUSE_S_MAX: Final = 30.0
_LINE_S: Final = 60.0

log = structlog.get_logger("effects")


class Telling:
    """Publishes for the effects of one service. Each message waits by itself for a queue that takes it."""

    def __init__(self, service: str, publisher: Publisher, pause_s: float) -> None:
        self._service = service
        self._publisher = publisher
        self._pause_s = pause_s
        self._logged_at: dict[str, float] = {}

    async def tell(self, told: Told, effect: CommandMessage) -> None:
        """Bring a result to its lane. Return once the broker has it."""
        command_id = told.command_id(effect.type or "", effect.command_id or "", effect.arguments)
        await self._bring(told.command, command_id)

    async def bury(self, dead: DeadEffect, copy: str) -> None:
        """Bring to the lane what nothing could be made of. `copy` tells its deliveries from those of a replay."""
        name = dead.command_id or hashlib.sha256(f"{dead.effect_type}\n{dead.body}".encode()).hexdigest()
        log.error("effect_dead", command_id=dead.command_id, type=dead.effect_type, code=dead.code, reason=dead.reason)
        # A stranger may say any id, and any headers that a copy is known by.
        parts = (name, "dead", copy) if dead.origin == "system" else (name, dead.origin, "dead", copy)
        await self._bring(dead, system_command_id(self._service, *parts), lane=self._service)
        DEAD.labels(self._service).inc()

    async def put_back(self, message: CommandMessage, attempted: Attempted, delay_s: float) -> bool:
        """Have the effect come again, about so much later, and to any worker. False: no queue takes it now."""
        target = retry_key(self._service, delay_s)
        properties = _carrying(message, attempted)
        properties.headers[HEADER_PUT_BACK_AT] = int(time.time() * 1000)
        try:
            await self._publisher.publish(SYSTEM_EXCHANGE, target, properties, message.arguments)
        except Unavailable as error:
            self._warn("effect_not_put_back", target, error, command_id=message.command_id)
            return False
        return True

    async def bring_again(self, message: CommandMessage, attempted: Attempted) -> None:
        """Bring an effect that was put back to the workers. Return once the broker has it."""
        details = {"command_id": message.command_id, "type": message.type}
        await self._insist(
            "effect_not_brought_again",
            effects_key(self._service),
            lambda: _carrying(message, attempted),
            message.arguments,
            details,
        )

    async def _bring(self, command: Command, command_id: str, lane: str | None = None) -> None:
        message = CommandMessage(command_id, command.type, command.arguments())
        await self._insist(
            "result_not_taken",
            command.lane() if lane is None else lane,
            lambda: command_properties(message, {}),
            message.arguments,
            {"command_id": command_id, "type": command.type},
        )

    async def _insist(
        self,
        event: str,
        target: str,
        properties: Callable[[], pika.BasicProperties],
        body: bytes,
        details: Mapping[str, str | None],
    ) -> None:
        """Until a queue has taken it, with pauses that grow."""
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
        """Once a minute for each target."""
        now = time.monotonic()
        if now - self._logged_at.get(target, -math.inf) >= _LINE_S:
            self._logged_at[target] = now
            log.warning(event, target=target, error=str(error), **details)


def _carrying(message: CommandMessage, attempted: Attempted) -> pika.BasicProperties:
    """The properties of a message that carries an effect on."""
    return command_properties(message, attempted.headers())


def dead_effect(message: CommandMessage, problem: Problem, traceback: str | None = None) -> DeadEffect:
    """What the lane is told of an effect that nothing could be made of; its text as far as it fits."""
    body = message.arguments.decode("utf-8", "backslashreplace")[:EFFECT_TEXT_CHARACTERS_MAX]
    return DeadEffect(
        command_id=message.command_id,
        effect_type=message.type,
        body=body,
        size_bytes=None if body.encode() == message.arguments else len(message.arguments),
        code=problem.code,
        reason=storable(problem.message, REASON_CHARACTERS_MAX),
        traceback=None if traceback is None else storable_end(traceback, TRACEBACK_CHARACTERS_MAX),
        origin=message.origin,
    )
