"""Effects: calls to the outside, made outside every lane.

A handler emits an effect as it emits a command, in the transaction of its changes. Effect workers, any number of them
and concurrently, make the call, with the effect's id as the idempotency key, and bring the result back as a command of
the service's lane. A call whose answer was lost is made again with the same key.

The lane gets a fact, which is the other side's answer, or a guess, once no more attempts are made: a denial (nothing
happened) or a doubt (something may have). Copies of an effect may be under way at several workers, and end differently.
Fact, denial and doubt have different ids, so that none can take another's place, and each comes once at most. The
lane's handlers let a fact overrule a guess, and a doubt a denial, in whatever order they come.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.errors import CoordinatorError
from coordinator.service.text import storable

EFFECTS_PREFIX: Final = "effects."
REASON_CHARACTERS_MAX: Final = 500
"""The length of a reason why a call failed: it is logged, travels with the effect, and ends in a row."""


_NO_ANSWER: Final = "to the provider had no answer"


def no_answer_text(calls: str, words: str) -> str:
    """Of a provider that does not answer. `words` may be its own, and quote what it was asked."""
    return f"{calls} {_NO_ANSWER}: {words}"


def without_providers_words(reason: str | None) -> str | None:
    """Why no call to the outside is answered, whatever the reason, without what its provider said."""
    if reason is None or _NO_ANSWER not in reason:
        return reason
    return reason[: reason.index(_NO_ANSWER) + len(_NO_ANSWER)]


class Effect(Command):
    """One call to be made. The part of `type` before the dot names the service whose workers make it."""

    @classmethod
    def lane(cls) -> str:
        """The routing key of the service's effects. It is not a lane, since effects have no order."""
        return effects_key(cls.type.partition(".")[0])


class EffectRetry(CoordinatorError):
    """Raised by an effect's handler to have the call made again, `after_s` seconds from now if given.

    `may_have_happened`: the call may have had its effect outside, though no answer says so. `is_about_call`: the other
    side answered, and other calls may succeed; without it, many of these errors in a row mean that the other side is
    away. The reason may be a third party's: the part of it that can be sent and stored is kept.
    """

    def __init__(
        self,
        reason: str,
        *,
        after_s: float | None = None,
        may_have_happened: bool = False,
        is_about_call: bool = False,
    ) -> None:
        super().__init__(storable(reason, REASON_CHARACTERS_MAX))
        self.after_s = after_s
        self.may_have_happened = may_have_happened
        self.is_about_call = is_about_call


class Call(Struct, frozen=True, kw_only=True):
    """One attempt. `key` is the idempotency key, the same for every attempt at one effect.

    `asked_at` is when the lane asked for the effect: no attempt was made before. `is_repeated`: an earlier attempt may
    have had its effect, by this worker or by another. `traceparent`: the trace of whatever asked for the effect (W3C
    Trace Context), the same for every attempt; None: it belongs to none.
    """

    key: str
    asked_at: datetime
    is_repeated: bool = False
    traceparent: str | None = None


class GivenUp(Struct, frozen=True, kw_only=True):
    """Why a call is not made again. `may_have_happened`: it may have had its effect."""

    reason: str
    attempts: int
    may_have_happened: bool


E = TypeVar("E", bound=Effect)


class EffectHandler(Struct, Generic[E], frozen=True):
    """How effects of one type are made.

    `perform` makes the call and returns the command with the result, for the lane; it raises EffectRetry if another
    attempt is worthwhile. `give_up` makes the command that tells the lane that there will be no more attempts. The lane
    may get one that says that nothing happened and later, from another copy of the effect, one that says that
    something may have: its handler lets the second count.
    `look_up` asks the other side what it knows of the effect, and changes nothing. It returns the command with the
    answer, or None if the other side certainly knows nothing of it, and raises EffectRetry if that is uncertain. It is
    called before an effect is given up. Without it only the attempts themselves show whether the call may have
    happened.
    """

    effect: type[E]
    perform: Callable[[E, Call], Awaitable[Command]]
    give_up: Callable[[E, GivenUp], Command]
    look_up: Callable[[E, Call], Awaitable[Command | None]] | None = None


class Effects(Protocol):
    """The object that makes the calls of one service."""

    @property
    def handlers(self) -> tuple[EffectHandler[Any], ...]:
        """One for each type."""

    async def close(self) -> None:
        """Release connections."""


def effects_key(service: str) -> str:
    """The routing key of a service's effects."""
    return f"{EFFECTS_PREFIX}{service}"
