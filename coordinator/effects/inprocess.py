"""Effects without a broker: carried out in the process of the lanes that emit them."""

import asyncio
import random
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from coordinator.effects.attempts import Attempts, EffectResult
from coordinator.lane.outbox import message_of
from coordinator.protocol.attempted import LONG_AGO_S, Attempted
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command, parse
from coordinator.service.errors import InvalidCommand
from coordinator.service.options import Options
from coordinator.service.outside_calls import Effect, EffectHandler, effects_key
from coordinator.service.service import Service
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.dead_effects import dead_effect, dead_effect_id

log = structlog.get_logger("effects")

Bring = Callable[[OutboxEntry, str, str, Command], None]
"""Hands what came of an effect to its lane: the entry, the lane, and the command with its id."""


class LocalEffects:
    """The effects of the services of one process. Used within its event loop.

    What has no result yet stays in the outbox, and is carried out by the next process: that is what makes it durable.
    """

    def __init__(self, services: Sequence[Service], settings: EffectSettings, bring: Bring) -> None:
        self._opened = {effects_key(each.name): each.effects() for each in services if each.effects is not None}
        self._handlers: dict[str, EffectHandler[Any]] = {
            handler.effect.type: handler for effects in self._opened.values() for handler in effects.handlers
        }
        self._attempts = {key: Attempts(key.partition(".")[2], settings, random.random) for key in self._opened}
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._bring = bring
        self._under_way: set[asyncio.Task[None]] = set()
        self._ids: set[str] = set()

    def has(self, routing_key: str) -> bool:
        """Whether this process carries out what is sent there."""
        return routing_key in self._opened

    def begin(self, entry: OutboxEntry, is_inherited: bool) -> None:  # called by an event loop
        """Carry an emitted effect out, unless that is under way: a lease that was in doubt hands it out again.

        `is_inherited`: it was emitted before the lane's lease, so that another process may have made calls for it.
        """
        if entry.command_id in self._ids:
            return
        self._ids.add(entry.command_id)
        task = asyncio.create_task(self._carry_out(entry, is_inherited))
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

    async def _carry_out(self, entry: OutboxEntry, is_inherited: bool) -> None:
        try:
            prepared = self._prepared(entry)
            if isinstance(prepared, Defect):
                self._bury(entry, prepared, None)
                return
            result = await self._result(entry, is_inherited, *prepared)
            command_id = result.command_id(message_of(entry), int(entry.created_at.timestamp()))
            self._bring(entry, result.command.lane(), command_id, result.command)
        except Exception as error:  # noqa: BLE001  # a defect of the handler's, such as in giving up; another release may do better
            defect = Defect("handler_error", f"{type(error).__name__}: {error}")
            self._bury(entry, defect, traceback.format_exc())

    async def _result(
        self, entry: OutboxEntry, is_inherited: bool, handler: EffectHandler[Any], effect: Effect
    ) -> EffectResult:
        """What came of it, after as many attempts as it takes. A slot is taken for each, and not for the pauses."""
        now_s = time.time()
        is_replayed = Options.decode(entry.options).replayed
        asked_at_s = now_s - LONG_AGO_S if is_replayed else min(entry.created_at.timestamp(), now_s)
        is_again = is_replayed or is_inherited
        attempted = Attempted(asked_at_s=asked_at_s, first_at_s=now_s, may_have_happened=is_again)
        while True:
            async with self._slots:
                done = await self._attempts[entry.lane].attempt(handler, effect, entry.command_id, attempted)
            if isinstance(done, EffectResult):
                return done
            await asyncio.sleep(done.delay_s)

    def _prepared(self, entry: OutboxEntry) -> tuple[EffectHandler[Any], Effect] | Defect:
        handler = self._handlers.get(entry.type)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return Defect("unknown_effect_type", f"there is no effect type {entry.type!r} here; there are {known}")
        try:
            effect: Effect = parse(handler.effect, entry.arguments)
        except InvalidCommand as error:
            return Defect(error.code, str(error))
        return handler, effect

    def _bury(self, entry: OutboxEntry, defect: Defect, trace: str | None) -> None:
        """Its lane makes a dead letter of it."""
        log.error("effect_dead", command_id=entry.command_id, type=entry.type, code=defect.code, reason=defect.message)
        message = CommandMessage(
            command_id=entry.command_id, type=entry.type, arguments=entry.arguments, origin="system"
        )
        lane = entry.lane.partition(".")[2]
        copy = str(int(entry.created_at.timestamp() * 1000))
        dead = dead_effect(message, defect, trace)
        self._bring(entry, lane, dead_effect_id(lane, dead, copy), dead)
