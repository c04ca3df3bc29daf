"""Outcomes over Redis: published to the channel that whoever waits has named, and kept nowhere.

A message is a line with whether it is a pack, and what names the command's message, as JSON text; then the outcomes.
"""

import asyncio
from functools import partial
from typing import Any, Final, NoReturn

import msgspec

from coordinator.lane.delivery import Reply
from coordinator.runtime.awaited import Late
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.not_sent import NotSent
from coordinator.transports.outcome_packs import messages_of
from coordinator.transports.reconnecting import Reconnecting
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.keys import is_channel_of_outcomes
from coordinator.transports.redis.unable import Unable

UNSENT_BYTES_MAX: Final = 16 << 20
"""Outcomes are dropped while this many bytes wait for Redis to read them: their clients find them in the log."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(tuple[bool, str | None])


def encoded_message(correlation_id: str | None, body: bytes, *, is_pack: bool) -> bytes:
    """As it is published."""
    return _encoder.encode((is_pack, correlation_id)) + b"\n" + body


def decoded_message(message: bytes) -> tuple[bool, str | None, bytes]:
    """Whether it is a pack, what names the command's message, and the outcomes. Raises msgspec.MsgspecError."""
    head, _, body = message.partition(b"\n")
    is_pack, correlation_id = _decoder.decode(head)
    return is_pack, correlation_id, body


class OutcomeSender:
    """Sends a lane's outcomes, on a connection of its own: they need not wait for what is to be synced."""

    def __init__(self, settings: BrokerSettings, name: str, not_sent: NotSent) -> None:
        self._settings = settings
        self._name = name
        self._not_sent = not_sent
        self._reconnecting = Reconnecting(name, settings)
        self._connection: RedisConnection | None = None
        self._unable = Unable(settings, "sends no outcomes")

    @property
    def unready_reason(self) -> str | None:
        """Why no outcome leaves; None: they do."""
        if self._unable:
            return self._unable.reason
        return None if self._connection is not None else self._reconnecting.reason

    @property
    def late(self) -> Late | None:
        """A sign of the connection's life, if it is late. For any thread."""
        connection = self._connection
        return None if connection is None else connection.late

    def start(self) -> "asyncio.Task[NoReturn]":
        """Connect in the background, and again whenever the connection is lost."""
        return asyncio.create_task(self._reconnecting.run(self._serve), name=self._name)

    async def wait_ready(self) -> None:
        """Return once connected."""
        await self._reconnecting.connected.wait()

    def send(self, replies: list[Reply]) -> None:
        """Send outcomes once and without a confirm: a client that misses one finds it in the command log."""
        for message in messages_of(replies):
            reply_to, connection = message.reply_to, self._connection
            if connection is None or connection.unsent_bytes > UNSENT_BYTES_MAX or not is_channel_of_outcomes(reply_to):
                self._not_sent.count(reply_to)
                continue
            payload = encoded_message(message.correlation_id, message.body, is_pack=message.is_pack)
            answer = connection.call("PUBLISH", reply_to, payload)
            answer.add_done_callback(partial(self._on_answer, connection, reply_to))

    def _on_answer(self, connection: RedisConnection, reply_to: str, answer: "asyncio.Future[Any]") -> None:
        error = None if answer.cancelled() else answer.exception()
        if answer.cancelled() or error is not None or not answer.result():
            self._not_sent.count(reply_to)
        if error is not None and connection is self._connection:
            self._unable.note_right(connection, [("PUBLISH", reply_to, "")], error)

    async def _serve(self) -> BrokerUnavailable:
        connection = await RedisConnection.open(self._settings, self._name, must_sync=False)
        self._connection = connection
        try:
            self._reconnecting.is_up()
            return await asyncio.shield(connection.lost)
        finally:
            self._connection = None
            self._unable.end()
            await connection.close()
