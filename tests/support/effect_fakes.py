"""What an effect worker publishes to and acknowledges on, in memory."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pika
from msgspec import Struct

from coordinator.service.errors import BrokerUnavailable, InvalidCommand
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE


class Published(Struct, frozen=True):
    """One message."""

    target: str
    type: str
    command_id: str | None
    headers: dict[str, Any]
    body: bytes


class FakePublisher:
    """Notes what is published; confirms it once it may.

    It takes nothing for the targets that are away, and nothing above `bytes_max`.
    """

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.away: set[str] = set()
        self.bytes_max = 1 << 30
        self.refused = asyncio.Semaphore(0)
        self.has_published = asyncio.Event()
        self.may_confirm = asyncio.Event()
        self.may_confirm.set()

    async def publish(self, exchange: str, routing_key: str, properties: pika.BasicProperties, body: bytes) -> None:
        assert (exchange, properties.delivery_mode) == (SYSTEM_EXCHANGE, 2)
        properties.encode()
        if routing_key in self.away:
            self.refused.release()
            raise BrokerUnavailable(f"no queue takes messages for {routing_key!r}")
        if len(body) > self.bytes_max:
            raise InvalidCommand("PRECONDITION_FAILED - message size", code="message_refused")
        self.published.append(
            Published(routing_key, properties.type, properties.message_id, properties.headers or {}, body)
        )
        self.has_published.set()
        await self.may_confirm.wait()


class FakeChannel:
    """Notes what is acknowledged; fails with `error` if there is one."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.error: Exception | None = None
        self.raw = SimpleNamespace(is_open=True, basic_ack=self._acknowledge)

    def _acknowledge(self, tag: int) -> None:
        if self.error is not None:
            raise self.error
        self.acknowledged.append(tag)
