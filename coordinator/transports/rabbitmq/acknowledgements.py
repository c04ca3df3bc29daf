"""Acknowledging a channel's deliveries, several at once."""

import asyncio
from collections import deque
from collections.abc import Sequence

from pika.channel import Channel

from coordinator.lane.acknowledger import Acknowledger

WITHIN_S = 0.01
"""How long a settled delivery may wait for others to be acknowledged with."""
WAITING_MAX = 64
"""How many settled deliveries wait at most; with a small prefetch, a quarter of it."""


class Acknowledgements:
    """The acknowledgements of one channel. Used within the loop of its connection.

    To a quorum queue each acknowledgement is one more entry of its log, synced to disk like a message: one for every
    command would hold up the next command's publish. It may be late: the outcome has been sent, and if the
    acknowledgement is lost, the command log answers the repeated delivery.
    """

    def __init__(self, channel: Channel, prefetch: int) -> None:
        self._channel = channel
        self._waiting_max = max(1, min(WAITING_MAX, prefetch // 4))
        self._acknowledger = Acknowledger()
        self._waiting: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at_s: deque[tuple[int, float]] = deque()
        """By tag, without those behind which an older one came: the first is the oldest."""
        self._oldest_at_s: float | None = None

    @property
    def unacknowledged(self) -> int:
        """How many deliveries the broker has not been told of. Those of a closed channel are its own again."""
        return self._acknowledger.unacknowledged if self._channel.is_open else 0

    def oldest_age_s(self, now_s: float) -> float:
        """How long ago the oldest of them was sent; 0: there is none. For any thread."""
        oldest_at_s = self._oldest_at_s
        return 0.0 if oldest_at_s is None or not self._channel.is_open else max(0.0, now_s - oldest_at_s)

    def delivered(self, tag: int, sent_at_s: float) -> None:
        """The broker delivered it; tags come in order. `sent_at_s` is in seconds since the Unix epoch."""
        self._acknowledger.delivered(tag)
        sent = self._sent_at_s
        while sent and sent[-1][1] >= sent_at_s:
            sent.pop()
        sent.append((tag, sent_at_s))
        self._oldest_at_s = sent[0][1]

    def acknowledge(self, tags: Sequence[int]) -> None:
        """Acknowledge these deliveries soon; at once, when that many wait that the prefetch might run out."""
        self._waiting += tags
        if len(self._waiting) >= self._waiting_max:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WITHIN_S, self.flush)

    def flush(self) -> None:
        """Acknowledge the settled deliveries now; a closed channel sends nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        if waiting and self._channel.is_open:
            for acknowledgement in self._acknowledger.acknowledge(waiting):
                self._channel.basic_ack(acknowledgement.tag, multiple=acknowledgement.multiple)
            self._forget_ages()

    def _forget_ages(self) -> None:
        first = self._acknowledger.first
        if first is None:
            self._sent_at_s.clear()
        while self._sent_at_s and first is not None and self._sent_at_s[0][0] < first:
            self._sent_at_s.popleft()
        self._oldest_at_s = self._sent_at_s[0][1] if self._sent_at_s else None
