"""`Writes` over Redis: how a command is added, and the channel on which outcomes come."""

import asyncio
import time
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

import msgspec
import redis
import structlog

from coordinator.client.command_log import CommandLog
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.awaited import Late
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.brokered_writes import BrokeredWrites
from coordinator.transports.redis.connection import RedisConnection, translated
from coordinator.transports.redis.entries import encoded_head
from coordinator.transports.redis.keys import REPLIES_PREFIX, commands_key
from coordinator.transports.redis.outcomes import decoded_message
from coordinator.transports.redis.publisher import RedisPublisher
from coordinator.transports.redis.queue_lengths import StreamLengths

log = structlog.get_logger("writes")


class RedisWrites(BrokeredWrites):
    """Implements `Writes`.

    Commands that are issued in the same turn of the event loop travel as one message, in their order. Outcomes come on
    a channel of this process's own, and those that come while it is not connected are lost: they are read from the
    command log, if `log` is given.

    `async with RedisWrites(...) as writes:` starts it, waits until it is connected, and closes it. A gateway, which
    must also live without a broker, calls `start`, and ends when `failed` does.

    With `in_order` this is a publisher session, as `RabbitWrites` has them. Redis names no account of whoever adds an
    entry, so nobody asks where nobody is named.
    """

    title: ClassVar[str] = "Redis"
    account: ClassVar[str | None] = None

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
    ) -> None:
        self._publisher = RedisPublisher(broker, f"{name} publish")
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
        self._receiving: RedisConnection | None = None
        self._channel = f"{REPLIES_PREFIX}{name}.{uuid4()}"
        self._head = partial(encoded_head, reply_to=self._channel, by=name)
        self.waiting = StreamLengths(broker, name).ready

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
        head = self._head(message, headers, correlation_id=correlation_id, at=int(time.time()))
        stream = commands_key(lane, is_system=is_system)
        return self._publisher.publish(lane, stream, head, body, repeat_refused=self._session is not None)

    async def _receive(self) -> BrokerUnavailable:
        connection = await RedisConnection.open(self._broker, f"{self._name} replies", must_sync=False)
        self._receiving = connection
        try:
            connection.on_message = self._on_message
            await connection.call("SUBSCRIBE", self._channel)
            self._replies.is_up()
            return await asyncio.shield(connection.lost)
        except redis.ResponseError as error:
            raise translated(error, "Redis") from error
        finally:
            self._receiving = None
            await connection.close()

    def _on_message(self, _: bytes, message: bytes) -> None:
        try:
            is_pack, correlation_id, body = decoded_message(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.error("outcome_malformed", error=str(error))
            return
        self._take_in(correlation_id, body, is_pack=is_pack)
