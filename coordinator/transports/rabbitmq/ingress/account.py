"""Hands on the messages of one outside account: from its queue to the exchange for everybody, in their order.

One message is on its way at a time. A queue that is full may refuse one and take the next, and the order would be
another; so the next is published once the one before it is confirmed, and acknowledged only then. Whatever dies before
that leaves it to the next consumer, which publishes it again with the same id, and the lane answers the repetition.

Two processes may hand on the same messages for a moment, where one does not know yet that its connection is lost. Each
does so in their order, so the first copies that the lane gets are in that order, too.

Each account has connections and a task of its own: what one account sends, or its queue meets, holds up no other.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import pika
import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge

from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings, IngressSettings
from coordinator.service.errors import (
    BrokerUnavailable,
    CoordinatorError,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
)
from coordinator.transports.rabbitmq.acknowledgements import Acknowledgements
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.bindings import BoundQueue, keep_bound
from coordinator.transports.rabbitmq.driver_arguments import user_of
from coordinator.transports.rabbitmq.ingress.carrying import Carrying, cost_of
from coordinator.transports.rabbitmq.ingress.holds import Hold, Holds
from coordinator.transports.rabbitmq.ingress.pace import Pace
from coordinator.transports.rabbitmq.ingress.queue_looks import QueueLooks
from coordinator.transports.rabbitmq.ingress.sent_bytes import SentBytes
from coordinator.transports.rabbitmq.ingress.topology import ingress_name, ingress_queue_arguments
from coordinator.transports.rabbitmq.properties import app_id
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.queue_watch import QueueWatch
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from coordinator.transports.reconnecting import HandedOver, Reconnecting

HANDED_ON: Final = Counter(
    "coordinator_ingress_messages_total", "Messages of the account that are with their lane.", ["account", "lane"]
)
UNREADABLE: Final = Counter(
    "coordinator_ingress_unreadable_total",
    "Messages of the account that could not be published with their own properties.",
    ["account"],
)
WAITING: Final = Gauge(
    "coordinator_ingress_ready_messages", "Messages of the account's queue that no ingress holds.", ["account"]
)
_PAUSE_S: Final = 0.02
_PAUSE_S_MAX: Final = 1.0
"""The first and the longest pause before a message that no queue has taken is published again."""
_CONFIRM_S: Final = 30.0
"""A confirm that takes longer is waited for with another publish."""
_HELD_S_MAX: Final = 1200.0
"""RabbitMQ ends a consumer that acknowledges nothing for 30 minutes, and may put its messages back in another order:
before that the connection is aborted, which keeps it."""
_FLUSH_S: Final = 2.0

log = structlog.get_logger("ingress")


class _OfAccount(Struct, frozen=True):
    """A message of the account, which waits here."""

    tag: int
    exchange: str
    lane: str
    properties: Any
    body: bytes
    at_s: float


class IngressAccount:
    """One account. Used within one event loop."""

    def __init__(self, account: str, lanes: Sequence[str], broker: BrokerSettings, settings: IngressSettings) -> None:
        self.account = account
        self.holds = Holds(account)
        self._lanes = frozenset(lanes)
        self._broker = broker
        self._settings = settings
        name = f"ingress {account}"
        user = user_of(broker)
        self._publisher = Publisher(broker, f"{name} publish", (WRITES_EXCHANGE,), user=user)
        self._reconnecting = Reconnecting(name, broker)
        self._carrying = Carrying(account, user, app_id(name))
        self._pace = Pace(settings)
        self._sent = SentBytes(settings.lane_ready_max)
        self._queue = QueueWatch(ingress_name(account), WAITING.labels(account))
        self._stop = asyncio.Event()
        # A counter that begins with its first message has not grown, for whoever is to be alarmed by it.
        UNREADABLE.labels(account)
        self._connection: AmqpConnection | None = None
        self._channel: AmqpChannel | None = None
        self._acknowledgements: Acknowledgements | None = None
        self._handing: asyncio.Task[None] | None = None
        self._consuming: asyncio.Task[Any] | None = None

    @property
    def unready_reason(self) -> str | None:
        """Why nothing of the account can go on; None: the broker is there."""
        if not self._reconnecting.connected.is_set():
            return self._reconnecting.reason
        if not self._publisher.is_healthy:
            return self._publisher.unready_reason
        late = self._publisher.late or (None if self._connection is None else self._connection.late)
        return None if late is None else str(late)

    @property
    def trouble(self) -> str | None:
        """Why its next message waits, if it does."""
        return None if self.holds.now is None else self.holds.now.words

    def start(self) -> "Sequence[asyncio.Future[Any]]":
        """Begin. A task ends by a defect, or by a ConfigurationError."""
        self._consuming = asyncio.create_task(self._reconnecting.run(self._consume), name=f"ingress of {self.account}")
        return [self._publisher.start(), self._consuming]

    async def stop(self, timeout_s: float) -> None:
        """Finish the message that is on its way, acknowledge, and leave the others to the next consumer."""
        self._stop.set()
        if self._handing is not None:
            await asyncio.wait({self._handing}, timeout=timeout_s)
        await self._flush_acknowledgements()
        await end_tasks(self._consuming)
        await self._publisher.close()

    async def _consume(self) -> BrokerUnavailable:
        """Consume until the connection is lost; first declare the exchange and the queue, which may be deleted."""
        connection = self._connection = await AmqpConnection.open(self._broker, f"ingress {self.account}")
        beside: list[asyncio.Task[None]] = []
        try:
            channel = await connection.channel()
            await self._declare(channel)
            prefetch = self._settings.account_in_flight_max
            await channel.call(channel.raw.basic_qos, prefetch_count=prefetch)
            acknowledgements = Acknowledgements(channel.raw, prefetch)
            arrived: asyncio.Queue[_OfAccount] = asyncio.Queue()

            def take(_: Any, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
                tag = method.delivery_tag
                acknowledgements.delivered(tag, time.time())
                arrived.put_nowait(
                    _OfAccount(tag, method.exchange, method.routing_key, properties, body, time.monotonic())
                )

            await channel.consume(ingress_name(self.account), take)
            self._channel, self._acknowledgements = channel, acknowledgements
            self._reconnecting.is_up()
            log.info("consuming", account=self.account)
            self._handing = asyncio.create_task(
                self._hand_on(connection, arrived, acknowledgements), name=f"messages of {self.account}"
            )
            beside = [
                self._handing,
                asyncio.create_task(
                    keep_bound(connection, self._bound, self._declare_exchange), name=f"bindings of {self.account}"
                ),
                asyncio.create_task(self._queue.watch(connection), name=f"queue of {self.account}"),
            ]
            changes: set[asyncio.Future[Any]] = {*beside, connection.lost}
            ended, _ = await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            if not (connection.lost.done() or self._stop.is_set()):
                # None ends by itself before: this raises what has ended it.
                await next(iter(ended))
            return await asyncio.shield(connection.lost)
        finally:
            self._channel = self._acknowledgements = None
            try:
                # Of what this connection has brought, the next consumer is to hand on the rest.
                await end_tasks(*beside)
            finally:
                await connection.end()

    @property
    def _bound(self) -> list[BoundQueue]:
        name = ingress_name(self.account)
        return [BoundQueue(name, lane, (name,)) for lane in sorted(self._lanes)]

    async def _declare(self, channel: AmqpChannel) -> None:
        name = ingress_name(self.account)
        await self._declare_exchange(channel)
        arguments = ingress_queue_arguments(self._settings)
        await channel.call(channel.raw.queue_declare, queue=name, durable=True, arguments=arguments)
        for lane in sorted(self._lanes):
            await channel.call(channel.raw.queue_bind, queue=name, exchange=name, routing_key=lane)

    async def _declare_exchange(self, channel: AmqpChannel) -> None:
        name = ingress_name(self.account)
        await channel.call(channel.raw.exchange_declare, exchange=name, exchange_type="direct", durable=True)

    async def _hand_on(
        self, connection: AmqpConnection, arrived: "asyncio.Queue[_OfAccount]", acknowledgements: Acknowledgements
    ) -> None:
        """Hand on what arrives, one after the other, until it is cancelled, or this stops."""
        looks = QueueLooks(connection)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not self._stop.is_set():
                if arrived.empty():
                    coming = asyncio.create_task(arrived.get())
                    await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        await end_tasks(coming)
                        return
                    message = coming.result()
                else:
                    message = arrived.get_nowait()
                if await self._is_handed_on(connection, looks, message):
                    acknowledgements.acknowledge([message.tag])
        except BrokerUnavailable:
            # The connection is being lost, which says so itself.
            await asyncio.shield(connection.lost)
        finally:
            self.holds.leave()
            await end_tasks(stopping)

    async def _is_handed_on(self, connection: AmqpConnection, looks: QueueLooks, message: _OfAccount) -> bool:
        """Hand on one message, however long that takes. False: this stops, and the message is left."""
        cost = cost_of(message.properties, message.body)
        while (wait_s := self._pace.take(cost)) is not None:
            self.holds.begin(Hold("rate", f"{self.account} sends more than INGRESS_ACCOUNT_RATE_MAX"))
            if not await self._paused(connection, message, wait_s):
                return False
        properties = self._carrying.carried(message.exchange, message.properties, int(time.time()))
        pause_s = _PAUSE_S
        is_its_own = True
        while not self._stop.is_set():
            hold = await self._hold_before(looks, message.lane) or await self._published(message, properties)
            if hold is None:
                HANDED_ON.labels(self.account, message.lane).inc()
                looks.note_sent(message.lane)
                self._sent.note(message.lane, len(message.body))
                self.holds.end()
                return True
            if hold.cause == "refused" and is_its_own:
                is_its_own = False
                UNREADABLE.labels(self.account).inc()
                log.warning("ingress_unreadable", account=self.account, lane=message.lane, why=hold.words)
                properties = self._carrying.unreadable(
                    message.exchange, message.properties, int(time.time()), hold.words
                )
                continue
            self.holds.begin(hold)
            if not await self._paused(connection, message, pause_s):
                return False
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)
        return False

    async def _hold_before(self, looks: QueueLooks, lane: str) -> Hold | None:
        """Why a message for this lane is not even published now."""
        if lane not in self._lanes:
            # RabbitMQ has a header CC, by which a message comes into the queue whatever its routing key is.
            return Hold("lane_missing", f"the application has no lane {lane!a:.100}")
        if not self._publisher.takes_messages:
            return Hold("broker", self._publisher.unready_reason)
        ready = await looks.ready(lane)
        if ready == "missing":
            return Hold("lane_missing", f"the queue of {lane} is not there: has its coordinator ever run?")
        return None if ready is None else self._busy(lane, ready)

    def _busy(self, lane: str, ready: int) -> Hold | None:
        """Why a lane that has so many messages is left to its other clients."""
        if ready >= self._settings.lane_ready_max:
            return Hold("lane_busy", f"{ready} messages wait in the queue of {lane} (INGRESS_LANE_READY_MAX)")
        waiting = self._sent.waiting_max(lane, ready)
        if waiting >= self._settings.lane_ready_bytes_max:
            name = "INGRESS_LANE_READY_BYTES_MAX"
            return Hold("lane_busy", f"{waiting} bytes of {self.account} may wait in the queue of {lane} ({name})")
        return None

    async def _published(self, message: _OfAccount, properties: pika.BasicProperties) -> Hold | None:
        """Publish; None: the lane's queue has it."""
        try:
            async with asyncio.timeout(_CONFIRM_S):
                await self._publisher.publish(WRITES_EXCHANGE, message.lane, properties, message.body)
        except TimeoutError:
            return Hold("broker", f"RabbitMQ did not confirm a message for {message.lane} within {_CONFIRM_S:g} s")
        except InvalidCommand as error:
            return Hold("refused", str(error))
        except Overloaded as error:
            return Hold("lane_full", str(error))
        except OutcomeUnknown as error:
            # It may be there: once more, with the same id.
            return Hold("broker", str(error))
        except BrokerUnavailable as error:
            return Hold("lane_missing" if self._publisher.is_ready else "broker", str(error))
        return None

    async def _paused(self, connection: AmqpConnection, message: _OfAccount, pause_s: float) -> bool:
        """Pause before another try. False: this stops."""
        if time.monotonic() - message.at_s > _HELD_S_MAX:
            connection.end_because(HandedOver(f"its messages have waited for {_HELD_S_MAX:g} s: they come again"))
            await asyncio.shield(connection.lost)
        try:
            async with asyncio.timeout(pause_s):
                await self._stop.wait()
        except TimeoutError:
            return True
        return False

    async def _flush_acknowledgements(self) -> None:
        """Give the acknowledgements time to arrive: the channel answers after it has read them."""
        channel, acknowledgements = self._channel, self._acknowledgements
        if channel is not None and acknowledgements is not None:
            acknowledgements.flush()
            try:
                async with asyncio.timeout(_FLUSH_S):
                    await channel.call(channel.raw.queue_declare, queue=ingress_name(self.account), passive=True)
            except (CoordinatorError, TimeoutError):
                log.warning("acknowledgements_unsure", account=self.account)
