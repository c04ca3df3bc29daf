"""A publisher that keeps itself connected, waits for confirms, and repeats unconfirmed messages in order.

Its connection only publishes: a broker under a memory or disk alarm stops reading from connections that publish, and
acknowledgements on the same one would stop with them.

A message that makes the broker close the channel would do so again on each new connection, and take all others with
it. So after such an end the waiting messages are sent one by one, until the one that stood alone is known to be the
cause: it fails, and the others go through.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import pika
from pika.channel import Channel
from pika.exceptions import ChannelWrongStateError, ConnectionWrongStateError

from coordinator.runtime.awaited import LATE_S, Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, InvalidCommand, OutcomeUnknown, Overloaded
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY_PREFIX, DirectReplies
from coordinator.transports.rabbitmq.doubts import Doubts
from coordinator.transports.rabbitmq.driver_arguments import broker_address, broker_addresses, broker_parameters
from coordinator.transports.rabbitmq.errors import ACCESS_REFUSED, BLAMED, NOT_FOUND, ClosedByBroker
from coordinator.transports.rabbitmq.unconfirmed import Unconfirmed
from coordinator.transports.reconnecting import Reconnecting

_TAKES_NOTHING = "takes no messages: a memory or disk alarm"
BRIDGED_S = 2.0
"""How long after a loss messages wait for the next connection: longer than a cluster takes that has lost a node."""
REFUSED_DELAY_S = 0.05
"""Pause before a message that a full queue refused is sent again."""
UNSENT_BYTES_MAX = 16 << 20
"""Messages without a confirm are refused while this many bytes wait for the broker to read, as they do if a queue is
slower than we are. This is much more than a settlement's outcomes usually have, and little for a process."""


class Publisher:
    """Publishes persistent messages with confirms, and others without. Used within one event loop.

    It is ready only while `exchanges` exist and take its messages; with `declares` it declares them itself.
    With `answers` it also sends to RabbitMQ's direct reply-to. `user` is the account that its messages name, if any.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        name: str,
        exchanges: Sequence[str] = (),
        *,
        declares: bool = False,
        answers: bool = False,
        user: str | None = None,
    ) -> None:
        # A malformed address ends the process, whether or not the broker can be reached.
        self._addresses = broker_addresses(broker_parameters(settings, name))
        self._settings = settings
        self._name = name
        self._exchanges = exchanges
        self._declares = declares
        self._answers = answers
        self._user = user
        self._direct: DirectReplies | None = None
        self._reconnecting = Reconnecting(name, settings)
        self._connection: AmqpConnection | None = None
        self._confirmed: Channel | None = None
        self._plain: Channel | None = None
        self._next_number = 1
        self._waiting: dict[int, Unconfirmed] = {}
        self._by_tag: dict[int, Unconfirmed] = {}
        self._next_tag = 1
        self._one_by_one: deque[Unconfirmed] | None = None
        self._must_find_cause = False
        self._bridging: asyncio.TimerHandle | None = None
        self._doubts = Doubts()
        self._task: asyncio.Task[NoReturn] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it is connected, and the broker takes messages."""
        return self._confirmed is not None and self._connection is not None and not self._connection.is_blocked

    @property
    def takes_messages(self) -> bool:
        """Whether it is ready, or has lost its connection only now: another node may take the next one at once.

        A message that is given to it meanwhile and could not be sent within `BRIDGED_S` of the loss fails with
        BrokerUnavailable.
        """
        is_being_lost = self._connection is not None and self._confirmed is None
        return self.is_ready or is_being_lost or self._bridging is not None

    @property
    def is_healthy(self) -> bool:
        return self.is_ready or (self._doubts.is_looking and self.takes_messages)

    @property
    def is_blocked(self) -> bool:
        """Whether it is connected, but the broker is under a memory or disk alarm and takes nothing."""
        return self._connection is not None and self._connection.is_blocked

    @property
    def late(self) -> Late | None:
        """The confirm of the oldest message on its way, or a sign of the connection's life, if it is late.

        For any thread.
        """
        with suppress(RuntimeError):  # another thread is at them just now: they are being confirmed
            oldest = next(iter(self._by_tag.values()), None) if self.is_ready else None
            if oldest is not None and (waited_s := time.monotonic() - oldest.sent_at_s) >= LATE_S:
                return Late("RabbitMQ (confirm)", oldest.sent_at_s, waited_s)
        connection = self._connection
        return None if connection is None else connection.late

    @property
    def problem(self) -> str:
        """Why it is not ready, in words for anybody."""
        return f"the broker {_TAKES_NOTHING}" if self.is_blocked else self._reconnecting.problem

    @property
    def unready_reason(self) -> str:
        """Why it is not ready, naming the hosts and ports of the broker."""
        if self._connection is not None and self._connection.is_blocked:
            return f"RabbitMQ at {broker_address(self._connection.parameters)} {_TAKES_NOTHING}"
        return f"nothing can be published to RabbitMQ at {self._addresses}: {self._reconnecting.reason}"

    def start(self) -> "asyncio.Task[NoReturn]":
        """Connect in the background, and again whenever the connection is lost.

        The task ends by a defect, or by a ConfigurationError: then it publishes no more, and its process must end too.
        """
        self._task = asyncio.create_task(self._reconnecting.run(self._serve), name=f"publisher {self._name}")
        return self._task

    async def wait_ready(self) -> None:
        """Return once connected."""
        await self._reconnecting.connected.wait()

    async def close(self) -> None:
        """Disconnect. Unconfirmed messages fail with OutcomeUnknown, unsent ones with BrokerUnavailable."""
        await end_tasks(self._task)
        self._end_bridge()
        for waiting in list(self._waiting.values()):
            kind = OutcomeUnknown if waiting.times_sent else BrokerUnavailable
            _fail(waiting.future, kind("the publisher was closed"))
        self._waiting.clear()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        properties: pika.BasicProperties,
        body: bytes,
        *,
        repeat_refused: bool = False,
    ) -> "asyncio.Future[None]":
        """Publish; the future is done when the broker has the message safe on disk.

        While there is no connection the message waits for one. It is sent again, in order, after a lost connection,
        so it may arrive twice. Cancelling the future stops that. The future fails with BrokerUnavailable when no
        queue takes the message, with Overloaded when the queue is full, with OutcomeUnknown if an earlier sending
        may have been taken; with `repeat_refused` the message is sent again instead, until the future is cancelled. It
        fails with BrokerUnavailable if the exchange does not exist or we may not write to it, and with InvalidCommand
        if it cannot be put into a message or the broker refuses it.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = Unconfirmed(
            self._next_number, exchange, routing_key, properties, body, future, is_repeated=repeat_refused
        )
        self._next_number += 1
        self._waiting[waiting.number] = waiting
        if self._one_by_one is not None:
            self._one_by_one.append(waiting)
            self._send_next()
        elif self._confirmed is not None:
            self._send(self._confirmed, waiting)
        return future

    def send(self, routing_key: str, properties: pika.BasicProperties, body: bytes) -> bool:
        """Publish to a queue by its name, without a confirm. Never raises.

        False: nothing was sent. There is no connection, or the broker reads too slowly from it, or not at all; or the
        body or the name, which a stranger may have chosen, cannot be published.
        """
        connection = self._connection
        if self._plain is None or connection is None:
            return False
        if connection.is_blocked or connection.unsent_bytes > UNSENT_BYTES_MAX:
            return False
        if routing_key.startswith(DIRECT_REPLY_PREFIX) and not (self._direct and self._direct.takes(routing_key)):
            return False
        try:
            self._plain.basic_publish("", routing_key, body, properties)
        except Exception:  # noqa: BLE001  # pika raises whatever the encoding of a text or a number raises
            return False
        return True

    def _send(self, channel: Channel, waiting: Unconfirmed) -> None:
        # The number travels as a header so that a return, which comes without the tag, can be told apart.
        headers = waiting.properties.headers or {}
        headers["publish-number"] = waiting.number
        waiting.properties.headers = headers
        waiting.is_returned = False
        waiting.times_sent += 1
        waiting.sent_at_s = time.monotonic()
        try:
            channel.basic_publish(
                waiting.exchange, waiting.routing_key, waiting.body, waiting.properties, mandatory=True
            )
        except (ChannelWrongStateError, ConnectionWrongStateError):
            # The connection is being lost: the message, which nobody was given, is sent on the next one.
            waiting.times_sent -= 1
            self._confirmed = None
            return
        except Exception as error:  # noqa: BLE001  # pika raises whatever the encoding of a text or a number raises
            self._refuse(waiting, f"{type(error).__name__}: {error}")
            return
        self._by_tag[self._next_tag] = waiting
        self._next_tag += 1

    def _send_next(self) -> None:
        """Send the next message once the one before is confirmed, while the cause of a closed channel is looked for."""
        while self._one_by_one is not None and self._confirmed is not None and not self._by_tag:
            if not self._one_by_one:
                self._one_by_one = None
                return
            waiting = self._one_by_one.popleft()
            if waiting.future.cancelled():
                self._waiting.pop(waiting.number, None)
            else:
                self._send(self._confirmed, waiting)

    async def _serve(self) -> BrokerUnavailable:
        """Connect, repeat unconfirmed messages, and stay until the connection is lost."""
        connection = await AmqpConnection.open(self._settings, self._name)
        try:
            await self._begin(connection)
            self._reconnecting.is_up()
            reason = await asyncio.shield(connection.lost)
        except (ClosedByBroker, ConfigurationError) as error:
            if isinstance(error, ConfigurationError) or error.reply_code == NOT_FOUND:
                self._fail_all(error)
            raise
        finally:
            plain = self._plain
            if plain is not None:
                self._doubts.lost()
                self._bridging = asyncio.get_running_loop().call_later(BRIDGED_S, self._give_up_unsent)
            self._connection = self._confirmed = self._plain = None
            await connection.close()
        if isinstance(reason, ClosedByBroker) and (plain is None or reason.channel_number != plain.channel_number):
            self._blame(reason)
        self._one_by_one = None
        return reason

    async def _begin(self, connection: AmqpConnection) -> None:
        confirmed = await connection.channel()
        plain = await connection.channel()
        if self._declares:
            await confirmed.declare_exchanges()
        confirmed.raw.add_on_return_callback(connection.guarded(self._on_return))
        await confirmed.confirm_publishes(self._exchanges, self._on_confirm, self._user)
        if self._answers:
            self._direct = await plain.direct_replies()
        self._connection, self._confirmed, self._plain = connection, confirmed.raw, plain.raw
        self._end_bridge()
        self._doubts.begin()
        self._by_tag.clear()
        self._next_tag = 1
        self._one_by_one = None
        self._repeat_all(confirmed.raw)

    def _end_bridge(self) -> None:
        if self._bridging is not None:
            self._bridging.cancel()
            self._bridging = None

    def _give_up_unsent(self) -> None:
        """The broker is away for longer: what was given to us since is certainly not with it."""
        self._bridging = None
        for waiting in [each for each in self._waiting.values() if not (each.times_sent or each.is_repeated)]:
            del self._waiting[waiting.number]
            _fail(waiting.future, BrokerUnavailable(self.unready_reason))

    def _repeat_all(self, confirmed: Channel) -> None:
        """Repeat the unconfirmed messages, in order."""
        for waiting in [waiting for waiting in self._waiting.values() if waiting.future.cancelled()]:
            del self._waiting[waiting.number]
        if self._must_find_cause:
            self._must_find_cause = False
            self._one_by_one = deque(self._waiting.values())
            self._send_next()
        else:
            for waiting in list(self._waiting.values()):
                self._send(confirmed, waiting)

    def _blame(self, reason: ClosedByBroker) -> None:
        """The broker closed the channel or the connection: find the message that was the cause."""
        if reason.reply_code in (ACCESS_REFUSED, NOT_FOUND) and reason.exchange is not None:
            # Messages that were sent before the refused one may have been taken.
            is_certain = len(self._by_tag) == 1
            for waiting in [each for each in self._waiting.values() if each.exchange == reason.exchange]:
                kind = BrokerUnavailable if is_certain and waiting.times_sent <= 1 else OutcomeUnknown
                self._waiting.pop(waiting.number)
                _fail(
                    waiting.future,
                    kind(f"nothing can be published to exchange {reason.exchange}: {reason}"),
                )
        elif reason.reply_code in BLAMED:
            # A message without a confirm may have ended the connection, but not this channel.
            is_sure = reason.channel_number is not None or self._one_by_one is not None
            if len(self._by_tag) == 1 and is_sure:
                self._refuse(next(iter(self._by_tag.values())), str(reason))
            else:
                self._must_find_cause = True

    def _fail_all(self, error: Exception) -> None:
        """The broker does not let us publish: fail all messages, since that will not change."""
        for waiting in self._waiting.values():
            kind = OutcomeUnknown if waiting.times_sent else BrokerUnavailable
            _fail(waiting.future, kind(str(error)))
        self._waiting.clear()

    def _refuse(self, waiting: Unconfirmed, why: str) -> None:
        self._waiting.pop(waiting.number, None)
        target = f"exchange {waiting.exchange!r}, routing key {waiting.routing_key!r}"
        _fail(
            waiting.future,
            InvalidCommand(f"this message cannot be published to {target}: {why}", code="message_refused"),
        )

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        is_ack = method.NAME == "Basic.Ack"
        # Tags are in the order of the dictionary.
        tags = (
            list(itertools.takewhile(lambda tag: tag <= method.delivery_tag, self._by_tag))
            if method.multiple
            else [method.delivery_tag]
        )
        for tag in tags:
            waiting = self._by_tag.pop(tag, None)
            if waiting is None:
                continue
            if is_ack and not waiting.is_returned:
                self._doubts.taken(waiting.routing_key)
            elif not is_ack and self._connection is not None and self._doubts.refused(waiting.routing_key):
                # It is repeated on the next connection.
                waiting.times_sent -= 1
                self._connection.end_because(BrokerUnavailable(f"the queue of {waiting.routing_key!r} takes nothing"))
                continue
            if waiting.is_repeated and (waiting.is_returned or not is_ack):
                asyncio.get_running_loop().call_later(REFUSED_DELAY_S, self._repeat, waiting)
                continue
            self._waiting.pop(waiting.number, None)
            if waiting.is_returned:
                error: Exception = BrokerUnavailable(f"no queue takes messages for {waiting.routing_key!r}")
                _fail(waiting.future, waiting.refused(error))
            elif not is_ack:
                _fail(waiting.future, waiting.refused(Overloaded(f"the queue of {waiting.routing_key!r} is full")))
            elif not waiting.future.done():
                waiting.future.set_result(None)
        if self._one_by_one is not None:
            self._send_next()

    def _repeat(self, waiting: Unconfirmed) -> None:
        if waiting.future.cancelled():
            self._waiting.pop(waiting.number, None)
        elif waiting.number not in self._waiting or waiting in self._by_tag.values():
            pass
        elif self._one_by_one is not None:
            if waiting not in self._one_by_one:
                self._one_by_one.append(waiting)
                self._send_next()
        elif self._confirmed is not None:
            self._send(self._confirmed, waiting)

    def _on_return(self, _: Any, __: Any, properties: pika.BasicProperties, ___: bytes) -> None:
        """A message that cannot be routed is returned and then confirmed all the same."""
        number = (properties.headers or {}).get("publish-number")
        waiting = self._waiting.get(number) if isinstance(number, int) else None
        if waiting is not None:
            waiting.is_returned = True


def _fail(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
