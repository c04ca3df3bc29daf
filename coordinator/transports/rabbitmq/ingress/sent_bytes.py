"""How many bytes of one account may wait in lanes' queues. RabbitMQ tells how many messages do, and not their sizes.

A queue gives its messages out in order. So of those that wait there, whoever else has sent some, no more are the
account's than it has sent last.
"""

from collections import deque


class SentBytes:
    """What one account was handed on to each lane. `messages_max`: so many of its last messages are remembered."""

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._totals: dict[str, int] = {}
        self._before: dict[str, deque[int]] = {}
        """Of each message, how many bytes were sent before it."""

    def note(self, lane: str, size_bytes: int) -> None:
        """A message of this size is with the lane."""
        total = self._totals.get(lane, 0)
        self._before.setdefault(lane, deque(maxlen=self._messages_max)).append(total)
        self._totals[lane] = total + size_bytes

    def waiting_max(self, lane: str, ready: int) -> int:
        """How many bytes of the account wait at most, where so many messages wait in the lane's queue."""
        before = self._before.get(lane)
        if not before or ready <= 0:
            return 0
        return self._totals[lane] - before[-min(ready, len(before))]
