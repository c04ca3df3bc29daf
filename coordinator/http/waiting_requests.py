"""Requests that wait: their number is limited, so that other requests are served meanwhile.

A request that waits keeps its connection, and a gateway has GATEWAY_CONNECTIONS_MAX connections. Its commands are under
way, and a gateway has GATEWAY_IN_FLIGHT_MAX commands under way. The more a client needs the wait, the larger is the
share of both that may be taken:

| the request waits for | share | beyond that |
| --- | --- | --- |
| something that it could read later, such as the end of a saga | half of all connections | it is answered at once |
| a read to be recent (`Read-After`) | half of all connections | it asks the primary at once, or 503 |
| the outcomes of its commands | three quarters of both | 503, before anything is issued |
| the broker's confirm for its commands (`respond-async`) | seven eighths of both | 503, before anything is issued |

Each share counts all requests that wait. So courtesy waits leave room for writes, and writes leave room for reads.
Requests of several commands share half of the commands, so that they leave room for others; one alone may have all.
Where it is known who asks, each principal has a share of its own (principal_limits.py), and so have the reads of all of
whom it is not known. Those that go on in spite of a
refusal wait for the next one, in a quarter of all connections, which these shares do not count.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import uniform
from typing import Any, Final, TypeVar

from aiohttp import web

from coordinator.http.body_turns import BodyTurns
from coordinator.http.connections import lost_of
from coordinator.http.keys import CONTEXT
from coordinator.http.principal_limits import PrincipalShare
from coordinator.service.errors import Overloaded
from coordinator.service.principal import Principal

HELD_S: Final = 1.0
"""How long a refusal is held back at most from a client that has not waited as an earlier one said."""

T = TypeVar("T")


class WaitingRequests:
    """How many requests of a gateway wait, and how many commands they have issued."""

    def __init__(self, connections_max: int, in_flight_max: int) -> None:
        self.number = 0
        self.held = 0
        self.held_max = _share(1, 4, connections_max)
        self._courtesies_max = _share(1, 2, connections_max)
        self._outcomes_max = _share(3, 4, connections_max)
        self._confirms_max = _share(7, 8, connections_max)
        self._commands = 0
        self._of_several = 0
        self._of_several_max = _share(1, 2, in_flight_max)
        self._commands_max = _share(3, 4, in_flight_max)
        self._commands_to_confirm_max = _share(7, 8, in_flight_max)
        self._in_flight_max = in_flight_max
        self.turns = BodyTurns(self._outcomes_max)
        """Of the bodies of those of whom it is not known who asks."""
        self._connections_max = connections_max
        self._turns: dict[tuple[str | None, str], BodyTurns] = {}

    def for_outcome(self, wait_s: float, commands: int = 1, share: PrincipalShare | None = None) -> "_WaitForOutcome":
        """A place for a request that waits this long for its commands' outcomes, held by `with`.

        `share` is that of whoever asks. Raises TooManyRequests if too many of its requests wait, and Overloaded if
        too many of all.
        """
        if share is not None:
            share.check_room(commands)
        if self.number >= (self._outcomes_max if wait_s > 0 else self._confirms_max):
            raise Overloaded(f"{self.number} requests wait here already (a share of GATEWAY_CONNECTIONS_MAX)")
        if not self._has_room(wait_s, commands):
            raise Overloaded(f"{self._commands} commands are under way here already (a share of GATEWAY_IN_FLIGHT_MAX)")
        return _WaitForOutcome(self, commands, share)

    def turns_of(self, principal: Principal | None) -> BodyTurns:
        """Those of one who has no share, since there are no limits; None: it is not known who asks."""
        if principal is None:
            return self.turns
        key = (principal.tenant, principal.subject)
        turns = self._turns.get(key)
        if turns is None:
            if len(self._turns) > self._connections_max:
                # Whoever waits has a connection, so there is always somebody who may be forgotten.
                self._turns = {each: of for each, of in self._turns.items() if of.number}
            turns = self._turns[key] = BodyTurns(self._outcomes_max)
        return turns

    def take(self, commands: int) -> None:
        """One more request waits, for this many commands."""
        self.number += 1
        self._commands += commands
        if commands > 1:
            self._of_several += commands

    def give_back(self, commands: int) -> None:
        """It waits no more."""
        self.number -= 1
        self._commands -= commands
        if commands > 1:
            self._of_several -= commands

    def _has_room(self, wait_s: float, commands: int) -> bool:
        if commands > 1:
            # Alone among its like it may issue as many as a request may.
            is_share = not self._of_several or self._of_several + commands <= self._of_several_max
            return is_share and self._commands + commands <= self._in_flight_max
        return self._commands < (self._commands_max if wait_s > 0 else self._commands_to_confirm_max)

    def as_courtesy(self, share: PrincipalShare | None = None) -> AbstractContextManager[bool]:
        """Held while a request waits for something that it could read later; False: too many wait, do not wait."""
        return self._place(share, is_shared=share is None or share.has_place)

    def for_recent_read(self, share: PrincipalShare | None = None) -> AbstractContextManager[bool]:
        """Held while a read waits until it is recent enough; False: too many wait, do not wait."""
        return self._place(share, is_shared=share is None or share.has_place_to_read)

    @contextmanager
    def _place(self, share: PrincipalShare | None, *, is_shared: bool) -> Iterator[bool]:
        if self.number >= self._courtesies_max or not is_shared:
            yield False
            return
        self.number += 1
        if share is not None:
            share.waiting += 1
        try:
            yield True
        finally:
            self.number -= 1
            if share is not None:
                share.waiting -= 1


class _WaitForOutcome:
    """The place of one request. A generator in its stead would cost each request three times as much."""

    __slots__ = ("_commands", "_share", "_waiting")

    def __init__(self, waiting: WaitingRequests, commands: int, share: PrincipalShare | None) -> None:
        self._waiting, self._commands, self._share = waiting, commands, share

    def __enter__(self) -> None:
        self._waiting.take(self._commands)
        if (share := self._share) is not None:
            share.waiting += 1
            share.commands += self._commands

    def __exit__(self, *_: object) -> None:
        self._waiting.give_back(self._commands)
        if (share := self._share) is not None:
            share.waiting -= 1
            share.commands -= self._commands


WAITING_REQUESTS: Final = web.AppKey("WAITING_REQUESTS", WaitingRequests)


def room_for_read(request: web.Request) -> Callable[[], AbstractContextManager[bool]]:
    """For its reads that wait until they are recent enough."""
    context = request[CONTEXT]
    share = context.share
    if share is None and context.authentication is not None:
        share = context.authentication.limits.nobody
    return partial(request.app[WAITING_REQUESTS].for_recent_read, share)


async def wait_as_courtesy(request: web.Request, wait: Callable[[], Awaitable[T]]) -> T | None:
    """The result of `wait`. None if its client is gone, or if too many requests wait: answer now."""
    with request.app[WAITING_REQUESTS].as_courtesy(request[CONTEXT].share) as may_wait:
        if not may_wait:
            return None
        waited = asyncio.ensure_future(wait())
        try:
            either: set[asyncio.Future[Any]] = {waited, lost_of(request)}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return waited.result() if waited.done() else None
        finally:
            waited.cancel()


async def hold_back(request: web.Request) -> None:
    """Let a client wait for its refusal: one that repeats its request at once would take the time of the others.

    Beyond the share of held ones it is answered at once. Between half of the time and all of it: all that a client has
    sent at once would come back at once otherwise, when it has a whole second's share again.
    """
    waiting = request.app[WAITING_REQUESTS]
    if waiting.held >= waiting.held_max:
        return
    waiting.held += 1
    try:
        held_s = uniform(HELD_S / 2, HELD_S)  # noqa: S311  # nothing is secret about it
        await asyncio.wait((lost_of(request),), timeout=held_s)
    finally:
        waiting.held -= 1


def _share(part: int, of: int, limit: int) -> int:
    """The share, rounded up so that there is room for at least one."""
    return -(-limit * part // of)
