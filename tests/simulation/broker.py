"""The broker: quorum queues with a single active consumer, connections that break, confirms that get lost.

Simulated: order kept by redelivery, with the redelivered flag; the prefetch window; a consumer that still reads what
was sent to it after the broker has moved on to the next one; acknowledgements and publishes lost with their connection;
reject-publish of one message and not of the next; a queue that is missing, or takes nothing for long; what expires at
the head of a queue, and its queue of dead letters, which anybody may consume; outcomes lost; restarts. What a nack, a
reject or a cancel does to the order (DESIGN.md, section 7) is in `requeue_out_of_order`: the product never asks for
it, mutants do.
Not simulated: alarms, frames, several nodes. Whoever publishes names the exchange, as permissions let him.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict, deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pika

from coordinator.lane.delivery import Delivery
from coordinator.lane.high_water import Mark
from coordinator.runtime.settings import LaneSettings
from coordinator.transports.rabbitmq.incoming import dead_delivery_of, delivery_of
from coordinator.transports.rabbitmq.topology import DEAD_EXCHANGE, SYSTEM_EXCHANGE, WRITES_EXCHANGE
from tests.simulation.schedule import DONE, IDLE, NEVER, PASSED, Act
from tests.simulation.services import SINKS

if TYPE_CHECKING:
    from coordinator.lane.acknowledger import Acknowledgement
    from tests.simulation.schedule import Actor
    from tests.simulation.world import World

DEAD = ".dead"
"""What the name of a lane's queue of dead letters ends with, here."""
_DEAD_TWICE = 0.2
_position = attrgetter("position")


class Message:
    """One AMQP message. `ids` are those of its commands, for the checks only; None is one without a usable id."""

    __slots__ = (
        "body",
        "delivery",
        "exchange",
        "expires_at",
        "expires_in_s",
        "ids",
        "is_redelivered",
        "position",
        "properties",
        "queue",
    )

    def __init__(
        self,
        exchange: str,
        properties: pika.BasicProperties,
        body: bytes,
        ids: tuple[str | None, ...],
        expires_in_s: float | None = None,
    ) -> None:
        self.exchange = exchange
        self.properties = properties
        self.body = body
        self.ids = ids
        self.expires_in_s = expires_in_s
        self.expires_at = NEVER
        self.position = 0
        self.is_redelivered = False
        self.queue: Queue
        self.delivery: Delivery | None = None

    def delivered(self, settings: LaneSettings) -> Delivery:
        """What a consumer makes of it: the same for all, so that a redelivery need not be decoded again."""
        if self.delivery is None:
            method = _Method(self.exchange)
            queue = self.queue
            if queue.is_dead:
                self.delivery = dead_delivery_of(queue.lane, method, self.properties, self.body, settings)
            else:
                self.delivery = delivery_of(method, self.properties, self.body, settings)
        return self.delivery

    def copy(self, queue: Queue, position: int) -> Message:
        copy = Message(self.exchange, self.properties, self.body, self.ids)
        copy.queue = queue
        copy.position = position
        return copy


class _Method:
    """As much of Basic.Deliver as does not differ from one delivery of a message to the next."""

    __slots__ = ("delivery_tag", "exchange", "redelivered")

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        self.delivery_tag = 0
        self.redelivered = False


def system_message(command_id: str, command_type: str, body: bytes) -> Message:
    """A message of the system's own, or of an operator's."""
    return Message(SYSTEM_EXCHANGE, pika.BasicProperties(message_id=command_id, type=command_type), body, (command_id,))


class Channel:
    """A consumer's channel, with the frames that are on their way in both directions."""

    __slots__ = ("inbound", "is_open", "name", "notice_at", "outbound", "place", "reader", "tag", "unacknowledged")

    def __init__(self, name: str, place: str, reader: Actor) -> None:
        self.name = name
        self.place = place
        self.reader = reader
        self.is_open = True
        self.notice_at = 0.0
        self.tag = 0
        self.unacknowledged: dict[int, Message] = {}
        self.inbound: deque[tuple[int, Message, bool]] = deque()
        self.outbound: deque[Acknowledgement] = deque()


class Link:
    """A publisher's connection: publishes go one way, confirms the other."""

    __slots__ = ("inbound", "is_open", "name", "notice_at", "outbound", "place", "reader")

    def __init__(self, name: str, place: str, reader: Actor) -> None:
        self.name = name
        self.place = place
        self.reader = reader
        self.is_open = True
        self.notice_at = 0.0
        self.outbound: deque[tuple[int, str, Any]] = deque()
        self.inbound: deque[tuple[int, bool]] = deque()


class Queue:
    """One lane's queue, or that of its dead letters: what is ready, in order, and the consumers' channels, of which
    that of a lane serves the first."""

    def __init__(self, lane: str, is_dead: bool = False) -> None:
        self.lane = lane
        self.is_dead = is_dead
        self.ready: deque[Message] = deque()
        self.channels: list[Channel] = []
        self.position = 0

    def append(self, message: Message) -> Message:
        self.position += 1
        copy = message.copy(self, self.position)
        self.ready.append(copy)
        return copy

    def settled(self, position: int) -> None:
        """A message is acknowledged: there is no copy of it left."""

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
        self.dead = {lane: Queue(lane, is_dead=True) for lane in lanes}
        self.arrived: defaultdict[str, list[Message]] = defaultdict(list)
        """What ever came to a sink."""
        self.came: defaultdict[str, dict[str | None, None]] = defaultdict(dict)
        """The ids of what the system has sent to each queue, in the order in which each came first."""
        self.marks: defaultdict[str, Mark] = defaultdict(Mark)
        self.named: defaultdict[str, int] = defaultdict(int)
        """The last sequence that whoever kept the mark knew by the command's id."""
        # Those of the sinks have no consumers.
        self._consumed = [queue for lane, queue in self.queues.items() if lane not in SINKS]
        self._consumed_dead = [queue for lane, queue in self.dead.items() if lane not in SINKS]
        self.is_missing: set[str] = set()
        self.links: list[Link] = []
        self.replies: defaultdict[str, deque[tuple[str | None, bool, bytes]]] = defaultdict(deque)
        self.up_at = 0.0
        self.cut_until: dict[str, float] = {}
        """Until when whose way to the broker is cut off: a process's place, or a client's name."""

    def keep(self, lane: str, mark: Mark, named: int) -> None:
        """A mark, and the last sequence that whoever keeps it knows by the command's id."""
        self.marks[lane], self.named[lane] = mark, named

    def open_at(self, place: str) -> float:
        """From when on somebody gets through to it."""
        return max(self.up_at, self.cut_until.get(place, 0.0)) if self.cut_until else self.up_at

    def consume(self, lane: str, name: str, place: str, reader: Actor) -> Channel:
        channel = Channel(name, place, reader)
        self.queues[lane].channels.append(channel)
        self.world.wake(self.actor)
        return channel

    def consume_dead(self, lane: str, channel: Channel) -> None:
        """On the channel that consumes the lane's queue already. Any number of consumers share it."""
        if channel.is_open:
            self.dead[lane].channels.append(channel)
            self.world.wake(self.actor)

    def connect(self, name: str, place: str, reader: Actor) -> Link:
        link = Link(name, place, reader)
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
        taken = channel.unacknowledged.values()
        for queues in (self.queues, self.dead):
            for queue in queues.values():
                if channel in queue.channels:
                    queue.channels.remove(channel)
                    queue.requeue([message for message in taken if message.queue is queue])
                    if queue.is_dead and queue.ready:
                        self.world.wake_lane(queue.lane)
        channel.unacknowledged.clear()

    def requeue_out_of_order(self, channel: Channel) -> None:
        """What a nack or a cancel does: what was delivered last comes back ahead of the rest. For mutants."""
        for queue in self.queues.values():
            if channel in queue.channels:
                taken = [message for message in channel.unacknowledged.values() if not message.queue.is_dead]
                middle = len(taken) // 2
                for message in taken:
                    message.is_redelivered = True
                queue.ready.extendleft(reversed(taken[middle:] + taken[:middle]))
                self.world.wake(self.actor)
        for queue in self.dead.values():
            queue.requeue([message for message in channel.unacknowledged.values() if message.queue is queue])
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

    def cut_off(self, place: str, until: float) -> None:
        """Somebody's connections are lost, and he gets no others for a while."""
        world = self.world
        world.trace("%s is cut off from the broker until %.3f", place, until)
        self.cut_until[place] = max(until, self.cut_until.get(place, 0.0))
        for queue in self.queues.values():
            for channel in [each for each in queue.channels if each.place == place]:
                self.drop_channel(channel, world.chance() * 0.3)
        for link in [each for each in self.links if each.place == place]:
            self.drop_link(link, world.chance() * 0.3)

    def put(self, lane: str, message: Message) -> None:
        """What somebody published whose connection is not simulated."""
        self.queues[lane].append(message)
        self.world.wake(self.actor)

    def wake(self) -> float:
        now = self.world.now
        if now < self.up_at:
            return self.up_at
        if self._is_waiting():
            return now + 0.01
        heads = [queue.ready[0] for queue in self._consumed if queue.ready and queue.channels]
        return min([head.expires_at for head in heads], default=NEVER)

    def _is_waiting(self) -> bool:
        """Whether anything is on its way to the broker."""
        for link in self.links:
            if link.outbound:
                return True
        for queue in self._consumed:
            for channel in queue.channels:
                if channel.outbound:
                    return True
        return False

    def step(self) -> Act:  # noqa: C901  # one loop over everything that moves
        world = self.world
        if world.now < self.up_at:
            return IDLE
        chance = world.chance
        moved = False
        for queue in self._consumed:
            for channel in queue.channels:
                if channel.outbound and (chance() < 0.6 or world.is_calm):
                    self._acknowledge(channel)
                    moved = True
            if queue.ready and queue.channels and self._deliver(queue, queue.channels[0]):
                moved = True
        for queue in self._consumed_dead:
            if queue.ready and queue.channels:
                channel = queue.channels[int(chance() * len(queue.channels))]
                if self._deliver(queue, channel):
                    moved = True
        for link in self.links:
            if link.outbound and (chance() < 0.6 or world.is_calm):
                self._receive(link)
                moved = True
        if moved:
            return DONE
        return PASSED if self._is_waiting() else IDLE

    def _deliver(self, queue: Queue, channel: Channel) -> bool:
        if queue.ready[0].expires_at <= self.world.now:
            self._expire(queue)
            return True
        room = min(self.prefetch - len(channel.unacknowledged), len(queue.ready))
        if room <= 0:
            return False
        self.world.wake(channel.reader)
        for _ in range(1 + int(self.world.chance() * room)):
            if queue.ready[0].expires_at <= self.world.now:
                break
            message = queue.ready.popleft()
            channel.tag += 1
            channel.unacknowledged[channel.tag] = message
            channel.inbound.append((channel.tag, message, message.is_redelivered))
            if not queue.is_dead:
                self.world.was_live.update(message.ids)
        return True

    def _expire(self, queue: Queue) -> None:
        """At the head of its queue, whoever would have been next: to the dead letters, at least once."""
        message = queue.ready.popleft()
        self.world.trace("broker: %s expires in queue %s", message.ids, queue.lane)
        self.world.expired.update(command_id for command_id in message.ids if command_id is not None)
        properties = message.properties
        death = {"reason": "expired", "queue": queue.lane, "exchange": message.exchange, "count": 1}
        dead = pika.BasicProperties(
            message_id=properties.message_id,
            type=properties.type,
            content_type=properties.content_type,
            reply_to=properties.reply_to,
            correlation_id=properties.correlation_id,
            user_id=properties.user_id,
            headers={**(properties.headers or {}), "x-death": [death]},
        )
        for _ in range(2 if self.world.chance() < _DEAD_TWICE else 1):
            self.put_dead(queue.lane, Message(DEAD_EXCHANGE, dead, message.body, message.ids))

    def put_dead(self, lane: str, message: Message) -> None:
        self.dead[lane].append(message)
        self.world.wake(self.actor)
        self.world.wake_lane(lane)

    def _acknowledge(self, channel: Channel) -> None:
        acknowledgement = channel.outbound.popleft()
        tag, window = acknowledgement.tag, channel.unacknowledged
        tags = [each for each in window if each <= tag] if acknowledgement.multiple else [tag]
        if not tags or tag > channel.tag or (tag not in window and not acknowledgement.multiple):
            # RabbitMQ closes the channel: PRECONDITION_FAILED, unknown delivery tag.
            self.world.trace("broker: %s acknowledged the unknown tag %s", channel.name, tag)
            self.world.violation(f"{channel.name} acknowledged tag {tag}, which the broker does not know")
            self.drop_channel(channel)
            return
        for each in tags:
            message = window.pop(each)
            self.world.acknowledged(message)
            message.queue.settled(message.position)
        self.world.wake(channel.reader)

    def _receive(self, link: Link) -> None:
        """Take some of what was published: the messages may arrive, and their confirms be lost with the link."""
        world = self.world
        for _ in range(1 + int(world.chance() * len(link.outbound))):
            number, target, payload = link.outbound.popleft()
            is_taken = True
            if target == "reply":
                if not world.happens("reply_lost"):
                    self.replies[payload[0]].append(payload[1:])
                    world.wake(self.readers[payload[0]])
            elif target in self.is_missing or world.happens("reject"):
                is_taken = False
                world.trace("broker: %s of %s is rejected, the queue is full", payload.ids, link.name)
            elif target.endswith(DEAD):
                self.put_dead(target.removesuffix(DEAD), payload)
            else:
                message = self.queues[target].append(payload)
                if payload.exchange == SYSTEM_EXCHANGE:
                    self.came[target] |= dict.fromkeys(payload.ids)
                if target in SINKS:
                    self.arrived[target].append(message)
                    world.wake_workers()
                if payload.expires_in_s is not None:
                    message.expires_at = world.now + payload.expires_in_s
                world.trace("broker: %s of %s is in queue %s", payload.ids, link.name, target)
            if number:
                link.inbound.append((number, is_taken))
                world.wake(link.reader)


def public_message(
    properties: pika.BasicProperties,
    body: bytes,
    ids: tuple[str | None, ...],
    expires_in_s: float | None = None,
    exchange: str = WRITES_EXCHANGE,
) -> Message:
    """A message of somebody who may publish to `writes` only, or by way of the default exchange."""
    return Message(exchange, properties, body, ids, expires_in_s)
