"""Effects without a broker: carried out in the process of the lanes that emit them."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import structlog

from coordinator.effects.attempts import Attempts
from shared.commands import Command, parse
from shared.effects import EffectHandler, effects_key
from shared.errors import InvalidCommand
from shared.lane_tables import OutboxEntry
from shared.service import Service
from shared.settings import EffectSettings

log = structlog.get_logger("effects")

Tell = Callable[[OutboxEntry, Command], None]
"""Hands the result of an effect to its lane."""


class LocalEffects:
    """The effects of the services of one process. Used within its event loop.

    What is not finished at the end stays in the outbox, and is carried out by the next process.
    """

    def __init__(self, services: Sequence[Service], settings: EffectSettings, began: datetime, tell: Tell) -> None:
        self._opened = {effects_key(each.name): each.effects() for each in services if each.effects is not None}
        self._handlers: dict[str, EffectHandler[Any]] = {
            handler.effect.type: handler for effects in self._opened.values() for handler in effects.handlers
        }
        self._attempts = Attempts(settings, random.random, asyncio.sleep)
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._began = began
        self._tell = tell
        self._under_way: set[asyncio.Task[None]] = set()
        self._ids: set[str] = set()

    def has(self, routing_key: str) -> bool:
        """Whether this process carries out what is sent there."""
        return routing_key in self._opened

    def begin(self, entry: OutboxEntry) -> None:
        """Carry an emitted effect out, unless that is under way: a lease that was in doubt hands it out again."""
        if entry.command_id in self._ids:
            return
        self._ids.add(entry.command_id)
        task = asyncio.create_task(self._carry_out(entry))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda _: self._ids.discard(entry.command_id))

    async def close(self) -> None:
        """Leave what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for effects in self._opened.values():
            await effects.close()

    async def _carry_out(self, entry: OutboxEntry) -> None:
        handler = self._handlers.get(entry.type)
        try:
            effect = None if handler is None else parse(handler.effect, entry.arguments)
        except InvalidCommand as error:
            log.error("effect_malformed", command_id=entry.command_id, type=entry.type, reason=str(error))
            return
        if handler is None or effect is None:
            log.error("effect_unknown", command_id=entry.command_id, type=entry.type)
            return
        try:
            async with self._turns:
                result = await self._attempts.carry_out(
                    handler, effect, entry.command_id, may_have_happened=entry.created_at < self._began
                )
            self._tell(entry, result)
        except Exception:  # a defect of the handler's, such as in giving up; another release may do better
            log.exception("effect_failed", command_id=entry.command_id, type=entry.type)
