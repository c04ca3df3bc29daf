"""Effects: calls to the outside, made outside every lane.

A handler emits an effect as it emits a command, in the transaction of what it changed. Effect workers, any number of
them and concurrently, make the call, with the effect's id as the idempotency key, and bring what came of it back as a
command of the service's lane. A call whose answer was lost is made again with the same key.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import Struct

from shared.commands import Command
from shared.errors import CoordinatorError

EFFECTS_PREFIX: Final = "effects."


class Effect(Command, frozen=True, kw_only=True):
    """One call to be made. The part of `type` before the dot names the service whose workers make it."""

    @classmethod
    def lane(cls) -> str:
        """The routing key of the service's effects; no lane, since nothing orders them."""
        return effects_key(cls.type.partition(".")[0])


class EffectRetry(CoordinatorError):
    """Raised by an effect's handler: the call is to be made again, `after_s` seconds from now if given.

    `may_have_happened`: it may have had its effect outside, though no answer says so.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, may_have_happened: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.may_have_happened = may_have_happened


class GivenUp(Struct, frozen=True, kw_only=True):
    """Why a call is not made again. `may_have_happened`: one of the attempts may have had its effect."""

    reason: str
    attempts: int
    may_have_happened: bool


E = TypeVar("E", bound=Effect)


class EffectHandler(Struct, Generic[E], frozen=True):
    """How effects of one type are made.

    `perform` makes the call, given the effect and the idempotency key, and returns the command that tells the lane;
    it raises EffectRetry where another attempt is worth while. `give_up` makes the command that tells the lane that
    there will be no more.
    """

    effect: type[E]
    perform: Callable[[E, str], Awaitable[Command]]
    give_up: Callable[[E, GivenUp], Command]


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
