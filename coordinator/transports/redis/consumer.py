"""The consumer of one lane's streams: a thread of its own for Redis's I/O.

Four connections: one waits for entries, one has the lease and takes settled entries out, the others add emitted
commands, and send outcomes. A channel is the time of one lease on one connection. It ends with either of them, and
what was not settled comes again on the next one, of whatever consumer.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import redis
import structlog

from coordinator.lane.delivery import Arrival, Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.awaited import Late
from coordinator.runtime.clock import now_ms
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.runtime.telling import tell
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, Unavailable
from coordinator.service.outside_calls import effects_key
from coordinator.transports.consumer_thread import ConsumerThread, in_full
from coordinator.transports.inbox import Inbox
from coordinator.transports.not_sent import NotSent
from coordinator.transports.queue_gauges import OLDEST_AGE, READY, UNACKNOWLEDGED
from coordinator.transports.reconnecting import HandedOver, Reconnecting
from coordinator.transports.redis.connection import RedisConnection, translated
from coordinator.transports.redis.emitted import RedisEmitted
from coordinator.transports.redis.entries import encoded_head
from coordinator.transports.redis.incoming import delivery_of
from coordinator.transports.redis.keys import commands_key, counter_key, system_stream_key
from coordinator.transports.redis.lane_lease import POLL_S, LaneLease, TakenLease
from coordinator.transports.redis.loss import RunPlace, RunsCounted, counted_of, place_in
from coordinator.transports.redis.lost_messages import report_lost, report_missing
from coordinator.transports.redis.marks import RedisMark
from coordinator.transports.redis.missing import NumbersRead, given_out
from coordinator.transports.redis.outcomes import OutcomeSender
from coordinator.transports.redis.publisher import RedisPublisher
from coordinator.transports.redis.reading import MergedStreams
from coordinator.transports.redis.scripts import ADOPT, GREET, NUMBER_MAX, RUNS_MAX
from coordinator.transports.redis.window import EntryWindow

AFTER_STANDING_BACK_S: Final = 4 * POLL_S
"""How long one that has given the lane up leaves the turn to others."""
PLACE_ASKED_S: Final = 5.0
"""How long the database may take to say where the last settled command was."""

log = structlog.get_logger("consumer")


class RedisLane(ConsumerThread):
    """Implements `LaneTransport`: feeds a lane's inbox from its streams, and carries out its settlements."""

    def __init__(
        self,
        lane: str,
        broker: BrokerSettings,
        inbox: Inbox,
        *,
        settings: LaneSettings,
        holder: str,
        has_effects: bool = False,
        last_place: Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__(lane, inbox)
        self._has_effects = has_effects
        self._last_place = last_place
        self._broker = broker
        self._settings = settings
        self._holder = holder
        self._by = f"coordinator.{lane}"
        self._streams = (commands_key(lane, is_system=False), commands_key(lane, is_system=True))
        self._publisher = RedisPublisher(broker, f"{holder} publish")
        self._outcomes = OutcomeSender(broker, f"{holder} outcomes", NotSent(lane))
        self._reconnecting = Reconnecting(f"{holder} consume", broker)
        self._connections: list[RedisConnection] = []
        self._channel_number = 0
        self._window: EntryWindow | None = None
        self._mark = RedisMark(lane)
        self._place: RunPlace | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._gone: RunPlace | None = None
        """The last of which it has said that Redis has lost it."""
        self._stands_back = False

    @property
    def is_consuming(self) -> bool:
        """Whether the lane's commands arrive, or would if it were this consumer's turn."""
        return self._reconnecting.connected.is_set()

    @property
    def unready_reason(self) -> str | None:
        if not self.is_consuming:
            return self._reconnecting.reason
        if not self._publisher.is_healthy:
            return self._publisher.unready_reason
        window = self._window
        return self._outcomes.unready_reason if window is None or window.refusal is None else window.refusal

    @property
    def late(self) -> Late | None:
        of_connections = [each.late for each in tuple(self._connections)]
        return next(filter(None, (self._publisher.late, self._outcomes.late, *of_connections)), None)

    async def _serve(self) -> None:
        """Run until `stop` is called, or one of the tasks ends; a task ends only by a failure."""
        publishing, answering = self._publisher.start(), self._outcomes.start()
        consuming = asyncio.create_task(self._reconnecting.run(self._consume), name=f"consumer of {self._lane}")
        stopping = asyncio.create_task(self._stop.wait())
        tasks = (publishing, answering, consuming, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop_emitting()
            # Its end takes out what is settled, and gives the lease up.
            await end_tasks(consuming, self._comparing)
            await end_tasks(*tasks)
            await self._publisher.close()
            self._all_ended(tasks)

    async def _consume(self) -> BrokerUnavailable:
        """Wait for the turn, and consume until it ends, or a connection is lost."""
        # Nobody knows before Redis has said it again.
        READY.labels(self._lane).set(math.nan)
        connection = await RedisConnection.open(self._broker, f"{self._holder} consume")
        self._connections = [connection]
        try:
            # Before its turn comes: a takeover need not wait for it.
            reading = await RedisConnection.open(self._broker, f"{self._holder} read", must_sync=False)
            self._connections.append(reading)
            await self._greet(connection)
            self._reconnecting.is_up()
            if self._stands_back:
                await asyncio.sleep(AFTER_STANDING_BACK_S)
                self._stands_back = False
            lease = LaneLease(self._lane, connection, self._broker.heartbeat_s)
            taken = await lease.take()
            try:
                return await self._consume_in_turn(connection, reading, lease, taken)
            finally:
                await self._leave(connection, lease, taken)
        except redis.RedisError as error:
            raise translated(error, "Redis") from error
        finally:
            opened, self._connections = self._connections, []
            for each in opened:
                await each.close()

    async def _consume_in_turn(
        self, connection: RedisConnection, reading: RedisConnection, lease: LaneLease, taken: TakenLease
    ) -> BrokerUnavailable:
        tasks: list[asyncio.Task[BrokerUnavailable]] = []
        try:
            await self._wait_for_outcomes(self._outcomes, connection)
            mark = self._mark.begin(lease, taken.mark)
            channel_number = self._inbox.begin_channel()
            prefetch, read_up_to = self._settings.prefetch, taken.read_up_to
            window = EntryWindow(self._lane, connection, lease, prefetch, self._turn_is_over, read_up_to=read_up_to)
            self._window, self._channel_number = window, channel_number
            UNACKNOWLEDGED.labels(self._lane).set_function(lambda: window.unsettled)
            OLDEST_AGE.labels(self._lane).set_function(lambda: window.oldest_age_s(time.time()))
            if mark is not None:
                self._inbox.learn(mark)
            self._begin_emitting()
            self._wake_for_left()
            self._say_consuming(channel_number, self._reconnecting.ended)
            tasks = [
                asyncio.create_task(self._read(connection, reading, window, channel_number, taken.again_up_to)),
                asyncio.create_task(self._renew(connection, lease, window)),
                asyncio.create_task(self._mark.watch(lease)),
            ]
            changes: set[asyncio.Future[Any]] = {*tasks, connection.lost, reading.lost}
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    return task.result()
            return await asyncio.shield(reading.lost if reading.lost.done() else connection.lost)
        finally:
            self._end_emitting()
            await end_tasks(*tasks)

    async def _leave(self, connection: RedisConnection, lease: LaneLease, taken: TakenLease) -> None:
        """Take out what is settled, and let another consumer have its turn."""
        window, self._window = self._window, None
        self._mark.end()
        read_up_to = taken.read_up_to
        if window is not None:
            window.flush()
            read_up_to = window.read_up_to
            if window.counted_up_to:
                self._place = RunPlace(connection.run, window.counted_up_to)
        # The calls are answered in their order: what was taken out is so by then.
        await asyncio.shield(lease.give_up(read_up_to))

    async def _greet(self, connection: RedisConnection) -> None:
        """Make the counters, and see whether Redis has lost what was read here."""
        counted = await self._counted(connection, self._lane, self._streams)
        if self._has_effects:
            effects = effects_key(self._lane)
            # The first effect may be emitted before any worker has started.
            await self._counted(connection, effects, (system_stream_key(effects),))
        if not self._has_lost(counted, self._place):
            # No takeover waits for this answer of the database.
            self._comparing = asyncio.create_task(self._compare(connection), name=f"place of {self._lane}")

    @staticmethod
    async def _counted(connection: RedisConnection, target: str, streams: Sequence[str]) -> RunsCounted:
        """What the counter of a target says now, which is made if there is none."""
        about = (connection.run, 1, NUMBER_MAX, RUNS_MAX)
        return counted_of(*await connection.run_script(GREET, (counter_key(target), *streams), *about))

    async def _compare(self, connection: RedisConnection) -> None:
        place = await self._settled_place()
        if place is not None:
            # The counter is asked after the database: more may have come meanwhile, and be settled.
            with suppress(BrokerUnavailable, redis.RedisError):  # the next connection compares again
                self._has_lost(await self._counted(connection, self._lane, self._streams), place)

    def _has_lost(self, counted: RunsCounted, place: RunPlace | None) -> bool:
        """Whether Redis has lost what was read or settled at this place; it is said then."""
        if place is None or (lost := counted.lost(place)) is None:
            return False
        self._place, self._gone = None, place
        report_lost(self._lane, lost)
        return True

    async def _settled_place(self) -> RunPlace | None:
        """Of the last command that the database has; None: it has none, or is away."""
        if self._last_place is None:
            return None
        place = None
        # Of a database that does not answer the lane says so itself.
        with suppress(Unavailable, ConfigurationError, TimeoutError):
            async with asyncio.timeout(PLACE_ASKED_S):
                place = place_in(await asyncio.to_thread(self._last_place))
        # It stays there until the lane settles another one.
        return None if place == self._gone else place

    async def _read(
        self,
        connection: RedisConnection,
        reading: RedisConnection,
        window: EntryWindow,
        channel_number: int,
        again_up_to: int,
    ) -> BrokerUnavailable:
        streams, numbers = MergedStreams(reading, *self._streams), NumbersRead(window.read_up_to)
        loop = asyncio.get_running_loop()
        while True:
            if window.room == 0:
                self._inbox.call_once_empty(partial(tell, loop, window.keep_back))
            await window.wait_for_room()
            for entry in await streams.next(window.room):
                if (missing := numbers.missing_before(entry)) is not None:
                    await self._report_missing(connection, missing)
                sent_at_s = min(time.time(), entry.sent_at_s or time.time())
                tag = window.delivered(entry, sent_at_s)
                # An entry that was added by hand has no number that was given out.
                place = RunPlace(connection.run, entry.number).text if entry.counted_bytes else None
                arrival = Arrival(now_ms(), 2 if entry.number <= again_up_to else 1, place)
                make: Callable[[], Delivery] = partial(delivery_of, entry, tag, self._settings, arrival)
                if len(entry.body) > self._settings.message_bytes_max:
                    # Until its turn comes only the kept part of it waits.
                    make = in_full(make)
                self._inbox.put(channel_number, make)
            if streams.has_unusable:
                last = await self._adopt(connection, window)
                streams.limit = max(NUMBER_MAX, last + 1)

    async def _renew(self, connection: RedisConnection, lease: LaneLease, window: EntryWindow) -> BrokerUnavailable:
        while True:
            await asyncio.sleep(lease.renew_s)
            if not await lease.renew(window.unsettled):
                return BrokerUnavailable("the lease of the lane is another consumer's")
            with suppress(redis.ResponseError):  # reading says what is wrong with a key
                waiting = await asyncio.gather(*(connection.call("XLEN", key) for key in self._streams))
                self._show_ready(sum(waiting))
                # While the window is full, nothing is read that would show it.
                await self._adopt(connection, window)

    async def _report_missing(self, connection: RedisConnection, missing: tuple[int, int]) -> None:
        last, jumps = await connection.call("HMGET", counter_key(self._lane), "last", "jumps")
        for first, until in given_out(missing, last, jumps):
            report_missing(self._lane, first, until)

    async def _adopt(self, connection: RedisConnection, window: EntryWindow) -> int:
        """Mend what strangers have spoiled, such that nothing could be added: return the last number."""
        keys = (counter_key(self._lane), *self._streams)
        return int(await connection.run_script(ADOPT, keys, NUMBER_MAX, window.read_up_to))

    def _show_ready(self, waiting: int) -> None:
        window = self._window
        READY.labels(self._lane).set(max(0, waiting - (0 if window is None else window.unsettled)))

    def _carry_out_now(self, channel_number: int, settlement: Settlement) -> None:
        self._outcomes.send(settlement.replies)
        is_current = channel_number == self._channel_number
        self._emit(settlement, is_current=is_current)
        if self._window is not None and is_current:
            self._window.settle(settlement.tags)

    def _new_emitting(self) -> RedisEmitted:
        return RedisEmitted(self._publisher, self._emitted_are_confirmed, self._broker.reconnect_delay_s, self._by)

    def _keep(self, channel_number: int, mark: Mark) -> None:
        if channel_number == self._channel_number:
            self._mark.keep(mark)

    def _publish(self, marker: CommandMessage) -> "asyncio.Future[None]":
        head = encoded_head(marker, {}, at=int(time.time()), by=self._by)
        return self._publisher.publish(self._lane, self._streams[1], head, marker.arguments)

    def _end_channel(self, channel_number: int) -> None:
        if channel_number == self._channel_number and self._window is not None:
            self._stands_back = True
            self._turn_is_over()

    def _hand_over(self, channel_number: int) -> None:
        if channel_number == self._channel_number and self._window is not None:
            self._stands_back = True
            # Redis is told of the mark before, on the connection on which the lease is given up.
            self._turn_is_over(HandedOver("the lane was given up"))

    def _turn_is_over(self, why: BrokerUnavailable | None = None) -> None:
        for connection in self._connections[1:]:
            connection.end_because(why or BrokerUnavailable("the lane was given up"))
