"""A publisher that keeps itself connected, waits for confirms, and repeats in order what was not confirmed.

Its connection only publishes: a broker under a memory or disk alarm stops reading from connections that publish, and
acknowledgements on the same one would stop with them.
"""

import asyncio
import itertools
from typing import Any

import pika
import structlog
from pika.channel import Channel
from pika.exceptions import AMQPError

from shared.errors import BrokerUnavailable, OutcomeUnknown, Overloaded
from shared.messaging.amqp import AmqpConnection
from shared.settings import BrokerSettings

REFUSED_DELAY_S = 0.05
"""Pause before a message that a full queue refused is sent again."""

log = structlog.get_logger("publisher")


class _Unconfirmed:
    """One message on its way."""

    __slots__ = (
        *("body", "exchange", "future", "is_repeated", "is_returned", "number", "properties", "routing_key"),
        "times_sent",
    )

    def __init__(
        self,
        number: int,
        exchange: str,
        routing_key: str,
        properties: pika.BasicProperties,
        body: bytes,
        future: "asyncio.Future[None]",
        *,
        is_repeated: bool,
    ) -> None:
        self.is_repeated = is_repeated
        self.number = number
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.future = future
        self.is_returned = False
        self.times_sent = 0

    def refused(self, error: Exception) -> Exception:
        """Why it was refused. If it was sent before, on a connection that was lost, the broker may have that one."""
        return error if self.times_sent <= 1 else OutcomeUnknown(f"{error}; sent before, it may have been taken")


class Publisher:
    """Publishes persistent messages with confirms, and others without. Used within one event loop."""

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._connection: AmqpConnection | None = None
        self._confirmed: Channel | None = None
        self._plain: Channel | None = None
        self._next_number = 1
        self._waiting: dict[int, _Unconfirmed] = {}
        self._by_tag: dict[int, _Unconfirmed] = {}
        self._next_tag = 1
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Connected, and the broker takes messages."""
        return self._ready.is_set() and self._connection is not None and not self._connection.is_blocked

    @property
    def is_blocked(self) -> bool:
        """Connected, but the broker is under a memory or disk alarm and takes nothing."""
        return self._connection is not None and self._connection.is_blocked

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._task = asyncio.create_task(self._keep_connected(), name=f"publisher {self._name}")

    async def wait_ready(self) -> None:
        """Return once connected."""
        await self._ready.wait()

    async def close(self) -> None:
        """Disconnect. What is not confirmed fails with OutcomeUnknown, what was not sent with BrokerUnavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
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

        While there is no connection the message waits for one; it is sent again, in order, after a lost connection,
        so that it may arrive twice. Cancelling the future stops that. The future fails with BrokerUnavailable when no
        queue takes the message, with Overloaded when the queue is full, with OutcomeUnknown where an earlier sending
        may have been taken; with `repeat_refused` the message is sent again instead, until the future is cancelled.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Unconfirmed(
            self._next_number, exchange, routing_key, properties, body, future, is_repeated=repeat_refused
        )
        self._next_number += 1
        self._waiting[waiting.number] = waiting
        if self._confirmed is not None:
            self._send(self._confirmed, waiting)
        return future

    def send(self, routing_key: str, properties: pika.BasicProperties, body: bytes) -> bool:
        """Publish to a queue by its name, without a confirm. False: there is no connection, and nothing was sent."""
        if self._plain is None:
            return False
        try:
            self._plain.basic_publish("", routing_key, body, properties)
        except AMQPError:
            return False
        return True

    def _send(self, channel: Channel, waiting: _Unconfirmed) -> None:
        # The number travels as a header so that a return, which comes without the tag, can be told apart.
        headers = waiting.properties.headers or {}
        headers["publish-number"] = waiting.number
        waiting.properties.headers = headers
        waiting.is_returned = False
        waiting.times_sent += 1
        self._by_tag[self._next_tag] = waiting
        self._next_tag += 1
        try:
            channel.basic_publish(
                waiting.exchange, waiting.routing_key, waiting.body, waiting.properties, mandatory=True
            )
        except AMQPError:
            # The connection is being lost: the message is repeated on the next one.
            self._confirmed = None

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._serve()
            except BrokerUnavailable as error:
                log.warning("broker_unavailable", connection=self._name, error=str(error))
            await asyncio.sleep(self._settings.reconnect_delay_s)

    async def _serve(self) -> None:
        """Connect, repeat what was not confirmed, and stay until the connection is lost."""
        connection = await AmqpConnection.open(self._settings, self._name)
        try:
            confirmed = await connection.channel()
            plain = await connection.channel()
            await confirmed.call(confirmed.raw.confirm_delivery, self._on_confirm)
            confirmed.raw.add_on_return_callback(self._on_return)
            self._connection, self._confirmed, self._plain = connection, confirmed.raw, plain.raw
            self._by_tag.clear()
            self._next_tag = 1
            for number in list(self._waiting):
                waiting = self._waiting[number]
                if waiting.future.cancelled():
                    del self._waiting[number]
                else:
                    self._send(confirmed.raw, waiting)
            self._ready.set()
            reason = await asyncio.shield(connection.lost)
            log.warning("broker_connection_lost", connection=self._name, error=str(reason))
        finally:
            self._ready.clear()
            self._connection = self._confirmed = self._plain = None
            await connection.close()

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

    def _repeat(self, waiting: _Unconfirmed) -> None:
        if waiting.future.cancelled():
            self._waiting.pop(waiting.number, None)
        elif self._confirmed is not None and waiting.number in self._waiting and waiting not in self._by_tag.values():
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
