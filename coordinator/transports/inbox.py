"""The place where a transport hands deliveries to the lane's thread."""

import threading
from collections import deque
from collections.abc import Callable

from coordinator.lane.delivery import Delivery
from coordinator.lane.high_water import Mark, both

DECODED_COMMANDS_MAX = 2000
"""How many commands wait decoded: enough for the next batches. A command takes several times its bytes in memory."""

Decode = Callable[[], Delivery]
"""Makes a delivery from the bytes of a message. Never raises."""


class Inbox:
    """Deliveries in order, of one channel. A new channel makes earlier deliveries void.

    The caller of `put` also decodes the messages whose turn is near; the others wait as bytes, so that a long backlog,
    of which the broker hands out a window of packs, takes little memory.
    """

    def __init__(self, behind: "Inbox | None" = None) -> None:
        """`behind` is another one, into which the taker puts all that it takes; None: it is the lane's thread."""
        self._behind = behind
        # Entering the lock itself is several times faster than entering it by way of the condition.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._deliveries: deque[Delivery] = deque()
        self._undecoded: deque[Decode] = deque()
        self._decoded_commands = 0
        self._channel_number = 0
        self._is_closed = False
        self._is_nudged = False
        self._mark: Mark | None = None
        self._on_empty: Callable[[], object] | None = None
        self._is_awaited = False
        # While the taker is busy, as under load, there is nobody to notify.
        self._waiters = 0

    @property
    def channel_number(self) -> int:
        """Counts the channels."""
        return self._channel_number

    def begin_channel(self) -> int:
        """The broker will deliver unacknowledged messages again, on another channel: forget them here."""
        with self._lock:
            self._channel_number += 1
            self._deliveries.clear()
            self._undecoded.clear()
            self._decoded_commands = 0
            self._wake()
            return self._channel_number

    def put(self, channel_number: int, decode: Decode) -> None:
        """Add a message of the present channel; others are void."""
        with self._lock:
            if channel_number == self._channel_number:
                self._undecoded.append(decode)
                self._decode_next()
                self._wake()

    def learn(self, mark: Mark) -> None:
        """Take in the mark that the transport has kept. To be called ahead of the channel's deliveries.

        Of a lane in one process its file has one, and the broker by which others reach it another.
        """
        with self._lock:
            self._mark = mark if self._mark is None else both(self._mark, mark)
            self.nudge()

    def take_mark(self) -> Mark | None:
        """What `learn` was told since the last call. To be called after `take`."""
        with self._lock:
            mark, self._mark = self._mark, None
            return mark

    def call_once_empty(self, function: Callable[[], object]) -> None:
        """Call this once the lane waits for more, with nothing here; at once if it does now. It may not block.

        It takes the place of one that waits to be called.
        """
        with self._lock:
            behind = self._behind
            self._on_empty = function if behind is None else lambda: behind.call_once_empty(function)
            self._tell_empty()

    def nudge(self) -> None:
        """Wake the taker without a delivery."""
        with self._lock:
            self._is_nudged = True
            self._wake()

    def close(self) -> None:
        """End the inbox: `take` returns no more deliveries."""
        with self._lock:
            self._is_closed = True
            self._wake()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def take(self, commands_max: int, bytes_max: int, timeout_s: float | None = None) -> tuple[int, list[Delivery]]:
        """The deliveries that have arrived, up to a number of commands and bytes, but at least one.

        Waits while there are none; returns an empty list when nudged or closed, or after the timeout.
        """
        with self._lock:
            if not self._deliveries:
                self._is_awaited = True
                self._tell_empty()
                self._wait_for(lambda: bool(self._deliveries) or self._is_closed or self._is_nudged, timeout_s)
                self._is_awaited = False
            self._is_nudged = False
            taken: list[Delivery] = []
            commands = size_bytes = 0
            while (self._deliveries or self._decode_next()) and not self._is_closed:
                commands += len(self._deliveries[0].commands)
                size_bytes += self._deliveries[0].size_bytes
                if taken and (commands > commands_max or size_bytes > bytes_max):
                    break
                taken.append(self._deliveries.popleft())
                self._decoded_commands -= len(taken[-1].commands)
            return self._channel_number, taken

    def wait_void(self, channel_number: int, timeout_s: float) -> bool:
        """Wait out a pause; True when it ended early, because the channel is void or the inbox closed."""
        with self._lock:
            return self._wait_for(lambda: self._is_closed or self._channel_number != channel_number, timeout_s)

    def _wait_for(self, predicate: Callable[[], bool], timeout_s: float | None) -> bool:
        self._waiters += 1
        try:
            return self._changed.wait_for(predicate, timeout_s)
        finally:
            self._waiters -= 1

    def _tell_empty(self) -> None:
        if self._is_awaited and not self._deliveries and self._on_empty is not None:
            on_empty, self._on_empty = self._on_empty, None
            on_empty()

    def _wake(self) -> None:
        if self._waiters:
            self._changed.notify_all()

    def _decode_next(self) -> bool:
        """Decode the next messages, as far as there is room; whether that made any delivery."""
        is_any = False
        while self._undecoded and self._decoded_commands < DECODED_COMMANDS_MAX:
            delivery = self._undecoded.popleft()()
            self._deliveries.append(delivery)
            self._decoded_commands += len(delivery.commands)
            is_any = True
        return is_any
