"""A lane of this process behind a broker, too: what others publish for it comes in, and what it emits to lanes that run
elsewhere goes out.

What comes in waits in the lane's own queue like everything else, so the lane has one order. It is acknowledged to the
broker once its batch is committed, and until then comes again after any crash: the command log answers what was settled
already. What comes again after a lost connection may still wait here, and is not put into the queue a second time: an
outage of the database may see many connections come and go. What goes out stays in the lane's outbox until the broker
has confirmed it.

The broker keeps the lane's mark, too, for whoever has the queue next. Another one may have had it before, and left the
mark of another database there. So on each channel of the broker's the lane's own is kept only once the lane has gone on
behind that: it has settled something that was put into its queue after the mark of the channel. Till then, and for
every channel that is gone, the broker's stays.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol

from msgspec import Struct
from msgspec.structs import replace

from coordinator.lane.delivery import Delivery, Reply, Settlement
from coordinator.lane.high_water import Mark
from coordinator.runtime.settings import LaneSettings
from coordinator.runtime.telling import tell
from coordinator.service.ids import new_command_id
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.inbox import Inbox
from coordinator.transports.port import Confirmed, Transport
from coordinator.worker.holder import holder_name

_ASK_AFTER_S: Final = 0.5
_ASK_AGAIN_S_MAX: Final = 60.0
_LOOK_EVERY_S: Final = 5.0
"""How often it looks whether there is another channel, while nothing comes."""
_OUTSIDE: Final = ">"
"""Before an address of the broker's: nobody there can name those who wait in this process."""


class _Brought(Struct, frozen=True):
    """What the lane has not settled, as the broker has delivered it last."""

    channel: int
    delivery: Delivery


class BridgedLane(Protocol):
    """A lane, for its bridge."""

    @property
    def name(self) -> str: ...

    @property
    def numbering(self) -> threading.Lock:
        """Held by whoever puts something into the queue, until he has noted its number; and by the lane's thread, while
        it looks what was noted of a settlement."""

    @property
    def inbox(self) -> Inbox:
        """Where what is in the queue waits for the lane's thread."""

    def put_delivery(self, delivery: Delivery) -> int:
        """Hand it to the lane; return its number."""

    @property
    def last_number(self) -> int:
        """That of what was put into the queue last."""

    def learn(self, mark: Mark) -> None:
        """How far the lane is known to have come. Its thread takes that in before anything that is put into the queue
        from now on."""

    def mark(self) -> Mark | None:
        """How far the lane has come; None: it is in doubt. For the lane's thread."""

    def confirm_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """These are safe with the broker."""


class LaneBridge:
    """The bridge of one lane. The lane's thread calls `settle`, `publish_emitted` and `keep`."""

    def __init__(self, lane: BridgedLane, transport: Transport, settings: LaneSettings) -> None:
        self._lane = lane
        self._settings = settings
        self._inbox = Inbox(lane.inbox)
        self._consumer = transport.lane(
            lane.name, self._inbox, settings, holder=holder_name("bridge", lane.name), has_effects=False
        )
        self._under_way: dict[int, _Brought] = {}
        """By the number in the lane's queue, in that order."""
        self._channel = 0
        self._may_come_again: dict[str | None, deque[int]] = {}
        """Those of them that the present channel has not brought, by the ids of their first commands."""
        self._before = 0
        """What was put into the lane's queue last, when its mark and the first message of this channel had come."""
        self._fresh_channel = -1
        """The last one that has brought something that was not in the lane's queue."""
        self._heeded_channel = 0
        """The last one of which the lane heeds the mark, and goes on. Of the lane's thread."""
        self._thread = threading.Thread(target=self._bring_in, name=f"bridge of {lane.name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._problem: Exception | None = None

    @property
    def unready_reason(self) -> str | None:
        """Why nothing comes in, or goes out; None: it does."""
        return self._consumer.unready_reason

    def start(self) -> None:
        """Bring in what is published from now on, and what waits already. Called within the event loop."""
        self._loop = asyncio.get_running_loop()
        confirmed: Confirmed = self._lane.confirm_emitted
        self._consumer.start(confirmed)
        self._thread.start()

    async def failed(self) -> NoReturn:
        """Raise the error that ended it for good."""
        await self._ended.wait()
        if self._problem is not None:
            raise self._problem
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish commands for lanes that run elsewhere."""
        self._consumer.publish_emitted(entries)

    def settle(self, settlement: Settlement) -> None:
        """Send outcomes to those who wait elsewhere, and acknowledge what came from there."""
        with self._lane.numbering:
            settled = [each for number in settlement.tags if (each := self._under_way.pop(number, None)) is not None]
            channel = self._channel
            is_heeded = any(number > self._before for number in settlement.tags)
        tags: defaultdict[int, list[int]] = defaultdict(list)
        for each in settled:
            tags[each.channel].append(each.delivery.tag)
        replies = [replace(reply, reply_to=reply.reply_to[1:]) for reply in settlement.replies if is_outside(reply)]
        if replies or settlement.withdrawn:
            # Outcomes go before the acknowledgements, and on whatever channel.
            self._consumer.settle(0, Settlement(replies=replies, withdrawn=settlement.withdrawn))
        for its_channel, of_channel in tags.items():
            self._consumer.settle(its_channel, Settlement(tags=of_channel))
        if is_heeded and channel != self._heeded_channel:
            self._heeded_channel = channel
            if (mark := self._lane.mark()) is not None and mark.sequence:
                self.keep(mark)

    def keep(self, mark: Mark) -> None:
        """Have the broker keep how far the lane has come, if the lane has heeded what was kept there before."""
        if self._heeded_channel > 0:
            self._consumer.keep(self._heeded_channel, mark)

    def end_intake(self) -> None:
        """Bring nothing in any more; what is under way is still settled."""
        self._inbox.close()

    def leave(self) -> None:
        """Leave everything to others, and do not wait for that."""
        self.end_intake()
        self._consumer.stop(0.0)

    def stop(self, timeout_s: float) -> None:
        """Disconnect, once the lane has ended. What it has not settled comes again, to whoever has the lane next."""
        self.end_intake()
        self._consumer.stop(timeout_s)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _bring_in(self) -> None:
        asked_channel, ask_in_s = self._inbox.channel_number, _ASK_AFTER_S
        try:
            while not self._inbox.is_closed:
                is_fresh = self._fresh_channel == self._inbox.channel_number
                channel, deliveries = self._inbox.take(
                    self._settings.batch_commands_max,
                    self._settings.batch_bytes_max,
                    _LOOK_EVERY_S if is_fresh else ask_in_s,
                )
                if (mark := self._inbox.take_mark()) is not None:
                    # Whoever had the queue before may have come further, in another database.
                    self._lane.learn(mark)
                for delivery in deliveries:
                    self._put(channel, delivery)
                if (current := self._inbox.channel_number) != asked_channel:
                    asked_channel, ask_in_s = current, _ASK_AFTER_S
                elif mark is None and not deliveries and not is_fresh and self._may_ask():
                    # RabbitMQ tells a consumer by a delivery only that the queue is its, and so is the mark. Meanwhile
                    # the lane goes on with what comes from its own process.
                    self._consumer.wake(new_command_id())
                    ask_in_s = min(4 * ask_in_s, _ASK_AGAIN_S_MAX)
        except Exception as error:  # noqa: BLE001  # the process ends by it
            self._problem = error
        self._problem = self._consumer.failure or self._problem
        tell(self._loop, self._ended.set)

    def _may_ask(self) -> bool:
        return not self._inbox.is_closed and self.unready_reason is None

    def _put(self, channel: int, delivery: Delivery) -> None:
        outside = None if delivery.reply_to is None else _OUTSIDE + delivery.reply_to
        with self._lane.numbering:
            if channel != self._channel:
                self._begin_channel(channel)
            number = self._waiting_here(delivery)
            if number is None:
                number = self._lane.put_delivery(replace(delivery, reply_to=outside))
                self._fresh_channel = channel
            self._under_way[number] = _Brought(channel, delivery)

    def _begin_channel(self, channel: int) -> None:
        self._channel = channel
        self._before = self._lane.last_number
        self._may_come_again = {}
        for number, each in self._under_way.items():
            self._may_come_again.setdefault(_first_id(each.delivery), deque()).append(number)

    def _waiting_here(self, delivery: Delivery) -> int | None:
        """The number of what comes again, and is in the lane's queue since a channel before; None: it is not there."""
        again = self._may_come_again.get(_first_id(delivery))
        while again and again[0] not in self._under_way:
            again.popleft()
        if not again or _message(self._under_way[again[0]].delivery) != _message(delivery):
            return None
        return again.popleft()


def _first_id(delivery: Delivery) -> str | None:
    return delivery.commands[0].command_id if delivery.commands else None


def _message(delivery: Delivery) -> Delivery:
    """It without what tells its deliveries apart."""
    return replace(delivery, tag=0, redelivered=False, arrival=None)


def is_outside(reply: Reply) -> bool:
    """Whether it is for somebody who waits elsewhere."""
    return reply.reply_to.startswith(_OUTSIDE)
