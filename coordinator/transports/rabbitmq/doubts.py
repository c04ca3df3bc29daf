"""Whether a queue that refuses a message is full, or only this channel cannot reach it.

A channel remembers who led a quorum queue when it first published to it. If that node has died and the others have not
yet agreed on another, RabbitMQ 3.10 asks the dead one at each message, for as long as the channel lives, and refuses
each: as it does where the queue is full. Another channel reaches the new leader. So a queue that has taken nothing from
this channel is believed to be full only if it refuses on others, too.
"""

import time
from collections.abc import Callable
from typing import Final

DOUBTED_S: Final = 3.0
"""How long after a loss each such refusal is doubted: longer than the members take to agree on a leader."""
DOUBT_AGAIN_S: Final = 5.0
"""How long after the start of a connection one is doubted later."""


class Doubts:
    """What a publisher knows of its present connection."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: set[str] = set()
        self._until_s = float("-inf")
        self._again_at_s = float("inf")
        self._is_ours = False
        self.is_looking = False
        """A refusal is doubted, and the next connection will show."""

    def begin(self) -> None:
        """A connection has begun."""
        self.is_looking = False
        self._taken.clear()
        self._again_at_s = self._clock() + DOUBT_AGAIN_S

    def lost(self) -> None:
        """The connection has ended; not by a doubt, or the doubts would have no end."""
        if not self._is_ours:
            self._until_s = self._clock() + DOUBTED_S
        self._is_ours = False

    def taken(self, routing_key: str) -> None:
        """The queue of this routing key has taken a message."""
        self._taken.add(routing_key)

    def refused(self, routing_key: str) -> bool:
        """It has refused one. Whether that is doubted: then the connection has to end."""
        if routing_key in self._taken:
            return False
        now_s = self._clock()
        if now_s < self._until_s or now_s >= self._again_at_s:
            self._is_ours = self.is_looking = True
            return True
        return False
