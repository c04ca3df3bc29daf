"""The databases of lanes, as pages ask them: they stay connected, since to connect takes most of a short question.

What is kept is used by one thread at a time.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Final

from msgspec import Struct

from coordinator.operate.open import lane_admin
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.stores.admin import LaneAdmin

KEPT_MAX: Final = 2
"""Connections of each lane that wait for the next question."""
KEPT_S: Final = 30.0
"""What has waited longer is not used: an address or a password may have changed."""
SILENCE_S: Final = 30.0
"""How long a database may say nothing: a connection that was lost without a word would hold a thread for ever."""


class _Kept(Struct, frozen=True):
    admin: LaneAdmin
    stack: ExitStack
    since_s: float


class KeptAdmins:
    """Used by any thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, list[_Kept]] = {}
        self._is_closed = False

    @contextmanager
    def opened(self, lane: str) -> Iterator[LaneAdmin]:
        """The database of a lane, as `lane_admin` opens it. Raises ConfigurationError."""
        admin, stack = self._connected(lane)
        try:
            yield admin
        except BaseException:
            stack.close()
            raise
        with self._lock:
            of_lane = self._kept.setdefault(lane, [])
            if has_room := not self._is_closed and len(of_lane) < KEPT_MAX:
                of_lane.append(_Kept(admin, stack, self._clock()))
        if not has_room:
            stack.close()

    def close(self) -> None:
        """Disconnect. What is in use disconnects when it is done."""
        with self._lock:
            self._is_closed = True
            left = [kept for of_lane in self._kept.values() for kept in of_lane]
            self._kept.clear()
        for kept in left:
            kept.stack.close()

    def _connected(self, lane: str) -> tuple[LaneAdmin, ExitStack]:
        while (kept := self._taken(lane)) is not None:
            try:
                # Whether the server still knows the connection.
                kept.admin.sequence()
            except (Unavailable, ConfigurationError):
                kept.stack.close()
            else:
                return kept.admin, kept.stack
        stack = ExitStack()
        return stack.enter_context(lane_admin(lane, silence_s=SILENCE_S)), stack

    def _taken(self, lane: str) -> _Kept | None:
        while True:
            with self._lock:
                of_lane = self._kept.get(lane)
                kept = of_lane.pop() if of_lane else None
            if kept is None or self._clock() - kept.since_s <= KEPT_S:
                return kept
            kept.stack.close()
