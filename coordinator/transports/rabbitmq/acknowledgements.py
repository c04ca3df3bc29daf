"""Acknowledging a channel's deliveries, several at once."""

import asyncio
from collections.abc import Sequence

from pika.channel import Channel
from prometheus_client import Gauge

from coordinator.lane.acknowledger import Acknowledger

WITHIN_S = 0.01
"""How long a settled delivery may wait for others to be acknowledged with."""
WAITING_MAX = 64
"""How many settled deliveries wait at most; with a small prefetch, a quarter of it."""

UNACKNOWLEDGED = Gauge("coordinator_lane_unacknowledged", "Messages that were delivered and wait here.", ["lane"])


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

    @property
    def unacknowledged(self) -> int:
        """How many deliveries the broker has not been told of. Those of a closed channel are its own again."""
        return self._acknowledger.unacknowledged if self._channel.is_open else 0

    def delivered(self, tag: int) -> None:
        """The broker delivered it; tags come in order."""
        self._acknowledger.delivered(tag)

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
