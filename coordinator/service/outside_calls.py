"""Effects: calls to the outside, made outside every lane.

A handler emits an effect as it emits a command, in the transaction of what it changed. Effect workers, any number of
them and concurrently, make the call, with the effect's id as the idempotency key, and bring what came of it back as a
command of the service's lane. A call whose answer was lost is made again with the same key.

What the lane gets is either a fact, what the other side answered, or a guess: no more attempts are made. Copies of
an effect may be under way at several workers; a fact and a guess have ids of their own, so that a guess takes no fact's
place, and the lane's handlers let a fact overrule a guess.
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
"""Of a reason why a call came to nothing: it is logged, goes with the effect, and comes to a row."""


class Effect(Command, frozen=True, kw_only=True):
    """One call to be made. The part of `type` before the dot names the service whose workers make it."""

    @classmethod
    def lane(cls) -> str:
        """The routing key of the service's effects; no lane, since nothing orders them."""
        return effects_key(cls.type.partition(".")[0])


class EffectRetry(CoordinatorError):
    """Raised by an effect's handler: the call is to be made again, `after_s` seconds from now if given.

    `may_have_happened`: it may have had its effect outside, though no answer says so. `is_about_call`: the other side
    answered, and others' calls may succeed; without it, many of these in a row mean that it is away.
    The reason may be a third party's: of it is kept what can be sent and stored.
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
    have had its effect, by this worker or by another.
    """

    key: str
    asked_at: datetime
    is_repeated: bool = False


class GivenUp(Struct, frozen=True, kw_only=True):
    """Why a call is not made again. `may_have_happened`: it cannot be ruled out that it had its effect."""

    reason: str
    attempts: int
    may_have_happened: bool


E = TypeVar("E", bound=Effect)


class EffectHandler(Struct, Generic[E], frozen=True):
    """How effects of one type are made.

    `perform` makes the call and returns the command with the result, for the lane; it raises EffectRetry where another
    attempt is worth while. `give_up` makes the command that says to the lane that there will be no more.
    `look_up` asks the other side what it knows of the effect, and changes nothing: the command with it, or
    None where it certainly knows of none; EffectRetry where that is not known. It is asked before an effect is given
    up. Without it only the attempts themselves say whether something may have happened.
    """

    effect: type[E]
    perform: Callable[[E, Call], Awaitable[Command]]
    give_up: Callable[[E, GivenUp], Command]
    look_up: Callable[[E, Call], Awaitable[Command | None]] | None = None


class Effects(Protocol):
    """What makes the calls of one service."""

    @property
    def handlers(self) -> tuple[EffectHandler[Any], ...]:
        """One for each type."""

    async def close(self) -> None:
        """Release connections."""


def effects_key(service: str) -> str:
    """The routing key of a service's effects."""
    return f"{EFFECTS_PREFIX}{service}"
