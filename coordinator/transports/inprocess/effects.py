"""The effects of one service within a process.

An effect is durable because it stays in the outbox of the lane that emitted it until it is acknowledged. The next
process hands it out again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final

import msgspec

from coordinator.lane.control import DeadEffect
from coordinator.lane.outbox import message_of
from coordinator.protocol.attempted import LONG_AGO_S, Attempted
from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command, version_sent
from coordinator.service.options import Options
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.dead_effects import DEAD, dead_effect_id, log_dead
from coordinator.transports.port import EffectDelivery

Bring = Callable[[str, CommandMessage], Awaitable[None]]
"""Hands a command to a lane, and returns once it is settled there."""


class _EmittedEffect:
    """One effect of an outbox, and how many deliveries of it are under way or put back."""

    __slots__ = ("copies", "key", "on_done")

    def __init__(self, key: Hashable, on_done: Callable[[], None]) -> None:
        self.key = key
        self.on_done = on_done
        self.copies = 1


class LocalEffects:
    """Implements `EffectTransport`. Its worker has at most `prefetch` effects at a time."""

    unready_reason: Final = None
    late: Final = None

    def __init__(self, service: str, prefetch: int, bring: Bring) -> None:
        self._service = service
        self._prefetch = prefetch
        self._bring = bring
        self._take: Callable[[EffectDelivery], None] | None = None
        self._effects: dict[Hashable, _EmittedEffect] = {}
        self._ready: deque[EffectDelivery] = deque()
        self._taken = 0
        self._put_back: set[asyncio.TimerHandle] = set()
        self._is_stopped = False

    @property
    def waiting(self) -> int:
        """How many effects the worker does not have: they wait for room there, or for their next attempt."""
        return len(self._ready) + len(self._put_back)

    def put(self, origin: str, entry: OutboxEntry, on_done: Callable[[], None], *, is_inherited: bool) -> None:
        """Hand an emitted effect to the worker; `on_done` is called once it need not come again.

        An effect that the worker has already is ignored: a lane whose lease was in doubt emits its outbox again.
        `is_inherited`: it was emitted before the lane's lease, so another process may have made calls for it.
        """
        key = (origin, entry.id)
        if key in self._effects:
            return
        effect = self._effects[key] = _EmittedEffect(key, on_done)
        emitted_at_s, now_s = entry.created_at.timestamp(), time.time()
        is_replayed = Options.decode(entry.options).replayed
        # A replay is emitted long after the effect itself was.
        asked_at_s = now_s - LONG_AGO_S if is_replayed else min(emitted_at_s, now_s)
        attempted = Attempted(asked_at_s=asked_at_s, first_at_s=now_s, may_have_happened=is_replayed or is_inherited)
        copy = str(int(emitted_at_s * 1000))
        self._deliver(EffectDelivery(message_of(entry), attempted, copy, int(emitted_at_s), effect))

    def start(
        self, take: Callable[[EffectDelivery], None], on_defect: Callable[[BaseException], None]
    ) -> Sequence["asyncio.Future[Any]"]:
        del on_defect  # there are no tasks that could have one
        self._take = take
        self._deliver_next()
        return []

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
        result_of: str | None = None,
    ) -> None:
        message = CommandMessage(
            command_id=command_id,
            type=command.type,
            arguments=command.arguments(),
            command_version=version_sent(command),
            origin="system",
            actor=actor,
            traceparent=None if trace is None else trace.traceparent,
            tracestate=None if trace is None else trace.tracestate,
            result_of=result_of,
        )
        await self._bring(lane, message)

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        log_dead(dead)
        await self.bring(dead, dead_effect_id(self._service, dead, copy), self._service, actor, trace)
        DEAD.labels(self._service).inc()

    async def put_back(self, delivery: EffectDelivery, delay_s: float) -> bool:
        if self._is_stopped:
            return False
        effect: _EmittedEffect = delivery.receipt
        effect.copies += 1

        def come_again() -> None:
            self._put_back.discard(timer)
            # With a note of its own: the worker still uses the old one.
            self._deliver(msgspec.structs.replace(delivery, attempted=msgspec.structs.replace(delivery.attempted)))

        timer = asyncio.get_running_loop().call_later(delay_s, come_again)
        self._put_back.add(timer)
        return True

    def has(self, delivery: EffectDelivery) -> bool:
        return delivery.receipt.key in self._effects

    def acknowledge(self, deliveries: Sequence[EffectDelivery]) -> None:
        for delivery in deliveries:
            effect: _EmittedEffect = delivery.receipt
            effect.copies -= 1
            self._taken -= 1
            if effect.copies == 0:
                del self._effects[effect.key]
                effect.on_done()
        self._deliver_next()

    def stop(self) -> None:
        self._is_stopped = True
        for timer in self._put_back:
            timer.cancel()
        self._put_back.clear()

    async def close(self) -> None:
        self.stop()
        self._take = None

    def _deliver(self, delivery: EffectDelivery) -> None:
        self._ready.append(delivery)
        self._deliver_next()

    def _deliver_next(self) -> None:
        while self._take is not None and self._ready and self._taken < self._prefetch:
            self._taken += 1
            self._take(self._ready.popleft())
