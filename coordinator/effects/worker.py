"""Takes effects from a transport, carries them out concurrently, and brings the results to the lane.

An effect is acknowledged once its result is safe in the transport, or the effect itself is, put back for a later
attempt. If a worker dies before, another one makes the call again with the same idempotency key. The result has an id
derived from the effect's, so the lane applies it once.

Copies of an effect are normal: the outbox may publish it twice, and a lost acknowledgement or a crash after a put-back
leaves two. Copies that meet in one worker share one call; a doubt of one of them counts for all. Copies that do not
meet make calls with the same key.

A worker holds more effects than it makes calls at once, and those who asked for them take turns (turns.py). One that
stops puts back those whose turn has not come: another worker may know that no call was made for them.
"""

import asyncio
import itertools
import random
import time
import traceback
from collections.abc import Callable, Collection, Coroutine, Sequence
from time import perf_counter
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from coordinator.effects.attempts import Attempts, EffectResult
from coordinator.effects.effect_spans import EffectSpan
from coordinator.effects.without_result import EffectsWithoutResult
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.runtime.awaited import Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.settings import EffectSettings
from coordinator.runtime.turns import Turns
from coordinator.service.commands import ClassFailed
from coordinator.service.effect_defects import check_effects
from coordinator.service.errors import InvalidCommand
from coordinator.service.outside_calls import Effect, EffectHandler, Effects
from coordinator.service.targets import Targets
from coordinator.service.upgrades import UNKNOWN_VERSION, Upgrade, by_type, parse_sent
from coordinator.transports.dead_effects import DEAD, dead_effect
from coordinator.transports.port import EffectDelivery, EffectTransport

CARRIED_OUT = Counter(
    "coordinator_effects_total", "Effects whose result is with their lane.", ["service", "type", "result"]
)
SECONDS = Histogram(
    "coordinator_effects_seconds", "From the first attempt until the result is safe.", ["service", "type"]
)
UNDER_WAY = Gauge("coordinator_effects_under_way", "Effects that this worker carries out.", ["service"])
IN_TURN = Gauge("coordinator_effects_in_turn", "Effects that wait at this worker for their turn.", ["service"])
BREAKER_OPEN = Gauge(
    "coordinator_effects_breaker_open", "1 while an effect waits for a provider that is taken to be away.", ["service"]
)
OLDEST = Gauge(
    "coordinator_effects_oldest_seconds",
    "Age of the oldest effect without a result that this worker has had.",
    ["service"],
)

_WAIT_HERE_S_MAX: Final = 2.0
_WAITS_HERE_MAX: Final = 3
"""The worker waits itself during the first short pauses, which are not worth the trip through the transport."""
_LONGEST_WAIT_S: Final = 60.0
_NEWER_DELAY_S: Final = 5.0
"""After this time an effect of a version that is not known here comes again, perhaps to a worker of a newer release."""

log = structlog.get_logger("effects")

_Prepared = tuple[EffectHandler[Any], Effect]


class Stopping(Exception):
    """Raised when a worker that stops cannot put an effect back, and leaves it to another as it is."""


class _UnderWay:
    """One effect that is being carried out, and the deliveries that brought it."""

    def __init__(self, service: str, name: str, first: EffectDelivery) -> None:
        self.name = name
        self.first = first
        self.message = first.message
        self.attempted = first.attempted
        self.deliveries = [first]
        self.span = EffectSpan(service, first.message)


class EffectWorker:
    """Carries out the effects of one service. Used within one event loop."""

    def __init__(
        self,
        service: str,
        effects: Effects,
        transport: EffectTransport,
        settings: EffectSettings,
        chance: Callable[[], float] = random.random,
        upgrades: Sequence[Upgrade] = (),
        lanes: Collection[str] = (),
    ) -> None:
        """`service` is the name of its lane; `upgrades` are those of the service; `lanes` are those to which results
        of a tenant's effects can go, beside its own. Raises ConfigurationError if the effects are declared wrongly."""
        self._service = service
        self._targets = Targets(service, lanes)
        self._upgrades = by_type(upgrades)
        check_effects(service, effects, upgrades)
        self._handlers: dict[str, EffectHandler[Any]] = {each.effect.type: each for each in effects.handlers}
        self._transport = transport
        self._settings = settings
        self._attempts = Attempts(service, settings, chance)
        self._waiting = EffectsWithoutResult()
        self._newer_line = RepeatedLine()
        self._nameless = itertools.count(1)
        self._known: dict[str, _UnderWay] = {}
        self._turns = Turns[_UnderWay]()
        self._under_way: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._failed: asyncio.Future[None] | None = None

    @property
    def late(self) -> Late | None:
        """The provider's answer, if it is late. The worker does its work meanwhile, as far as it can be done."""
        return self._attempts.late if self._has_asked else None

    @property
    def trouble(self) -> str | None:
        """What its provider does not do; None: it answers, or nothing is asked of it."""
        if not self._has_asked:
            return None
        return self._attempts.unanswered if self.late is None else str(self.late)

    @property
    def under_way(self) -> int:
        """How many effects it carries out."""
        return len(self._under_way)

    @property
    def in_turn(self) -> int:
        """How many effects wait here for their turn."""
        return sum(1 for _ in self._turns)

    @property
    def oldest_s(self) -> float:
        """The age of the oldest effect without a result, also of those whose turn has not come; 0: there is none."""
        now_s = time.time()
        return max([self._waiting.oldest_s(), *(now_s - each.attempted.asked_at_s for each in self._turns)])

    @property
    def is_provider_away(self) -> bool:
        """Whether its provider is taken to be away, and an effect waits for it."""
        return self._attempts.is_away and self._has_asked

    @property
    def _has_asked(self) -> bool:
        """Whether an effect without a result is known here. Without one, what the last calls met is the past: another
        worker may have made them since, and this one makes no call by which it would learn that."""
        return bool(self._known) or self.oldest_s > 0

    async def run(self, stop: asyncio.Event) -> bool:
        """Run until `stop`; then finish the calls under way. False: they took longer than the stop timeout.

        Raises ConfigurationError if the queue exists with other arguments, and the exception of a defect of ours.
        """
        self._failed = asyncio.get_running_loop().create_future()
        # A counter that begins with its first letter has not grown, for whoever is to be alarmed by it.
        DEAD.labels(self._service)
        OLDEST.labels(self._service).set_function(lambda: self.oldest_s)
        BREAKER_OPEN.labels(self._service).set_function(lambda: float(self.is_provider_away))
        IN_TURN.labels(self._service).set_function(lambda: self.in_turn)
        stopping = asyncio.create_task(stop.wait())
        try:
            lasting = [*self._transport.start(self.take, self._defect), self._failed]
            await asyncio.wait([stopping, *lasting], return_when=asyncio.FIRST_COMPLETED)
            for ended in lasting:
                if ended.done():
                    ended.result()
            self._stop.set()
            self._transport.stop()
            while (waiting := self._turns.take()) is not None:
                self._begin(self._leave(waiting))
            if self._under_way:
                _, late = await asyncio.wait(self._under_way, timeout=self._settings.stop_timeout_s)
                return not late
            return True
        finally:
            await end_tasks(stopping, *self._under_way)
            await self._transport.close()

    def take(self, delivery: EffectDelivery) -> None:
        """Carry out one effect, unless a copy of it is under way here."""
        if self._stop.is_set():
            return
        message = delivery.message
        # Two effects without an id must not count as copies of one.
        name = message.command_id if message.defect is None and message.command_id else f"no. {next(self._nameless)}"
        under_way = self._known.get(name)
        if under_way is not None:
            under_way.attempted.join(delivery.attempted)
            under_way.deliveries.append(delivery)
            return
        under_way = self._known[name] = _UnderWay(self._service, name, delivery)
        if len(self._under_way) < self._settings.concurrency:
            self._begin(self._serve(under_way))
        else:
            self._turns.add(message.actor, under_way)

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _begin_next(self) -> None:
        while len(self._under_way) < self._settings.concurrency and (waiting := self._turns.take()) is not None:
            if any(self._transport.has(delivery) for delivery in waiting.deliveries):
                self._begin(self._serve(waiting))
            else:
                # With its connection it went to another worker, or comes again.
                self._forget(waiting)

    async def _leave(self, waiting: _UnderWay) -> None:
        """Put back an effect for which no call was made here."""
        self._forget(waiting)
        if await self._transport.put_back(waiting.first, 0.0):
            self._transport.acknowledge(waiting.deliveries)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._defect(error)
        elif not self._stop.is_set():
            self._begin_next()

    def _defect(self, error: BaseException) -> None:
        """End the process, which loses nothing: the deliveries would keep their places of the prefetch otherwise."""
        log.error("effect_task_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _serve(self, under_way: _UnderWay) -> None:
        UNDER_WAY.labels(self._service).inc()
        try:
            prepared = self._prepared(under_way.message)
            if isinstance(prepared, Defect):
                if not (prepared.code == UNKNOWN_VERSION and await self._left_to_a_newer_one(under_way, prepared)):
                    await self._bury(under_way, prepared)
            else:
                await self._finish(under_way, prepared)
        except Stopping:
            log.info("effect_left", command_id=under_way.message.command_id, type=under_way.message.type)
            return
        finally:
            UNDER_WAY.labels(self._service).dec()
            under_way.span.end()
            self._forget(under_way)
        self._transport.acknowledge(under_way.deliveries)

    async def _left_to_a_newer_one(self, under_way: _UnderWay, defect: Defect) -> bool:
        """Put back an effect that a lane of a newer release has emitted, until it is given up. Raises Stopping.

        False: it is given up, or it is older than what can be upgraded here.
        """
        message, attempted = under_way.message, under_way.attempted
        handler = self._handlers[message.type or ""]
        is_newer = (message.command_version or 1) > handler.effect.command_version
        is_over = time.time() >= attempted.first_at_s + self._settings.give_up_after_s
        if not is_newer or is_over:
            return False
        if self._newer_line.is_due(defect.message, time.monotonic()):
            log.warning(
                "effect_of_newer_release", type=message.type, command_id=message.command_id, reason=defect.message
            )
        self._forget(under_way)
        while not await self._transport.put_back(under_way.first, _NEWER_DELAY_S):
            if not await self._pause(_NEWER_DELAY_S):
                raise Stopping
        return True

    async def _finish(self, under_way: _UnderWay, prepared: _Prepared) -> None:
        """Return once the transport has the result, a dead letter, or the effect that is put back. Raises Stopping."""
        try:
            await self._carry_out(under_way, *prepared)
        except Stopping:
            raise
        except Exception as error:
            # Without a letter its delivery would keep a place of the prefetch until the next start, and fail again.
            log.exception("effect_failed", command_id=under_way.message.command_id, type=under_way.message.type)
            defect = Defect("handler_error", f"{type(error).__name__}: {error}")
            await self._bury(under_way, defect, traceback.format_exc())

    async def _carry_out(self, under_way: _UnderWay, handler: EffectHandler[Any], effect: Effect) -> None:
        """Raises Stopping, and the exception of a defect of the handler's."""
        began, waits, waited_s = perf_counter(), 0, 0.0
        while True:
            self._waiting.seen(under_way.name, under_way.attempted.asked_at_s, time.time() + _LONGEST_WAIT_S)
            done = await self._attempts.attempt(handler, effect, under_way.name, under_way.attempted, under_way.span)
            if isinstance(done, EffectResult):
                if not done.is_fact:
                    # A copy that comes from now on may know more: carry it out by itself.
                    self._forget(under_way)
                done = await self._bring_or_guess(under_way, handler, effect, done)
                CARRIED_OUT.labels(self._service, effect.type, done.command.type).inc()
                SECONDS.labels(self._service, effect.type).observe(perf_counter() - began)
                self._waiting.done(under_way.name)
                return
            waited_s += done.delay_s
            is_short = waited_s <= _WAIT_HERE_S_MAX and waits < _WAITS_HERE_MAX
            if not is_short or not await self._pause(done.delay_s):
                self._forget(under_way)  # the effect that is put back would lack the knowledge of a copy that comes now
                self._waiting.seen(under_way.name, under_way.attempted.asked_at_s, time.time() + done.delay_s)
                if await self._transport.put_back(under_way.first, done.delay_s):
                    return
                if not await self._pause(min(done.delay_s, _LONGEST_WAIT_S)):
                    raise Stopping
            waits += 1

    async def _bring_or_guess(
        self, under_way: _UnderWay, handler: EffectHandler[Any], effect: Effect, result: EffectResult
    ) -> EffectResult:
        """Bring the result to the lane. If the transport refuses it, bring a guess that the call may have happened."""
        try:
            await self._bring(result, under_way)
        except InvalidCommand as error:
            if not result.is_fact:
                raise
            self._forget(under_way)
            result = self._attempts.unusable(handler, effect, under_way.name, under_way.attempted, str(error))
            await self._bring(result, under_way)
        return result

    async def _bring(self, result: EffectResult, under_way: _UnderWay) -> None:
        effect = under_way.first
        command_id = result.command_id(effect.message, effect.emitted_at_s)
        message = effect.message
        named = None if message.command_id is None else f"{message.type} {message.command_id}"
        lane = self._targets.of(result.command.lane())
        await self._transport.bring(result.command, command_id, lane, message.actor, under_way.span.trace, named)

    async def _bury(self, under_way: _UnderWay, defect: Defect, trace: str | None = None) -> None:
        self._forget(under_way)  # its letter may be replayed as soon as the lane has it
        message = under_way.message
        dead = dead_effect(message, defect, trace)
        await self._transport.bury(dead, under_way.first.copy, message.actor, under_way.span.trace)
        self._waiting.done(under_way.name)

    def _prepared(self, message: CommandMessage) -> _Prepared | Defect:
        if message.defect is not None:
            return message.defect
        handler = self._handlers.get(message.type or "")
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return Defect("unknown_effect_type", f"{self._service} has no effect type {message.type!r}; it has {known}")
        try:
            upgrades = self._upgrades.get(handler.effect.type, ())
            effect: Effect = parse_sent(handler.effect, message.arguments, message.command_version, upgrades)
        except ClassFailed as error:
            return Defect("malformed_effect", f"its arguments cannot be read: {error.reason}")
        except InvalidCommand as error:
            return Defect(error.code, str(error))
        except Exception as error:  # noqa: BLE001  # whatever a parser does, the effect gets an answer
            return Defect("malformed_effect", f"its arguments cannot be read: {type(error).__name__}: {error}")
        return handler, effect

    def _forget(self, under_way: _UnderWay) -> None:
        """Do not join it with copies that are delivered from now on."""
        if self._known.get(under_way.name) is under_way:
            del self._known[under_way.name]

    async def _pause(self, delay_s: float) -> bool:
        """Return False if the worker has to stop."""
        try:
            async with asyncio.timeout(delay_s):
                await self._stop.wait()
        except TimeoutError:
            return True
        return False
