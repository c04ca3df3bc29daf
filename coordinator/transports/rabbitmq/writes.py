"""`Writes` over RabbitMQ: how a command is published, and the queue to which outcomes come."""

import asyncio
import time
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

import pika

from coordinator.client.command_log import CommandLog
from coordinator.protocol.attributing import say_nobody_asks
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage
from coordinator.runtime.awaited import Late
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.brokered_writes import BrokeredWrites
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.driver_arguments import user_of
from coordinator.transports.rabbitmq.errors import NOT_FOUND, ClosedByBroker
from coordinator.transports.rabbitmq.properties import app_id, command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.queue_lengths import QueueLengths
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE

REPLY_QUEUE_EXPIRES_MS = 60_000


class RabbitWrites(BrokeredWrites):
    """Implements `Writes`.

    Commands that are issued in the same turn of the event loop travel as one message, in their order. Outcomes come to
    a queue of this process's own. With a `log` each connection has a new one, which is on the node of the connection
    and needs no other; outcomes that went to the last one are read from the log. Without a `log` the queue outlives a
    lost connection by a minute, as long as its node lives.

    With `in_order` this is a publisher session: commands of one lane are applied in the order in which they were
    issued here, even if the broker refused one and took the next, or the connection was lost in between. One whose
    caller stops waiting is sent all the same. If one is not confirmed in time (OutcomeUnknown), the commands after it
    wait for the lane to give it up.

    `async with RabbitWrites(...) as writes:` starts it, waits until it is connected, and closes it. A gateway, which
    must also live without a broker, calls `start`, and ends when `failed` does.

    With `is_system` it may also issue the system's own commands, and is ready only if it has the right to. Its messages
    name its account, by which a lane knows its gateways. With `as_account` that asks where nobody else is named.
    """

    title: ClassVar[str] = "RabbitMQ"

    def __init__(
        self,
        broker: BrokerSettings,
        *,
        confirm_timeout_s: float,
        wait_s: float,
        in_flight_max: int,
        log: CommandLog | None,
        name: str = "writes",
        in_order: bool = False,
        is_system: bool = False,
        as_account: bool = False,
    ) -> None:
        self.account = user_of(broker)
        self._properties = partial(command_properties, user=self.account, app_id=app_id(name))
        self._as_account = as_account
        exchanges = (WRITES_EXCHANGE, SYSTEM_EXCHANGE) if is_system else (WRITES_EXCHANGE,)
        self._publisher = Publisher(broker, f"{name} publish", exchanges, user=self.account)
        super().__init__(
            broker,
            self._publisher,
            confirm_timeout_s=confirm_timeout_s,
            wait_s=wait_s,
            in_flight_max=in_flight_max,
            log=log,
            name=name,
            in_order=in_order,
        )
        self._receiving: AmqpConnection | None = None
        self._reply_queue = self._new_reply_queue()
        self.waiting = QueueLengths(broker, name).ready

    @property
    def _receiving_late(self) -> Late | None:
        return None if self._receiving is None else self._receiving.late

    def _send(
        self,
        lane: str,
        message: CommandMessage | None,
        headers: dict[str, Any],
        body: bytes,
        correlation_id: str,
        *,
        is_system: bool,
    ) -> "asyncio.Future[None]":
        exchange = SYSTEM_EXCHANGE if is_system else WRITES_EXCHANGE
        if exchange == WRITES_EXCHANGE and not self._as_account:
            say_nobody_asks(headers)
        reply: dict[str, Any] = {"reply_to": self._reply_queue, "correlation_id": correlation_id}
        properties = self._properties(message, headers, timestamp=int(time.time()), **reply)
        return self._publisher.publish(exchange, lane, properties, body, repeat_refused=self._session is not None)

    def _new_reply_queue(self) -> str:
        return f"replies.{self._name}.{uuid4()}"

    async def _receive(self) -> BrokerUnavailable:
        if self._lost is not None:
            self._reply_queue = self._new_reply_queue()
        connection = self._receiving = await AmqpConnection.open(self._broker, f"{self._name} replies")
        try:
            channel = await connection.channel()
            arguments = {"x-expires": REPLY_QUEUE_EXPIRES_MS}
            await channel.call(channel.raw.queue_declare, queue=self._reply_queue, durable=True, arguments=arguments)
            await channel.consume(self._reply_queue, self._on_reply, auto_ack=True)
            self._replies.is_up()
            if self._lost is not None:
                self._lost.connection_is_back()
            return await asyncio.shield(connection.lost)
        except ClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                # In a cluster its node may be down, and then nobody can have a queue of this name.
                self._reply_queue = self._new_reply_queue()
            raise
        finally:
            await connection.close()

    def _on_reply(self, _: Any, __: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self._take_in(properties.correlation_id, body, is_pack=properties.content_type == PACK_CONTENT)
