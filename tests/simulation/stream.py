"""The broker by Redis's rules: a lane's commands are a stream, of which an entry stays until it is settled.

Simulated: a consumer has the lane by a lease and reads from the beginning of what is left, also what its predecessor
had read and not settled; who loses the lease goes on with what it has, and what it settles then is not heard; entries
are deleted one by one, in any order; up to which number an entry is marked as delivered before (`scripts.TAKE`); a full
stream refuses in the step that would add. What both brokers have is inherited: connections that break, lost confirms,
restarts. Not simulated: that Redis loses what it had confirmed, entries added by hand, its memory's end.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from tests.simulation.broker import Broker, Channel, Message, Queue
from tests.simulation.schedule import NEVER
from tests.simulation.services import SINKS
from tests.simulation.world import World


class Stream(Queue):
    """One lane's entries by their numbers, and what one consumer leaves to the next."""

    def __init__(self, lane: str) -> None:
        self.entries: dict[int, Message] = {}
        self.reader: Channel | None = None
        self.after = 0
        """Up to which number the reader has read."""
        self.read_up_to = 0
        """The highest number that had been read when an entry was last settled."""
        self.left_at: int | None = None
        """Up to which number one had read that gave its lease up in order."""
        self.again_up_to = 0
        super().__init__(lane)

    @property
    def ready(self) -> deque[Message]:
        """What the reader has yet to read, or all where there is none."""
        after = self.after if self.reader is not None else 0
        return deque(entry for number, entry in self.entries.items() if number > after)

    @ready.setter
    def ready(self, _: deque[Message]) -> None:
        """Nothing is taken out of a stream but what is settled."""

    def append(self, message: Message) -> Message:
        self.position += 1
        entry = message.copy(self, self.position)
        self.entries[self.position] = entry
        return entry

    def requeue(self, messages: list[Message]) -> None:
        """It is all there."""

    def take(self, channel: Channel) -> None:
        """The lease is this consumer's now."""
        self.reader, self.after = channel, 0
        self.again_up_to = self.position if self.left_at is None else self.left_at
        self.left_at = None

    def settled(self, number: int) -> None:
        """Take an entry out."""
        self.entries.pop(number, None)
        self.read_up_to = max(self.read_up_to, self.after)


class StreamBroker(Broker):
    """A broker whose lanes have streams. Effects, and dead letters of before, come as they do there."""

    def __init__(self, world: World, lanes: list[str], prefetch: int) -> None:
        super().__init__(world, lanes, prefetch)
        self.streams = {lane: Stream(lane) for lane in lanes if lane not in SINKS}
        self.queues |= self.streams
        self._consumed = [*self.streams.values()]

    def wake(self) -> float:
        now = self.world.now
        if now < self.up_at:
            return self.up_at
        return now + 0.01 if self._is_waiting() else NEVER

    def drop_channel(self, channel: Channel, notice_s: float = 0.0) -> None:
        for stream in self.streams.values():
            if stream.reader is channel:
                # It may have ended in order, and have told up to where it had come.
                stream.left_at = stream.after if self.world.chance() < 0.5 else None
                stream.reader = None
        super().drop_channel(channel, notice_s)

    def _deliver(self, queue: Queue, channel: Channel) -> bool:
        return self._read(queue, channel) if isinstance(queue, Stream) else super()._deliver(queue, channel)

    def _read(self, queue: Stream, channel: Channel) -> bool:
        if queue.reader is not channel:
            queue.take(channel)
        room = min(self.prefetch - len(channel.unacknowledged), len(queue.ready))
        if room <= 0:
            return False
        self.world.wake(channel.reader)
        for entry in list(queue.ready)[: 1 + int(self.world.chance() * room)]:
            channel.tag += 1
            channel.unacknowledged[channel.tag] = entry
            channel.inbound.append((channel.tag, entry, entry.position <= queue.again_up_to))
            queue.after = entry.position
            self.world.was_live.update(entry.ids)
        return True


class StreamWorld(World):
    """A world whose broker is a Redis."""

    broker_kind: ClassVar[type[Broker]] = StreamBroker
