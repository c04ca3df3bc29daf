"""The consumer of one lane's queue: a thread of its own for the broker's I/O, so that heartbeats never starve.

Two connections: one consumes and acknowledges, the other publishes outcomes, dead letters and emitted commands, since
a broker under an alarm stops reading from connections that publish. The consumer's connection ends by being aborted,
never by a cancel, a nack or a close: those would reorder the queue (docs/ARCHITECTURE.md).
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pika
import structlog

from coordinator.inbox import Inbox
from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery, Reply, Settlement
from coordinator.rabbitmq.acknowledgements import Acknowledgements
from coordinator.rabbitmq.dead_letters import PERSISTENT, publish_dead
from shared.errors import BrokerUnavailable, ConfigurationError, CoordinatorError
from shared.event_loop import new_event_loop
from shared.lane_tables import OutboxEntry
from shared.messaging.amqp import AmqpChannel, AmqpConnection
from shared.messaging.outcome import encode_outcome, encode_outcomes
from shared.messaging.publisher import Publisher
from shared.messaging.topology import WRITES_EXCHANGE, queue_name
from shared.messaging.wire import (
    HEADER_CONTINUATION,
    HEADER_REPLY_PACKS,
    JSON_CONTENT,
    PACK_CONTENT,
    decode,
    envelope_of,
)
from shared.settings import BrokerSettings, LaneSettings

TRANSIENT = 1
REPLY_OUTCOMES_MAX = 500

log = structlog.get_logger("consumer")


class LaneConsumer:
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
        self._lane = lane
        self._has_effects = has_effects
        self._broker = broker
        self._inbox = inbox
        self._settings = settings
        self._holder = holder
        self._on_emitted_confirmed: Callable[[Sequence[OutboxEntry]], None] = _ignore
        self._loop = new_event_loop()
        self._publisher = Publisher(broker, f"{holder} publish")
        self._connection: AmqpConnection | None = None
        self._channel: AmqpChannel | None = None
        self._generation = 0
        self._acknowledgements: Acknowledgements | None = None
        self._settlements: asyncio.Queue[tuple[int, Settlement]] = asyncio.Queue()
        self._settlements_waiting = 0
        self._stop: asyncio.Event = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"broker {lane}", daemon=True)
        self.failure: ConfigurationError | None = None
        self.is_consuming = False

    def start(self, on_emitted_confirmed: Callable[[Sequence[OutboxEntry]], None]) -> None:
        """Connect, consume, and connect again whenever a connection is lost.

        `on_emitted_confirmed` is called, by the broker's thread, with emitted commands that the broker has safe.
        """
        self._on_emitted_confirmed = on_emitted_confirmed
        self._thread.start()

    def settle(self, generation: int, settlement: Settlement) -> None:
        """Carry out a settlement, in the order of the calls. Called by the lane's thread."""
        self._loop.call_soon_threadsafe(self._carry_out, generation, settlement)

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish commands that handlers emitted. Called by the lane's thread."""
        self._loop.call_soon_threadsafe(self._publish_emitted, list(entries))

    def wake(self, command_id: str) -> None:
        """Have a marker of this id delivered to whichever consumer of the lane is the active one."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._publish_marker, command_id)

    def stand_by(self, generation: int) -> None:
        """Drop the connection of this generation and queue up behind the other consumers."""
        self._loop.call_soon_threadsafe(self._abort, generation)

    def stop(self, timeout_s: float) -> bool:
        """Finish the settlements that were given, then abort. False: that took longer than the timeout."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._publisher.start()
        consuming = asyncio.create_task(self._keep_consuming())
        settling = asyncio.create_task(self._settle_all())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({consuming, settling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                finished = asyncio.create_task(self._settlements.join())
                # Settling may end in an error, and then never finishes.
                await asyncio.wait({finished, settling}, return_when=asyncio.FIRST_COMPLETED)
                finished.cancel()
                await self._flush_acknowledgements()
        finally:
            for task in (consuming, settling, stopping):
                task.cancel()
            results = await asyncio.gather(consuming, settling, stopping, return_exceptions=True)
            if self._connection is not None:
                self._connection.abort()
            await self._publisher.close()
            for result in results:
                if isinstance(result, ConfigurationError):
                    self.failure = result
                elif isinstance(result, Exception):
                    log.error("consumer_failed", lane=self._lane, exc_info=result)
            self._inbox.close()

    async def _keep_consuming(self) -> None:
        while True:
            try:
                await self._consume()
            except BrokerUnavailable as error:
                log.warning("broker_unavailable", connection=f"{self._holder} consume", error=str(error))
            await asyncio.sleep(self._broker.reconnect_delay_s)

    async def _consume(self) -> None:
        """Consume until the connection is lost."""
        connection = await AmqpConnection.open(self._broker, f"{self._holder} consume")
        try:
            channel = await connection.channel()
            await channel.declare_lane(self._lane, self._broker.queue_bytes_max)
            if self._has_effects:
                # Their first may be emitted before any worker has been there.
                await channel.declare_effects(self._lane, self._broker.queue_bytes_max)
            await channel.call(channel.raw.basic_qos, prefetch_count=self._settings.prefetch)
            generation = self._inbox.begin_generation()
            self._connection, self._channel, self._generation = connection, channel, generation
            acknowledgements = self._acknowledgements = Acknowledgements(channel.raw, self._settings.prefetch)
            await channel.call(
                channel.raw.basic_consume,
                queue_name(self._lane),
                on_message_callback=partial(self._on_message, generation, acknowledgements),
            )
            self.is_consuming = True
            log.info("consuming", lane=self._lane, generation=generation)
            reason = await asyncio.shield(connection.lost)
            log.warning("broker_connection_lost", connection=f"{self._holder} consume", error=str(reason))
        finally:
            self.is_consuming = False
            self._channel = None
            connection.abort()

    def _on_message(
        self,
        generation: int,
        acknowledgements: Acknowledgements,
        _: Any,
        method: Any,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        acknowledgements.delivered(method.delivery_tag)
        self._inbox.put(generation, partial(_delivery, method, properties, body, self._settings.message_bytes_max))

    def _carry_out(self, generation: int, settlement: Settlement) -> None:
        """At once, unless dead letters must be confirmed first, its own or those of one before."""
        if settlement.dead_letters or self._settlements_waiting:
            self._settlements_waiting += 1
            self._settlements.put_nowait((generation, settlement))
            return
        try:
            self._finish(generation, settlement)
        except Exception:
            # What is not settled here never is: another process must have the deliveries.
            log.exception("settlement_failed", lane=self._lane)
            self._stop.set()

    async def _settle_all(self) -> None:
        while True:
            generation, settlement = await self._settlements.get()
            for letter in settlement.dead_letters:
                await publish_dead(self._publisher, self._lane, letter, self._broker.reconnect_delay_s)
            self._finish(generation, settlement)
            self._settlements_waiting -= 1
            self._settlements.task_done()

    def _finish(self, generation: int, settlement: Settlement) -> None:
        """Outcomes first, since somebody waits for them."""
        self._send_replies(settlement.replies)
        self._publish_emitted(settlement.emitted)
        acknowledgements = self._acknowledgements
        if acknowledgements is not None and generation == self._generation:
            acknowledgements.settled(settlement.tags)
            if settlement.dead_letters:
                # Not to be dead-lettered again for want of ten milliseconds.
                acknowledgements.flush()

    async def _flush_acknowledgements(self) -> None:
        """Give the acknowledgements time to arrive: the channel answers after it has read them.

        Whether the queue has taken them too, the answer does not prove. One that is lost means that a settled command
        is delivered again, which the command log answers.
        """
        channel, acknowledgements = self._channel, self._acknowledgements
        if channel is not None and acknowledgements is not None:
            acknowledgements.flush()
            try:
                async with asyncio.timeout(2.0):
                    await channel.call(channel.raw.queue_declare, queue=queue_name(self._lane), passive=True)
            except (CoordinatorError, TimeoutError):
                log.warning("acknowledgements_unsure", lane=self._lane)

    def _send_replies(self, replies: Sequence[Reply]) -> None:
        """Outcomes are sent once and without a confirm: whoever misses one finds it in the command log."""
        packs: defaultdict[str, list[Reply]] = defaultdict(list)
        for reply in replies:
            if reply.packed:
                packs[reply.reply_to].append(reply)
                continue
            for outcome in reply.outcomes:
                self._send_reply(reply.reply_to, reply.correlation_id, JSON_CONTENT, encode_outcome(outcome))
        for reply_to, several in packs.items():
            outcomes = [outcome for reply in several for outcome in reply.outcomes]
            # Of several messages, the ids tell whose each outcome is.
            correlation_id = several[0].correlation_id if len(several) == 1 else None
            for start in range(0, len(outcomes), REPLY_OUTCOMES_MAX):
                body = encode_outcomes(outcomes[start : start + REPLY_OUTCOMES_MAX])
                self._send_reply(reply_to, correlation_id, PACK_CONTENT, body)

    def _send_reply(self, reply_to: str, correlation_id: str | None, content_type: str, body: bytes) -> None:
        properties = pika.BasicProperties(
            content_type=content_type, correlation_id=correlation_id, delivery_mode=TRANSIENT
        )
        if not self._publisher.send(reply_to, properties, body):
            log.warning("outcome_not_sent", lane=self._lane, reply_to=reply_to)

    def _publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        for entry in entries:
            properties = pika.BasicProperties(
                message_id=entry.command_id,
                type=entry.type,
                content_type=JSON_CONTENT,
                delivery_mode=PERSISTENT,
                headers={} if entry.continuation is None else {HEADER_CONTINUATION: entry.continuation},
            )
            confirm = self._publisher.publish(WRITES_EXCHANGE, entry.lane, properties, entry.arguments)
            confirm.add_done_callback(partial(self._on_emitted, entry))

    def _on_emitted(self, entry: OutboxEntry, confirm: "asyncio.Future[None]") -> None:
        if confirm.cancelled():
            return
        error = confirm.exception()
        if error is None:
            self._on_emitted_confirmed([entry])
            return
        log.error("emitted_command_not_taken", lane=entry.lane, command_id=entry.command_id, error=str(error))
        if not self._stop.is_set():
            self._loop.call_later(self._broker.reconnect_delay_s, self._publish_emitted, [entry])

    def _publish_marker(self, command_id: str) -> None:
        properties = pika.BasicProperties(
            message_id=command_id, type=Marker.type, content_type=JSON_CONTENT, delivery_mode=PERSISTENT
        )
        confirm = self._publisher.publish(WRITES_EXCHANGE, self._lane, properties, b"{}")
        # Whether it arrived shows at the next look.
        confirm.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _abort(self, generation: int) -> None:
        if generation == self._generation and self._connection is not None:
            self._connection.abort()


def _ignore(_: Sequence[OutboxEntry]) -> None:
    """Before the start nothing is emitted."""


def _delivery(method: Any, properties: pika.BasicProperties, body: bytes, bytes_max: int) -> Delivery:
    envelope = envelope_of(properties)
    return Delivery(
        tag=method.delivery_tag,
        commands=decode(envelope, body, bytes_max),
        size_bytes=len(body),
        redelivered=bool(method.redelivered),
        reply_to=_text(properties.reply_to),
        correlation_id=_text(properties.correlation_id),
        reply_packs=envelope.headers.get(HEADER_REPLY_PACKS) in (True, "true", 1),
    )


def _text(value: object) -> str | None:
    """pika leaves text that is not UTF-8 as bytes: that names no queue of anybody's."""
    return value if isinstance(value, str) else None
