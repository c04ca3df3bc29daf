"""The broker: quorum queues with a single active consumer, connections that break, confirms that get lost.

Simulated: order kept by redelivery, with the redelivered flag; the prefetch window; a consumer that still reads what
was sent to it after the broker has moved on to the next one; acknowledgements and publishes lost with their connection;
reject-publish of one message and not of the next; outcomes lost; restarts. What a nack, a reject or a cancel does to
the order (DESIGN.md, section 7) is in `requeue_out_of_order`: the product never asks for it, mutants do.
Not simulated: routing, alarms, frames, several nodes.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict, deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from shared.messaging.wire import CommandMessage, Envelope, decode
from tests.simulation.schedule import DONE, IDLE, NEVER, PASSED, Act

if TYPE_CHECKING:
    from coordinator.lane.acknowledger import Acknowledgement
    from tests.simulation.schedule import Actor
    from tests.simulation.world import World

_position = attrgetter("position")


class Message:
    """One AMQP message. `ids` are those of its commands, for the checks only."""

    __slots__ = (
        "body",
        "commands",
        "correlation_id",
        "envelope",
        "ids",
        "is_redelivered",
        "position",
        "reply_packs",
        "reply_to",
    )

    def __init__(
        self,
        envelope: Envelope,
        body: bytes,
        ids: tuple[str | None, ...],
        reply_to: str | None = None,
        correlation_id: str | None = None,
        reply_packs: bool = False,
    ) -> None:
        self.envelope = envelope
        self.body = body
        self.ids = ids
        self.reply_to = reply_to
        self.correlation_id = correlation_id
        self.reply_packs = reply_packs
        self.position = 0
        self.is_redelivered = False
        self.commands: tuple[CommandMessage, ...] = ()

    def decode(self) -> tuple[CommandMessage, ...]:
        """What a consumer makes of it: the same for all, so that a redelivery need not be decoded again."""
        self.commands = decode(self.envelope, self.body)
        return self.commands

    def copy(self, position: int) -> Message:
        copy = Message(self.envelope, self.body, self.ids, self.reply_to, self.correlation_id, self.reply_packs)
        copy.position = position
        return copy


class Channel:
    """A consumer's channel, with the frames that are on their way in both directions."""

    __slots__ = ("inbound", "is_open", "name", "notice_at", "outbound", "reader", "tag", "unacknowledged")

    def __init__(self, name: str, reader: Actor) -> None:
        self.name = name
        self.reader = reader
        self.is_open = True
        self.notice_at = 0.0
        self.tag = 0
        self.unacknowledged: dict[int, Message] = {}
        self.inbound: deque[tuple[int, Message, bool]] = deque()
        self.outbound: deque[Acknowledgement] = deque()


class Link:
    """A publisher's connection: publishes go one way, confirms the other."""

    __slots__ = ("inbound", "is_open", "name", "notice_at", "outbound", "reader")

    def __init__(self, name: str, reader: Actor) -> None:
        self.name = name
        self.reader = reader
        self.is_open = True
        self.notice_at = 0.0
        self.outbound: deque[tuple[int, str, Any]] = deque()
        self.inbound: deque[tuple[int, bool]] = deque()


class Queue:
    """One lane's queue: what is ready, in order, and the consumers' channels, the active one first."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.ready: deque[Message] = deque()
        self.channels: list[Channel] = []
        self.position = 0

    def append(self, message: Message) -> None:
        self.position += 1
        self.ready.append(message.copy(self.position))

    def requeue(self, messages: list[Message]) -> None:
        """Back to their places."""
        if not messages:
            return
        merged = list(self.ready)
        for message in messages:
            message.is_redelivered = True
            insort(merged, message, key=_position)
        self.ready = deque(merged)


class Broker:
    """An actor: moves frames and delivers."""

    def __init__(self, world: World, lanes: list[str], prefetch: int) -> None:
        self.world = world
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.readers: dict[str, Actor] = {}
        self.prefetch = prefetch
        self.queues = {lane: Queue(lane) for lane in lanes}
        self.links: list[Link] = []
        self.dead: list[tuple[str, str | None, str]] = []
        self.replies: defaultdict[str, deque[tuple[str | None, bool, bytes]]] = defaultdict(deque)
        self.up_at = 0.0

    @property
    def is_up(self) -> bool:
        return self.world.now >= self.up_at

    def consume(self, lane: str, name: str, reader: Actor) -> Channel:
        channel = Channel(name, reader)
        self.queues[lane].channels.append(channel)
        self.world.wake(self.actor)
        return channel

    def connect(self, name: str, reader: Actor) -> Link:
        link = Link(name, reader)
        self.links.append(link)
        return link

    def drop_channel(self, channel: Channel, notice_s: float = 0.0) -> None:
        """The connection is gone for the broker; the consumer learns of it later."""
        if not channel.is_open:
            return
        channel.is_open = False
        channel.notice_at = self.world.now + notice_s
        self.world.wake(channel.reader)
        self.world.wake(self.actor)
        channel.outbound.clear()
        for queue in self.queues.values():
            if channel in queue.channels:
                queue.channels.remove(channel)
                queue.requeue(list(channel.unacknowledged.values()))
        channel.unacknowledged.clear()

    def requeue_out_of_order(self, channel: Channel) -> None:
        """What a nack or a cancel does: what was delivered last comes back ahead of the rest. For mutants."""
        for queue in self.queues.values():
            if channel in queue.channels:
                held = list(channel.unacknowledged.values())
                middle = len(held) // 2
                for message in held:
                    message.is_redelivered = True
                queue.ready.extendleft(reversed(held[middle:] + held[:middle]))
                self.world.wake(self.actor)
        channel.unacknowledged.clear()

    def drop_link(self, link: Link, notice_s: float = 0.0) -> None:
        if not link.is_open:
            return
        link.is_open = False
        link.notice_at = self.world.now + notice_s
        self.world.wake(link.reader)
        link.outbound.clear()
        link.inbound.clear()
        self.links.remove(link)

    def restart(self, down_s: float) -> None:
        # One that is down already does not come up earlier for it.
        self.up_at = max(self.up_at, self.world.now + down_s)
        for queue in self.queues.values():
            for channel in list(queue.channels):
                self.drop_channel(channel, self.world.chance() * 0.3)
        for link in list(self.links):
            self.drop_link(link, self.world.chance() * 0.3)

    def wake(self) -> float:
        now = self.world.now
        if now < self.up_at:
            return self.up_at
        return now + 0.01 if self._is_waiting() else NEVER

    def _is_waiting(self) -> bool:
        """Whether anything is on its way to the broker."""
        for link in self.links:
            if link.outbound:
                return True
        for queue in self.queues.values():
            for channel in queue.channels:
                if channel.outbound:
                    return True
        return False

    def step(self) -> Act:
        world = self.world
        if world.now < self.up_at:
            return IDLE
        chance = world.chance
        moved = False
        for queue in self.queues.values():
            if not queue.channels:
                continue
            for channel in queue.channels:
                if channel.outbound and (chance() < 0.6 or world.is_calm):
                    self._acknowledge(queue, channel)
                    moved = True
            if queue.ready and self._deliver(queue):
                moved = True
        for link in self.links:
            if link.outbound and (chance() < 0.6 or world.is_calm):
                self._receive(link)
                moved = True
        if moved:
            return DONE
        return PASSED if self._is_waiting() else IDLE

    def _deliver(self, queue: Queue) -> bool:
        channel = queue.channels[0]
        room = min(self.prefetch - len(channel.unacknowledged), len(queue.ready))
        if room <= 0:
            return False
        self.world.wake(channel.reader)
        for _ in range(1 + int(self.world.chance() * room)):
            message = queue.ready.popleft()
            channel.tag += 1
            channel.unacknowledged[channel.tag] = message
            channel.inbound.append((channel.tag, message, message.is_redelivered))
        return True

    def _acknowledge(self, queue: Queue, channel: Channel) -> None:
        acknowledgement = channel.outbound.popleft()
        tag, window = acknowledgement.tag, channel.unacknowledged
        tags = [held for held in window if held <= tag] if acknowledgement.multiple else [tag]
        if not tags or tag > channel.tag or (tag not in window and not acknowledgement.multiple):
            # RabbitMQ closes the channel: PRECONDITION_FAILED, unknown delivery tag.
            self.world.trace("broker: %s acknowledged the unknown tag %s", channel.name, tag)
            self.world.violation(f"{channel.name} acknowledged tag {tag}, which the broker does not know")
            self.drop_channel(channel)
            return
        for settled in tags:
            self.world.acknowledged(queue.lane, window.pop(settled))
        self.world.wake(channel.reader)

    def _receive(self, link: Link) -> None:
        """Take some of what was published: the messages may arrive, and their confirms be lost with the link."""
        world = self.world
        for _ in range(1 + int(world.chance() * len(link.outbound))):
            number, target, payload = link.outbound.popleft()
            is_taken = True
            if target == "dead":
                self.dead.append(payload)
            elif target == "reply":
                if not world.happens("reply_lost"):
                    self.replies[payload[0]].append(payload[1:])
                    world.wake(self.readers[payload[0]])
            elif world.happens("reject"):
                is_taken = False
                world.trace("broker: %s of %s is rejected, the queue is full", payload.ids, link.name)
            else:
                self.queues[target].append(payload)
                world.trace("broker: %s of %s is in queue %s", payload.ids, link.name, target)
            if number:
                link.inbound.append((number, is_taken))
                world.wake(link.reader)
