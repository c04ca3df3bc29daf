"""One attempt at an effect: it ends in the command with the result for the lane, or in a wait before the next one.

The states of an effect:

    asked ──▶ a call is made ──▶ the other side answered                      sent: a fact
                 │      ▲
                 ▼      │ after a pause that grows; while the breaker is open, without a call
              no answer ┘
                 │ EFFECTS_GIVE_UP_AFTER_S after the first attempt
                 ▼
              looked up ──▶ the other side knows it                           sent: a fact
                 ├────────▶ it certainly does not, and every call certainly
                 │          failed                                            sent: it did not happen (a denial)
                 └────────▶ anything else                                     sent: it may have happened (a doubt)

Denials and doubts are guesses. If an answer makes no command that the lane could read, the lane gets a doubt.

Copies of one effect may end differently, since each knows only its own calls. So a fact, a denial and a doubt have an
id each, and the lane learns all of them, in any order: a fact counts most, then a doubt.

An effect that a crash leaves is delivered again, with the doubt that somebody made a call. A worker that has to wait
long puts the effect back (retry_queues.py), with everything known about it, and takes up others.
"""

import asyncio
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from msgspec import Struct
from prometheus_client import Counter, Histogram

from coordinator.effects.effect_spans import EffectSpan
from coordinator.effects.provider_breaker import ProviderBreaker
from coordinator.effects.provider_silence import ProviderSilence
from coordinator.protocol.attempted import Attempted
from coordinator.protocol.wire import BODY_BYTES_MAX, CommandMessage
from coordinator.runtime.awaited import LATE_S, Late
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command, validated
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import derived_command_id
from coordinator.service.outside_calls import (
    REASON_CHARACTERS_MAX,
    Call,
    Effect,
    EffectHandler,
    EffectRetry,
    GivenUp,
    no_answer_text,
)
from coordinator.service.text import storable, storable_end

RETRIES = Counter(
    "coordinator_effects_retries_total", "Calls that brought no answer and are made again.", ["service", "type"]
)
POSTPONED = Counter(
    "coordinator_effects_postponed_total", "Attempts without a call: the breaker was open.", ["service", "type"]
)
CALLS = Histogram(
    "coordinator_effects_call_seconds",
    "How long a call to the provider took: until it was answered, had no answer, or met a defect.",
    ["service", "type", "result"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)

_FACT_POSITION: Final = 0
_DENIAL_POSITION: Final = 1
_DOUBT_POSITION: Final = 2

_LOOK_UP_SHARE: Final = 0.1
_LOOK_UPS: Final = 4
"""Before an effect is given up, a provider that does not answer the look-up is asked for a tenth longer, at least this
many times."""

_TRACEBACK_CHARACTERS_MAX: Final = 8000

_APART_S: Final = 5.0
"""The span over which effects come back to a provider that was away."""

log = structlog.get_logger("effects")


class EffectResult(Struct, frozen=True, kw_only=True):
    """The command for the lane. `is_fact`: the other side said so; otherwise the effect is given up.

    `is_doubt`: it is given up, and the call may have had its effect.
    """

    command: Command
    is_fact: bool
    is_doubt: bool = False

    def command_id(self, effect: CommandMessage, emitted_at_s: int | None) -> str:
        """Facts, denials and doubts have different ids: what one copy says first must not keep from the lane what
        another knows, neither a fact nor that its own call may have had its effect.

        `emitted_at_s`: when the lane asked, or None if that is unknown. It tells a new request in the same words from
        a copy of the old one.

        The effect's id stands for its arguments, unless an operator has replayed it with others. So the id is made of
        the command that emitted it, of which the order to replay is one, and not of the arguments: whoever sees ids
        could prove a guess at these. An effect that does not name that command is of a lane of an earlier release: its
        arguments are a part of the id for good, since a worker of that release may have another copy.
        """
        guess = _DOUBT_POSITION if self.is_doubt else _DENIAL_POSITION
        position = _FACT_POSITION if self.is_fact else guess
        asked = b"" if emitted_at_s is None else f"{emitted_at_s}\n".encode()
        told_apart_by = effect.arguments if effect.result_of is None else effect.result_of.encode()
        return derived_command_id(f"{effect.type} {effect.command_id}", position, asked + told_apart_by)


class PutOff(Struct, frozen=True):
    """There is no result yet: try again after this time."""

    delay_s: float


class Attempts:
    """Makes the attempts at the effects of one service, whose calls go to one provider.

    `chance` draws from 0 to 1; `clock` gives the seconds since the Unix epoch, `monotonic` those of a monotonic clock.
    """

    def __init__(
        self,
        service: str,
        settings: EffectSettings,
        chance: Callable[[], float],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._settings = settings
        self._chance = chance
        self._clock = clock
        self._monotonic = monotonic
        self._breaker = ProviderBreaker(settings, monotonic, chance)
        self._silence = ProviderSilence(monotonic)
        self._unanswered = 0
        self._no_answer = ""
        self._unanswered_at_s = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the provider is taken to be away, by the last calls that were made."""
        return self._breaker.is_open

    @property
    def late(self) -> Late | None:
        """The provider's answer, if it is late."""
        return self._silence.late

    @property
    def unanswered(self) -> str | None:
        """How many of the last calls the provider has not answered, when the last one was made unless that was just
        now, and why it has not answered that; None: it answers."""
        if not self._unanswered:
            return None
        # Pauses between calls grow: what answers again may not have been asked yet.
        ago_s = self._monotonic() - self._unanswered_at_s
        calls, last = "the last call", ""
        if self._unanswered > 1:
            calls, last = f"the last {self._unanswered} calls", "the last one "
        if ago_s >= LATE_S:
            calls = f"{calls} ({last}{ago_s:.0f} s ago)"
        return no_answer_text(calls, self._no_answer)

    async def attempt(
        self,
        handler: EffectHandler[Any],
        effect: Effect,
        key: str,
        attempted: Attempted,
        span: EffectSpan | None = None,
    ) -> EffectResult | PutOff:
        """Make the next attempt, if its time has come, and note its end in `attempted`. `span` is about the effect.

        Raises only a cancellation, the exceptions of the handler's `give_up`, and TypeError if that makes no command.
        """
        now_s = self._clock()
        attempted.correct(now_s)
        if attempted.not_before_s > now_s:
            return PutOff(attempted.not_before_s - now_s)
        if attempted.not_before_s and now_s >= self._over_at_s(attempted):
            return await self._give_up(handler, effect, _call(key, attempted, span), attempted)
        wait_s = self._breaker.wait_s()
        if wait_s > 0:
            POSTPONED.labels(self._service, effect.type).inc()
            attempted.reason = attempted.reason or "the provider is away, and was not asked"
            return self._put_off(attempted, wait_s + self._chance() * min(wait_s, _APART_S))
        attempted.calls += 1
        outcome = await self._perform(handler, effect, _call(key, attempted, span), span, attempted.calls)
        if isinstance(outcome, Command):
            return self._fact(handler, effect, key, attempted, outcome)
        attempted.may_have_happened = attempted.may_have_happened or outcome.may_have_happened
        attempted.reason = str(outcome)
        put_off = self._put_off(attempted, self._delay_s(attempted.calls, outcome.after_s))
        RETRIES.labels(self._service, effect.type).inc()
        log.warning(
            "effect_retried",
            type=effect.type,
            key=key,
            calls=attempted.calls,
            reason=attempted.reason,
            after_s=put_off.delay_s,
        )
        return put_off

    def unusable(
        self, handler: EffectHandler[Any], effect: Effect, key: str, attempted: Attempted, reason: str
    ) -> EffectResult:
        """The result in place of an answer that cannot be sent: the call may have happened.

        Raises the exceptions of the handler's `give_up`.
        """
        log.error("effect_answer_unusable", type=effect.type, key=key, calls=attempted.calls, reason=reason)
        return _guess(handler, effect, attempted, f"its answer cannot be sent on: {reason}", may_have_happened=True)

    def _fact(
        self, handler: EffectHandler[Any], effect: Effect, key: str, attempted: Attempted, command: Command
    ) -> EffectResult:
        """The other side's answer, or `unusable` if the lane could not read it."""
        reason = _unusable_for(command)
        if reason is not None:
            return self.unusable(handler, effect, key, attempted, reason)
        return EffectResult(command=command, is_fact=True)

    async def _perform(
        self, handler: EffectHandler[Any], effect: Effect, call: Call, span: EffectSpan | None, number: int
    ) -> Command | EffectRetry:
        """Make the call, and report its end to the breaker."""
        timeout_s = self._settings.call_timeout_s
        is_answered: bool | None = None
        reason = f"no answer within {timeout_s:g} s"
        began_s = self._silence.begin()
        try:
            async with asyncio.timeout(timeout_s):
                with nullcontext() if span is None else span.calling(number):
                    result = _command(await handler.perform(effect, call), "perform", effect)
        except EffectRetry as retry:
            is_answered, reason = retry.is_about_call, str(retry)
            return retry
        except TimeoutError:
            is_answered = False
            return EffectRetry(reason, may_have_happened=True)
        except Exception as error:  # noqa: BLE001  # a defect of the handler's; another release may do better
            trace = storable_end(traceback.format_exc(), _TRACEBACK_CHARACTERS_MAX)
            log.error("effect_handler_error", type=effect.type, key=call.key, exception=trace)
            # The reason comes to the lane, and may be shown to the client that asked for the call.
            return EffectRetry(f"a defect of its handler ({type(error).__name__})", may_have_happened=True)
        else:
            is_answered = True
            return result
        finally:
            self._note(began_s, is_answered, reason)
            result_label = {None: "defect", True: "answered", False: "no_answer"}[is_answered]
            CALLS.labels(self._service, effect.type, result_label).observe(self._monotonic() - began_s)

    def _note(self, began_s: float, is_answered: bool | None, reason: str) -> None:
        if is_answered is not None:
            self._unanswered, self._no_answer = (0, "") if is_answered else (self._unanswered + 1, reason)
            self._unanswered_at_s = self._monotonic()
        if is_answered is None:
            self._breaker.left()
        elif is_answered:
            self._breaker.succeeded()
        elif self._breaker.failed():
            log.warning("provider_away", service=self._service, after_failures=self._settings.breaker_failures)
        self._silence.end(began_s, is_answered=is_answered is not False, is_away=self._breaker.is_open)

    async def _give_up(
        self, handler: EffectHandler[Any], effect: Effect, call: Call, attempted: Attempted
    ) -> EffectResult | PutOff:
        reason = attempted.reason
        is_answered = True
        if handler.look_up is not None:
            began_s = self._silence.begin()
            try:
                async with asyncio.timeout(self._settings.call_timeout_s):
                    known = await handler.look_up(effect, call)
                    known = None if known is None else _command(known, "look_up", effect)
            except Exception as error:  # noqa: BLE001  # any of them is no answer
                self._silence.end(began_s, is_answered=False, is_away=self._breaker.is_open)
                longer_s = self._settings.give_up_after_s * _LOOK_UP_SHARE
                if self._clock() < self._over_at_s(attempted) + longer_s:
                    delay_s = min(self._delay_s(attempted.calls, None), longer_s / _LOOK_UPS)
                    return self._put_off(attempted, delay_s, is_over=True)
                is_answered = False
                asked = storable(str(error), REASON_CHARACTERS_MAX // 2)
                reason = f"{storable(reason, REASON_CHARACTERS_MAX // 2)}; and asked what became of it: {asked}"
            except BaseException:
                self._silence.end(began_s, is_answered=True)
                raise
            else:
                self._silence.end(began_s, is_answered=True)
                if known is not None:
                    return self._fact(handler, effect, call.key, attempted, known)
        # Read last: meanwhile a copy may have come for which somebody made a call.
        may_have_happened = attempted.may_have_happened or not is_answered
        log.error(
            "effect_given_up",
            type=effect.type,
            key=call.key,
            calls=attempted.calls,
            reason=reason,
            may_have_happened=may_have_happened,
        )
        return _guess(handler, effect, attempted, reason, may_have_happened=may_have_happened)

    def _put_off(self, attempted: Attempted, delay_s: float, *, is_over: bool = False) -> PutOff:
        now_s = self._clock()
        if not is_over:  # the look-up follows as soon as the time is over
            delay_s = min(delay_s, max(0.0, self._over_at_s(attempted) - now_s))
        attempted.put_off(now_s, delay_s)
        return PutOff(delay_s)

    def _over_at_s(self, attempted: Attempted) -> float:
        return attempted.first_at_s + self._settings.give_up_after_s

    def _delay_s(self, calls: int, asked_s: float | None) -> float:
        """Full jitter, but at least as long as the other side asked for (`Retry-After`)."""
        longest_s = self._settings.retry_delay_s_max
        delay_s = self._chance() * min(longest_s, self._settings.retry_delay_s * 2.0 ** min(max(calls, 1) - 1, 30))
        return max(delay_s, asked_s or 0.0)


def _call(key: str, attempted: Attempted, span: EffectSpan | None) -> Call:
    return Call(
        key=key,
        asked_at=datetime.fromtimestamp(attempted.asked_at_s, UTC),
        is_repeated=attempted.may_have_happened,
        traceparent=None if span is None else span.cause,
    )


def _guess(
    handler: EffectHandler[Any], effect: Effect, attempted: Attempted, reason: str, *, may_have_happened: bool
) -> EffectResult:
    given_up = GivenUp(
        reason=storable(reason, REASON_CHARACTERS_MAX),
        attempts=attempted.calls,
        may_have_happened=may_have_happened,
    )
    command = _command(handler.give_up(effect, given_up), "give_up", effect)
    return EffectResult(command=command, is_fact=False, is_doubt=may_have_happened)


def _command(returned: object, what: str, effect: Effect) -> Command:
    """What a function of an EffectHandler has returned. Raises TypeError for what is no command."""
    if not isinstance(returned, Command):
        raise TypeError(f"{what} of {effect.type} returned {returned!r:.100}: it returns the command with the result")
    return returned


def _unusable_for(command: Command) -> str | None:
    """Why the lane could not read a result; None: it can."""
    try:
        _, arguments = validated(command)
    except Exception as error:  # noqa: BLE001  # whatever an encoder raises
        text = str(error) if isinstance(error, InvalidCommand) else f"{type(error).__name__}: {error}"
        return storable(text, REASON_CHARACTERS_MAX)
    if len(arguments) > BODY_BYTES_MAX:
        return f"it has {len(arguments)} bytes; at most {BODY_BYTES_MAX} can be sent"
    return None
