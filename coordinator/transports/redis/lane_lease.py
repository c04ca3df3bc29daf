"""Whose turn it is to consume a lane: a lease in Redis, which a consumer takes, renews and gives up.

It keeps two consumers from reading the same most of the time, and no more: what keeps them from committing the same is
the fence of their database. So nothing is wrong if it ends early, or late.

It ends early for one that waits for its turn, and sees that the holder is gone, or silent: the holder's connection may
be open although nothing passes any more.
"""

import asyncio
import math
import secrets
from typing import Any, Final

import redis
from msgspec import Struct

from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.keys import counter_key, kept_key, lease_key
from coordinator.transports.redis.scripts import KEEP, RELEASE, RENEW, TAKE

POLL_S: Final = 0.25
"""How often one that waits for its turn looks."""
SILENT_S_MIN: Final = 2.0
"""A holder may be silent for so long in any case: a busy machine may keep a thread from running for a second."""
_DIGITS_MAX: Final = 19


class TakenLease(Struct, frozen=True):
    """`again_up_to`: entries up to this number may have been delivered before; `read_up_to`: the highest that consumers
    had read when one of them last settled an entry. `mark`: what was kept, if anything."""

    number: int
    again_up_to: int
    read_up_to: int
    last: int
    mark: bytes | None


class HolderSilence:
    """How long the holder of a lease has not renewed it, as one sees it who looks every `POLL_S`.

    It counts looks that Redis has answered, and not time: while Redis itself is silent no holder can renew anything.
    """

    def __init__(self, silent_s: float) -> None:
        self._looks_max = math.ceil(silent_s / POLL_S)
        self._owner = ""
        self._left_ms = 0
        self._looks = 0

    def is_silent_after(self, owner: str, left_ms: int) -> bool:
        """Note another look: whose the lease is, and for how long. Whether its holder is silent now."""
        # What is left becomes less from look to look, unless the lease is renewed. One that does not end is nobody's: a
        # stranger has written it.
        is_renewed = owner != self._owner or left_ms >= max(self._left_ms, 0)
        self._owner, self._left_ms = owner, left_ms
        self._looks = 0 if is_renewed else self._looks + 1
        return self._looks >= self._looks_max


class LaneLease:
    """One consumer's turn, on one connection.

    It lasts `lease_s` after its last renewal. Its token begins with the connection's id in Redis: once that connection
    is gone, nobody need wait for its end. Nor does one that has seen no renewal for half of that time.
    """

    def __init__(self, lane: str, connection: RedisConnection, lease_s: float) -> None:
        self._connection = connection
        self._lease_ms = int(lease_s * 1000)
        self._silent_s = max(SILENT_S_MIN, lease_s / 2)
        self.renew_s = min(1.0, lease_s / 4)
        """How often it is to be renewed."""
        self.token = secrets.token_hex(16)
        self._keys = (lease_key(lane), kept_key(lane))
        self._counter = counter_key(lane)
        self.number = 0
        """Of the turn, once it has come."""

    async def take(self) -> TakenLease:
        """Wait for the turn. Raises BrokerUnavailable, and the driver's errors."""
        own_id = await self._connection.call("CLIENT", "ID")
        self.token = f"{own_id}-{self.token}"
        dead, silence = "", HolderSilence(self._silent_s)
        while True:
            answer = await self._connection.run_script(
                TAKE, (*self._keys, self._counter), self.token, self._lease_ms, dead
            )
            if answer[0] == 1:
                _, again, last, number, read, *mark = answer
                self.number = number
                return TakenLease(number, int(again), int(read), int(last), mark[0] if mark else None)
            owner, left_ms = bytes(answer[1]).decode(errors="replace"), int(answer[2])
            is_over = silence.is_silent_after(owner, left_ms) or await self._is_gone(owner.partition("-")[0])
            dead = owner if is_over else ""
            if not dead:
                await asyncio.sleep(POLL_S)

    async def _is_gone(self, client_id: str) -> bool:
        """Whether no connection of Redis has this id; False: it does not say so."""
        if not (client_id.isascii() and client_id.isdecimal() and len(client_id) < _DIGITS_MAX):
            return False
        try:
            return not await self._connection.call("CLIENT", "LIST", "ID", client_id)
        except redis.ResponseError:
            # Its user may lack the right to ask. The lease ends by itself then.
            return False

    async def renew(self, unsettled: int) -> bool:
        """Whether it is still this consumer's turn, who has so many entries. Raises BrokerUnavailable."""
        about = (self.token, self._lease_ms, self.number, unsettled)
        return bool(await self._connection.run_script(RENEW, self._keys, *about) == 1)

    def keep(self, mark: bytes) -> "asyncio.Future[Any]":
        """Leave this to the next consumer: answered with 0 if it is not the turn of this one any more."""
        return self._connection.run_script(KEEP, self._keys, self.token, self.number, mark)

    async def kept_mark(self) -> bytes | None:
        """What is kept now. Raises BrokerUnavailable, and the driver's ResponseError."""
        found: bytes | None = await self._connection.call("HGET", self._keys[1], "mark")
        return found

    async def give_up(self, read_up_to: int) -> None:
        """Let another consumer have its turn at once, as far as that can be told to Redis."""
        try:
            async with asyncio.timeout(1.0):
                await self._connection.run_script(RELEASE, self._keys, self.token, self.number, read_up_to)
        except (TimeoutError, BrokerUnavailable):
            return
