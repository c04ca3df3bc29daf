"""The stream of a service's effects, and what its workers publish."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import redis
import structlog
from msgspec import Struct

from coordinator.lane.control import DeadEffect
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.runtime.awaited import Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.commands import Command
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.outside_calls import effects_key
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.transports.effect_bringing import headers_carrying, known_of_effect
from coordinator.transports.port import EffectDelivery
from coordinator.transports.reconnecting import Reconnecting
from coordinator.transports.redis.connection import RedisConnection, translated
from coordinator.transports.redis.effects.bringing import RedisBringing
from coordinator.transports.redis.effects.scripts import (
    ALL_OF_EFFECTS,
    CLAIM,
    DONE,
    GROUP,
    PREPARE,
    PUT_BACK,
    RETURN,
    SAY_ALIVE,
)
from coordinator.transports.redis.entries import StreamEntry, encoded_head, entry_of
from coordinator.transports.redis.keys import counter_key, later_key, system_stream_key, worker_key
from coordinator.transports.redis.publisher import RedisPublisher
from coordinator.transports.redis.scripts import ENTRY_BYTES, GREET, NUMBER_MAX, RUNS_MAX

RENEW_S: Final = 0.5
"""How often a worker says that it lives, and looks for what dead ones had."""
LOOK_S: Final = 0.25
"""How often a worker looks whether effects that were put back are due."""
RETURNED_AT_ONCE: Final = 100
_BLOCK_MS: Final = 1000

log = structlog.get_logger("effects")


class _Receipt(Struct, frozen=True):
    connection: RedisConnection
    id: bytes
    counted_bytes: int


class RedisEffects:
    """Implements `EffectTransport`. A worker has at most `prefetch` effects at a time."""

    def __init__(self, service: str, broker: BrokerSettings, prefetch: int) -> None:
        self._service = service
        self._broker = broker
        self._prefetch = prefetch
        key = effects_key(service)
        self._stream, self._counter, self._later = system_stream_key(key), counter_key(key), later_key(service)
        self._workers = worker_key(service, "")
        self._publisher = RedisPublisher(broker, f"effects {service} publish")
        self._bringing = RedisBringing(service, self._publisher, broker.reconnect_delay_s)
        self._take: Callable[[EffectDelivery], None] | None = None
        self._connection: RedisConnection | None = None
        self._reading: RedisConnection | None = None
        self._held: set[bytes] = set()
        self._has_room = asyncio.Event()
        self._is_stopped = False
        self._consuming: asyncio.Task[Any] | None = None
        self._reconnecting = Reconnecting(f"effects {service}", broker)

    @property
    def unready_reason(self) -> str | None:
        if not self._reconnecting.connected.is_set():
            return self._reconnecting.reason
        if not self._publisher.is_healthy:
            return self._publisher.unready_reason
        return None if (late := self.late) is None else str(late)

    @property
    def late(self) -> Late | None:
        connections = (self._connection, self._reading)
        late = (each.late for each in connections if each is not None)
        return self._publisher.late or next(filter(None, late), None)

    def start(
        self,
        take: Callable[[EffectDelivery], None],
        on_defect: Callable[[BaseException], None],  # noqa: ARG002  # its tasks are those that are returned
    ) -> Sequence["asyncio.Future[Any]"]:
        self._take = take
        self._consuming = asyncio.create_task(self._reconnecting.run(self._consume), name=f"effects of {self._service}")
        return [self._publisher.start(), self._consuming]

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
        result_of: str | None = None,
    ) -> None:
        await self._bringing.bring(command, command_id, lane, actor, trace, result_of)

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        await self._bringing.bury(dead, copy, actor, trace)

    async def put_back(self, delivery: EffectDelivery, delay_s: float) -> bool:
        connection, message = self._connection, delivery.message
        if connection is None:
            return False
        headers = headers_carrying(message, delivery.attempted)
        head = encoded_head(message, headers, at=delivery.emitted_at_s, by=self._bringing.by)
        about = (connection.run, self._broker.queue_bytes_max, ENTRY_BYTES, int(delay_s * 1000))
        try:
            answer = connection.run_script(
                PUT_BACK, (self._later, self._counter), *about, head + b"\n" + message.arguments
            )
            is_taken = await answer == 1
            while is_taken and connection.waits_for_sync and (await connection.call("WAITAOF", 1, 0, 5000))[0] < 1:
                pass
        except (BrokerUnavailable, redis.ResponseError) as error:
            log.warning("effect_not_put_back", command_id=message.command_id, error=str(error))
            return False
        return bool(is_taken)

    def has(self, delivery: EffectDelivery) -> bool:
        return delivery.receipt.connection is self._connection

    def acknowledge(self, deliveries: Sequence[EffectDelivery]) -> None:
        receipts = [each.receipt for each in deliveries if self.has(each)]
        if not receipts or self._connection is None:
            return
        counted = sum(receipt.counted_bytes for receipt in receipts)
        keys = (self._stream, self._counter, self._later)
        answer = self._connection.run_script(DONE, keys, GROUP, counted, *(receipt.id for receipt in receipts))
        # One that is not taken comes again.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._held.difference_update(receipt.id for receipt in receipts)
        self._has_room.set()

    def stop(self) -> None:
        """Take no more. What was put back waits in Redis."""
        self._is_stopped = True

    async def close(self) -> None:
        self.stop()
        await end_tasks(self._consuming)
        await self._publisher.close()

    async def _consume(self) -> BrokerUnavailable:
        """Consume until a connection is lost."""
        connection = await RedisConnection.open(self._broker, f"effects {self._service}")
        name = secrets.token_hex(16)
        tasks: list[asyncio.Task[BrokerUnavailable]] = []
        reading: RedisConnection | None = None
        try:
            await self._prepare(connection, name)
            reading = await RedisConnection.open(self._broker, f"effects {self._service} read", must_sync=False)
            self._held.clear()
            self._connection, self._reading = connection, reading
            self._reconnecting.is_up()
            log.info("consuming", service=self._service)
            tasks = [
                asyncio.create_task(self._keep_alive(connection, name)),
                asyncio.create_task(self._return_due(connection)),
                asyncio.create_task(self._read(connection, reading, name)),
            ]
            changes: set[asyncio.Future[Any]] = {*tasks, connection.lost, reading.lost}
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    return task.result()
            return await asyncio.shield(reading.lost if reading.lost.done() else connection.lost)
        except redis.RedisError as error:
            raise translated(error, "Redis") from error
        finally:
            self._connection = self._reading = None
            await end_tasks(*tasks)
            await self._leave(connection, name)
            await connection.close()
            if reading is not None:
                await reading.close()

    async def _prepare(self, connection: RedisConnection, name: str) -> None:
        await asyncio.gather(*(connection.call("SCRIPT", "LOAD", each.text) for each in ALL_OF_EFFECTS))
        keys = (self._counter, self._stream)
        await connection.run_script(GREET, keys, connection.run, 1, NUMBER_MAX, RUNS_MAX)
        await connection.run_script(PREPARE, (self._stream,), GROUP)
        await self._say_alive(connection, name)

    async def _say_alive(self, connection: RedisConnection, name: str) -> None:
        await connection.run_script(SAY_ALIVE, (worker_key(self._service, name),), self._broker.heartbeat_s * 1000)

    async def _leave(self, connection: RedisConnection, name: str) -> None:
        """Let others have at once what this worker had."""
        with suppress(TimeoutError, BrokerUnavailable, redis.ResponseError):
            async with asyncio.timeout(1.0):
                await asyncio.shield(connection.call("DEL", worker_key(self._service, name)))

    async def _keep_alive(self, connection: RedisConnection, name: str) -> BrokerUnavailable:
        while True:
            await self._say_alive(connection, name)
            await asyncio.sleep(RENEW_S)

    async def _return_due(self, connection: RedisConnection) -> BrokerUnavailable:
        keys = (self._later, self._stream, self._counter)
        # A worker that stops would bring back to itself what it puts back, as if it might have made a call for it.
        while not self._is_stopped:
            answer = await connection.run_script(RETURN, keys, connection.run, RETURNED_AT_ONCE, NUMBER_MAX)
            if answer < 0:
                return BrokerUnavailable("the stream of the effects is to be prepared again")
            if answer < RETURNED_AT_ONCE:
                await asyncio.sleep(LOOK_S)
        return await asyncio.shield(connection.lost)

    async def _read(self, connection: RedisConnection, reading: RedisConnection, name: str) -> BrokerUnavailable:
        """Deliver what dead workers had, and what is new: in turn, so that there is room for all of it."""
        claimed_at_s = float("-inf")
        while True:
            while self._room <= 0 or self._is_stopped:
                self._has_room.clear()
                await self._has_room.wait()
            if monotonic() >= claimed_at_s + RENEW_S:
                claimed_at_s = monotonic()
                keys = (self._stream, self._workers)
                for raw in await connection.run_script(CLAIM, keys, GROUP, name, self._room):
                    self._deliver(raw, is_again=True)
                continue
            about = ("COUNT", self._room, "BLOCK", _BLOCK_MS, "STREAMS", self._stream, ">")
            answer = await reading.call("XREADGROUP", "GROUP", GROUP, name, *about)
            for raw in answer[0][1] if answer else ():
                self._deliver(raw, is_again=False)

    @property
    def _room(self) -> int:
        return self._prefetch - len(self._held)

    def _deliver(self, raw: Sequence[Any], *, is_again: bool) -> None:
        connection = self._connection
        if self._take is None or connection is None:
            return
        entry = entry_of(raw, is_system=True)
        self._held.add(entry.id)
        attempted, copy = known_of_effect(entry.head.headers, entry.sent_at_s, is_again=is_again)
        receipt = _Receipt(connection, entry.id, entry.counted_bytes)
        self._take(EffectDelivery(effect_of_entry(entry), attempted, copy, entry.sent_at_s, receipt))


def effect_of_entry(entry: StreamEntry) -> CommandMessage:
    """One effect; a fault of the entry is its `defect`. Never raises."""
    messages = decode(entry.envelope, entry.body)
    if len(messages) == 1:
        return messages[0]
    defect = Defect("malformed_effect", "an effect travels alone, and not in a pack")
    return CommandMessage(command_id=None, type=None, arguments=entry.body, defect=defect)
