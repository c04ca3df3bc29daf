"""The entries that a consumer has delivered and not settled yet, and how they are taken out of their streams."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec import Struct

from coordinator.transports.redis.connection import RedisConnection, lacks_right
from coordinator.transports.redis.entries import StreamEntry
from coordinator.transports.redis.keys import commands_key, counter_key, kept_key, lease_key
from coordinator.transports.redis.lane_lease import LaneLease
from coordinator.transports.redis.scripts import SETTLE

_AGAIN_S: Final = 1.0
"""How often it is tried to take entries out where a right for it is missing."""
WITHIN_S: Final = 0.01
"""How long a settled entry may wait for others to be taken out with."""
SETTLED_MAX: Final = 64
"""How many settled entries wait at most; with a small prefetch, a quarter of it."""
TAKEN_OUT_MAX: Final = 1000
"""How many entries one script takes out: it has no room for many thousands of arguments."""
BYTES_MAX: Final = 64 << 20
"""Of unsettled entries that the lane does not keep back: a consumer that has so many bytes reads no more."""


class _Unsettled(Struct, frozen=True):
    id: bytes
    is_system: bool
    counted_bytes: int
    size_bytes: int
    sent_at_s: float


class EntryWindow:
    """The unsettled entries of one channel, by their tags. Used within one event loop, but for the two numbers.

    A settled entry is deleted, also one before which another is unsettled, whose command waits for one of its
    publisher's. So a stream has what is not settled, and a consumer reads it from its beginning. That is safe whatever
    Redis has lost: a settled entry that is delivered again is answered from the command log, and none is passed over
    because its number was given out before. `on_gone` is called once it is not the turn of this consumer any more.
    """

    def __init__(
        self,
        lane: str,
        connection: RedisConnection,
        lease: LaneLease,
        prefetch: int,
        on_gone: Callable[[], None],
        *,
        read_up_to: int = 0,
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._on_gone = on_gone
        self._streams = (commands_key(lane, is_system=False), commands_key(lane, is_system=True))
        self._keys = (*self._streams, lease_key(lane), counter_key(lane), kept_key(lane))
        self._prefetch = prefetch
        self._settled_max = max(1, min(SETTLED_MAX, prefetch // 4))
        self._unsettled: dict[int, _Unsettled] = {}
        self._bytes = 0
        """Of those behind `_kept_back`."""
        self._kept_back = 0
        self._tag = 0
        self._settled: list[_Unsettled] = []
        self._timer: asyncio.TimerHandle | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.refusal: str | None = None
        """Why nothing is taken out, where a right for it is missing."""
        self.read_up_to = read_up_to
        """The highest number that was delivered, here or by a consumer before."""
        self.counted_up_to = 0
        """The highest that the counter has given out: an entry that was added by hand has another id."""

    @property
    def room(self) -> int:
        """How many more may be delivered now."""
        return 0 if self._bytes >= BYTES_MAX else max(0, self._prefetch - len(self._unsettled))

    def keep_back(self) -> None:
        """The lane waits for more: it keeps back all that it has, since their predecessors are behind them.

        Their number has a limit of its own, `LANE_EARLY_MAX`.
        """
        if self.room == 0:
            self._kept_back, self._bytes = self._tag, 0
            if self.room > 0:
                self._has_room.set()

    @property
    def unsettled(self) -> int:
        """How many there are. For any thread."""
        return len(self._unsettled)

    def oldest_age_s(self, now_s: float) -> float:
        """How long ago the first of them was sent; 0: there is none. For any thread."""
        try:
            first = next(iter(self._unsettled.values()), None)
        except RuntimeError:  # it has just been settled
            return 0.0
        return 0.0 if first is None else max(0.0, now_s - first.sent_at_s)

    async def wait_for_room(self) -> None:
        """Return once there is room for another."""
        await self._has_room.wait()

    def delivered(self, entry: StreamEntry, sent_at_s: float) -> int:
        """Note an entry; return its tag."""
        self._tag += 1
        size_bytes = len(entry.body)
        self._unsettled[self._tag] = _Unsettled(entry.id, entry.is_system, entry.counted_bytes, size_bytes, sent_at_s)
        self._bytes += size_bytes
        self.read_up_to = max(self.read_up_to, entry.number)
        if entry.counted_bytes:
            self.counted_up_to = max(self.counted_up_to, entry.number)
        if self.room == 0:
            self._has_room.clear()
        return self._tag

    def settle(self, tags: Sequence[int]) -> None:
        """Take these out soon; at once, when so many wait that there might be no room left."""
        for tag in tags:
            found = self._unsettled.pop(tag, None)
            if found is not None:
                self._bytes -= found.size_bytes if tag > self._kept_back else 0
                self._settled.append(found)
        if self.room > 0:
            self._has_room.set()
        if len(self._settled) >= self._settled_max and self.refusal is None:
            self.flush()
        elif self._timer is None and self._settled:
            within_s = WITHIN_S if self.refusal is None else _AGAIN_S
            self._timer = asyncio.get_running_loop().call_later(within_s, self.flush)

    def flush(self) -> None:
        """Take the settled entries out now. Where a right for it was missing, some of them show whether it still is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._settled:
            some, self._settled = self._settled[:TAKEN_OUT_MAX], self._settled[TAKEN_OUT_MAX:]
            public = [each.id for each in some if not each.is_system]
            system = [each.id for each in some if each.is_system]
            counted = sum(each.counted_bytes for each in some)
            turn = self._lease.token, self._lease.number
            answer = self._connection.run_script(
                SETTLE, self._keys, *turn, counted, self.read_up_to, len(public), *public, *system
            )
            answer.add_done_callback(partial(self._on_answer, some))
            if self.refusal is not None:
                return

    def _on_answer(self, some: "list[_Unsettled]", answer: "asyncio.Future[int]") -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            was_refused, self.refusal = self.refusal is not None, None
            if answer.result() == 0:
                self._on_gone()
            elif was_refused:
                self.flush()
        elif lacks_right(error):
            # It is tried until the right is back: else the streams would fill.
            self.refusal = f"Redis refuses a right to take out what is settled: {error}"
            self._settled = [*some, *self._settled]
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_AGAIN_S, self.flush)
        # Of another error the next renewal of the lease says more. What stays comes again, and the log answers it.
