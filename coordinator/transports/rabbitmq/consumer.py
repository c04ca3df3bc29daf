"""The consumer of one lane's queue: a thread of its own for the broker's I/O, so that heartbeats never starve.

Three connections: one consumes and acknowledges, the others publish emitted commands, and outcomes, whose addresses
strangers choose. A broker under an alarm stops reading from connections that publish. The consumer's connection ends by
being aborted, never by a cancel, a nack or a close: those would reorder the queue (docs/ARCHITECTURE.md).

With its first delivery a consumer becomes the lane's active one. It first reads how far the lane has come, from the
queue of one message in which the active consumer keeps that. Then it also takes in the messages in the queues of dead
letters: those that the broker let expire, and the letters of older releases.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pika
import structlog

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.awaited import Late
from coordinator.runtime.clock import now_ms
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable, CoordinatorError
from coordinator.service.ids import new_command_id
from coordinator.service.outside_calls import effects_key
from coordinator.transports.consumer_thread import ConsumerThread, in_full
from coordinator.transports.inbox import Inbox
from coordinator.transports.not_sent import NotSent
from coordinator.transports.queue_gauges import OLDEST_AGE, READY, UNACKNOWLEDGED
from coordinator.transports.rabbitmq.acknowledgements import Acknowledgements
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.bindings import keep_bound, queue_of_dead_letters, queue_of_lane
from coordinator.transports.rabbitmq.emitted import EmittedCommands
from coordinator.transports.rabbitmq.incoming import dead_delivery_of, delivery_of
from coordinator.transports.rabbitmq.marks import KeptMark, read_mark
from coordinator.transports.rabbitmq.properties import app_id, command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.queue_watch import QueueWatch, sent_at_s
from coordinator.transports.rabbitmq.replies import Replies
from coordinator.transports.rabbitmq.topology import (
    SYSTEM_EXCHANGE,
    dead_queue_name,
    queue_name,
)
from coordinator.transports.reconnecting import HandedOver, Reconnecting

DEAD_PREFETCH = 50
FLUSH_S = 2.0
"""How long a consumer that stops waits for what it has told the broker last."""

log = structlog.get_logger("consumer")


class LaneConsumer(ConsumerThread):
    """Feeds a lane's inbox from its queue and carries out its settlements."""

    def __init__(
        self,
        lane: str,
        broker: BrokerSettings,
        inbox: Inbox,
        *,
        settings: LaneSettings,
        holder: str,
        has_effects: bool = False,
    ) -> None:
        super().__init__(lane, inbox)
        self._has_effects = has_effects
        self._broker = broker
        self._settings = settings
        self._holder = holder
        self._publisher = Publisher(broker, f"{holder} publish", (SYSTEM_EXCHANGE,), declares=True)
        # Outcomes go through the default exchange, to queues that strangers name: the broker's reaction to such a name
        # must not hold up the system's own messages.
        self._outcomes = Publisher(broker, f"{holder} outcomes", ("",), answers=True)
        self._replies = Replies(self._outcomes, NotSent(lane), settings.accounts.reply_queues)
        self._mark = KeptMark(self._publisher, lane)
        self._queue = QueueWatch(queue_name(lane), READY.labels(lane))
        self._app_id = app_id(f"coordinator.{lane}")
        self._reconnecting = Reconnecting(f"{holder} consume", broker)
        self._connection: AmqpConnection | None = None
        self._channel: AmqpChannel | None = None
        self._channel_number = 0
        self._acknowledgements: Acknowledgements | None = None
        self._is_active = asyncio.Event()
        self._handing_over: asyncio.Task[None] | None = None
        self._first: list[Callable[[], None]] | None = None
        """Deliveries that wait until the mark is read; None: it has been read."""

    @property
    def is_consuming(self) -> bool:
        """Whether the lane's commands arrive, or would if this consumer were the active one."""
        return self._reconnecting.connected.is_set()

    @property
    def unready_reason(self) -> str | None:
        if not self.is_consuming:
            return self._reconnecting.reason
        return next((each.unready_reason for each in (self._publisher, self._outcomes) if not each.is_healthy), None)

    @property
    def late(self) -> Late | None:
        waits = (self._publisher, self._outcomes, self._connection)
        return next(filter(None, (each.late for each in waits if each is not None)), None)

    async def _serve(self) -> None:
        """Run until `stop` is called, or one of the tasks ends; a task ends only by a failure."""
        publishing, answering = self._publisher.start(), self._outcomes.start()
        consuming = asyncio.create_task(self._keep_consuming(), name=f"consumer of {self._lane}")
        stopping = asyncio.create_task(self._stop.wait())
        tasks = (publishing, answering, consuming, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await self._flush_acknowledgements()
                await self._mark.sent(FLUSH_S)
        finally:
            self._stop_emitting()
            self._mark.stop()
            self._replies.stop()
            await end_tasks(*tasks)
            if self._connection is not None:
                self._connection.abort()
            await self._publisher.close()
            await self._outcomes.close()
            self._all_ended(tasks)

    async def _keep_consuming(self) -> None:
        await self._reconnecting.run(self._consume)

    async def _consume(self) -> BrokerUnavailable:
        """Consume until the connection is lost; first declare the queues again, which may have been deleted."""
        connection = await AmqpConnection.open(self._broker, f"{self._holder} consume")
        watching: asyncio.Task[None] | None = None
        beside: list[asyncio.Task[None]] = []
        try:
            channel = await connection.channel()
            await channel.declare_lane(self._lane, self._broker.queue_bytes_max)
            if self._has_effects:
                # The first effect may be emitted before any worker has started.
                await channel.declare_effects(self._lane, self._broker.queue_bytes_max)
            await channel.call(channel.raw.basic_qos, prefetch_count=self._settings.prefetch)
            await self._wait_for_outcomes(self._outcomes, connection)
            await self._mark.make_good(connection)
            channel_number = self._inbox.begin_channel()
            self._is_active.clear()
            self._first = []
            self._connection, self._channel, self._channel_number = connection, channel, channel_number
            self._begin_emitting()
            acknowledgements = self._acknowledgements = Acknowledgements(channel.raw, self._settings.prefetch)
            UNACKNOWLEDGED.labels(self._lane).set_function(lambda: acknowledgements.unacknowledged)
            OLDEST_AGE.labels(self._lane).set_function(lambda: acknowledgements.oldest_age_s(time.time()))
            await channel.consume(queue_name(self._lane), partial(self._on_message, channel_number, acknowledgements))
            self._reconnecting.is_up()
            self._say_consuming(channel_number, self._reconnecting.ended)
            self._wake_for_left()
            queues = queue_of_lane(self._lane), queue_of_dead_letters(self._lane)
            beside = [
                asyncio.create_task(self._queue.watch(connection), name=f"queue of {self._lane}"),
                asyncio.create_task(keep_bound(connection, queues), name=f"bindings of {self._lane}"),
            ]
            await self._look_until_active(connection, channel)
            if not connection.lost.done():
                await self._take_in_mark(connection, channel_number)
                await self._take_in_dead_letters(channel, channel_number, acknowledgements)
            watching = asyncio.create_task(self._mark.watch(connection), name=f"mark of {self._lane}")
            changes: set[asyncio.Future[Any]] = {watching, *beside, connection.lost}
            ended, _ = await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            if not connection.lost.done():
                # None ends by itself: this raises what has ended it.
                await next(iter(ended))
            return await asyncio.shield(connection.lost)
        finally:
            self._channel = None
            self._end_emitting()
            try:
                # One that went on would keep the mark of a lane that another consumer may have by now.
                await end_tasks(watching, self._handing_over, *beside)
            finally:
                self._mark.stop()
                await connection.end()

    async def _take_in_mark(self, connection: AmqpConnection, channel_number: int) -> None:
        """Tell the lane how far it has come, and then give it the deliveries that arrived meanwhile."""
        mark = await read_mark(connection, self._lane)
        self._mark.found(mark)
        if mark is not None:
            self._inbox.learn(mark)
        waiting, self._first = self._first or [], None
        if channel_number == self._channel_number:
            for put in waiting:
                put()

    @property
    def _dead_letter_targets(self) -> list[str]:
        return [self._lane, *([effects_key(self._lane)] if self._has_effects else [])]

    async def _look_until_active(self, connection: AmqpConnection, channel: AmqpChannel) -> None:
        """Return once this is the lane's active consumer; until then see that one of them takes in dead letters."""
        becoming_active = asyncio.create_task(self._is_active.wait())
        try:
            while not self._is_active.is_set() and not connection.lost.done():
                if await self._any_waits(channel, self._dead_letter_targets):
                    self._publish_marker(new_command_id())
                changes: set[asyncio.Future[Any]] = {becoming_active, connection.lost}
                await asyncio.wait(
                    changes,
                    timeout=self._settings.outbox_watch_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            await end_tasks(becoming_active)

    async def _take_in_dead_letters(
        self, channel: AmqpChannel, channel_number: int, acknowledgements: Acknowledgements
    ) -> None:
        # They may be as large as messages can be, so few of them are in memory at once.
        await channel.call(channel.raw.basic_qos, prefetch_count=DEAD_PREFETCH)
        for target in self._dead_letter_targets:
            await channel.consume(
                dead_queue_name(target), partial(self._on_dead_message, target, channel_number, acknowledgements)
            )

    async def _any_waits(self, channel: AmqpChannel, targets: Sequence[str]) -> bool:
        for target in targets:
            declared = await channel.call(channel.raw.queue_declare, queue=dead_queue_name(target), passive=True)
            if declared.method.message_count > 0:
                return True
        return False

    def _on_message(
        self,
        channel_number: int,
        acknowledgements: Acknowledgements,
        _: Any,
        method: Any,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        self._is_active.set()
        acknowledgements.delivered(method.delivery_tag, sent_at_s(method, properties, self._settings.accounts))
        decode = partial(delivery_of, method, properties, body, self._settings, now_ms())
        self._put(channel_number, decode, body)

    def _on_dead_message(
        self,
        target: str,
        channel_number: int,
        acknowledgements: Acknowledgements,
        _: Any,
        method: Any,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        acknowledgements.delivered(method.delivery_tag, sent_at_s(method, properties, self._settings.accounts))
        decode = partial(dead_delivery_of, target, method, properties, body, self._settings, now_ms())
        self._put(channel_number, decode, body)

    def _put(self, channel_number: int, decode: Callable[[], Delivery], body: bytes) -> None:
        if len(body) > self._settings.message_bytes_max:
            # Until its turn comes only the kept part of it waits: there may be as many of them as the prefetch allows.
            decode = in_full(decode)
        if self._first is None:
            self._inbox.put(channel_number, decode)
        else:
            self._first.append(partial(self._inbox.put, channel_number, decode))

    def _carry_out_now(self, channel_number: int, settlement: Settlement) -> None:
        self._replies.send(settlement.replies)
        is_current = channel_number == self._channel_number
        self._emit(settlement, is_current=is_current)
        acknowledgements = self._acknowledgements
        if acknowledgements is not None and is_current:
            acknowledgements.acknowledge(settlement.tags)

    async def _flush_acknowledgements(self) -> None:
        """Give the acknowledgements time to arrive: the channel answers after it has read them.

        The answer does not prove that the queue has taken them. If one is lost, a settled command is delivered again,
        and the command log answers it.
        """
        channel, acknowledgements = self._channel, self._acknowledgements
        if channel is not None and acknowledgements is not None:
            acknowledgements.flush()
            try:
                async with asyncio.timeout(FLUSH_S):
                    await channel.call(channel.raw.queue_declare, queue=queue_name(self._lane), passive=True)
            except (CoordinatorError, TimeoutError):
                log.warning("acknowledgements_unsure", lane=self._lane)

    def _new_emitting(self) -> EmittedCommands:
        return EmittedCommands(
            self._publisher, self._emitted_are_confirmed, self._broker.reconnect_delay_s, self._app_id
        )

    def _keep(self, channel_number: int, mark: Mark) -> None:
        if channel_number == self._channel_number:
            self._mark.keep(mark)

    def _publish(self, marker: CommandMessage) -> "asyncio.Future[None]":
        properties = command_properties(marker, {}, timestamp=int(time.time()), app_id=self._app_id)
        return self._publisher.publish(SYSTEM_EXCHANGE, self._lane, properties, marker.arguments)

    def _end_channel(self, channel_number: int) -> None:
        if channel_number == self._channel_number and self._connection is not None:
            self._connection.abort()

    def _hand_over(self, channel_number: int) -> None:
        connection = self._connection
        if channel_number == self._channel_number and connection is not None and not connection.lost.done():
            self._handing_over = asyncio.create_task(self._end_once_kept(connection), name=f"end of {self._lane}")

    async def _end_once_kept(self, connection: AmqpConnection) -> None:
        await self._mark.kept()
        connection.end_because(HandedOver("the lane was given up"))
