"""One effect, from its first attempt to the command that tells its lane what came of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from shared.commands import Command
from shared.effects import Effect, EffectHandler, EffectRetry, GivenUp
from shared.settings import EffectSettings

log = structlog.get_logger("effects")

Pause = Callable[[float], Awaitable[None]]
"""Waits so many seconds."""


class Attempts:
    """How an effect is tried: again after a pause that grows, with full jitter, and not for ever.

    `chance` draws from 0 to 1. A pause is at least what the other side asked for, as far as the longest pause allows.
    """

    def __init__(self, settings: EffectSettings, chance: Callable[[], float], pause: Pause) -> None:
        self._settings = settings
        self._chance = chance
        self._pause = pause

    async def carry_out(
        self, handler: EffectHandler[Any], effect: Effect, key: str, *, may_have_happened: bool
    ) -> Command:
        """Return the command that tells the lane; only a cancellation, and what the pause raises, gets in between.

        `may_have_happened`: somebody may have made the call before.
        """
        attempt = 0
        while True:
            attempt += 1
            retry = await self._attempt(handler, effect, key)
            if isinstance(retry, Command):
                return retry
            may_have_happened = may_have_happened or retry.may_have_happened
            if attempt >= self._settings.attempts_max:
                given_up = GivenUp(reason=str(retry), attempts=attempt, may_have_happened=may_have_happened)
                log.error("effect_given_up", type=effect.type, key=key, attempts=attempt, reason=str(retry))
                return handler.give_up(effect, given_up)
            delay_s = self._delay_s(attempt, retry.after_s)
            log.warning(
                "effect_retried", type=effect.type, key=key, attempt=attempt, reason=str(retry), after_s=delay_s
            )
            await self._pause(delay_s)

    async def _attempt(self, handler: EffectHandler[Any], effect: Effect, key: str) -> Command | EffectRetry:
        timeout_s = self._settings.call_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await handler.perform(effect, key)
        except EffectRetry as retry:
            return retry
        except TimeoutError:
            return EffectRetry(f"no answer within {timeout_s:g} s", may_have_happened=True)
        except Exception as error:  # a defect of the handler's; another release may do better
            log.exception("effect_handler_error", type=effect.type, key=key)
            return EffectRetry(f"{type(error).__name__}: {error}", may_have_happened=True)

    def _delay_s(self, attempt: int, asked_s: float | None) -> float:
        longest_s = self._settings.retry_delay_s_max
        delay_s = self._chance() * min(longest_s, self._settings.retry_delay_s * 2.0 ** min(attempt - 1, 30))
        return max(delay_s, min(asked_s or 0.0, longest_s))
