"""How RabbitMQ keeps how far a lane has come: in a queue of one message, the newest."""

import asyncio
from contextlib import suppress
from functools import partial
from time import monotonic

import structlog

from coordinator.lane.high_water import Mark, decode_mark, encode_mark
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.rabbitmq.amqp import AmqpChannel, AmqpConnection
from coordinator.transports.rabbitmq.properties import mark_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import mark_queue_name

RETRY_S = 5.0
LOOK_EVERY_S = 10.0
WARNED_EVERY_S = 60.0
HELD_S = 10.0
"""Reading a mark takes milliseconds. Who keeps it for longer stands still, and the broker ends his connection."""
_HELD_LOOK_EVERY_S = 0.05

log = structlog.get_logger("consumer")


class MarkHeld(BrokerUnavailable):
    """Raised where somebody else is reading a mark, and does not give it back."""


async def read_mark(connection: AmqpConnection, lane: str) -> Mark | None:
    """The mark, which stays in its queue; None: there is none. Raises MarkHeld, and as `AmqpChannel.call`.

    Who reads it has it until his channel is closed. Meanwhile others find an empty queue, and must not believe it.
    """
    until_s = monotonic() + HELD_S
    while True:
        channel = await connection.channel()
        bodies = await channel.peek(mark_queue_name(lane))
        is_held = not bodies and await _is_held(channel, lane)
        await channel.close()
        if not is_held:
            break
        if monotonic() >= until_s:
            raise MarkHeld(
                f"somebody else is reading the mark of {lane}, and has not given it back within {HELD_S:g} s"
            )
        await asyncio.sleep(_HELD_LOOK_EVERY_S)
    mark = None
    for body in bodies:
        try:
            mark = decode_mark(body)
        except ValueError as error:
            log.warning("mark_unreadable", lane=lane, reason=str(error))
    return mark


async def _is_held(channel: AmqpChannel, lane: str) -> bool:
    """Whether somebody else has the mark, or had it a moment ago: to a quorum queue whoever reads is a consumer."""
    declared = await channel.call(channel.raw.queue_declare, queue=mark_queue_name(lane), passive=True)
    return bool(declared.method.consumer_count or declared.method.message_count)


class KeptMark:
    """The mark of one lane, which is sent until the broker has it. Used within the loop of its publisher.

    An idle lane has no next mark that would make good for a lost one. One is under way at a time, so that none is
    overtaken by an older one. Each is sent once the broker has answered on the consumer's own connection: as long as
    that is there, no other consumer has the lane, and a later mark, of which this one would take the place.
    """

    def __init__(self, publisher: Publisher, lane: str) -> None:
        self._publisher = publisher
        self._lane = lane
        self._wanted: Mark | None = None
        """The newest, until it is known to be kept."""
        self._kept: Mark | None = None
        """The newest that is known to be kept."""
        self._connection: AmqpConnection | None = None
        """The consumer's; None: it has none, or may not have the lane."""
        self._under_way: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._warned_at_s: float | None = None
        self._is_kept = asyncio.Event()
        """Set while `_wanted` is None."""
        self._is_kept.set()

    def keep(self, mark: Mark) -> None:
        """Replace the mark; without a connection `make_good` sees to it, once there is one."""
        self._wanted = mark
        self._is_kept.clear()
        if self._under_way is None:
            self._send()

    def stop(self) -> None:
        """Send nothing more: another consumer may have the lane now, and know better."""
        self._connection = None
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.cancel()
        if self._retry is not None:
            self._retry.cancel()

    def found(self, mark: Mark | None) -> None:
        """Its consumer has the lane now, and has read this mark."""
        self._kept = mark

    async def sent(self, timeout_s: float) -> None:
        """Return once the newest is kept, or after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._under_way is not None:
                    await asyncio.wait({self._under_way})

    async def make_good(self, connection: AmqpConnection) -> None:
        """The consumer has this connection now. Raises as `AmqpChannel.call`.

        If a mark may be lost, and the kept one is lower, it is kept.
        """
        found = None if self._wanted is None else await read_mark(connection, self._lane)
        self._connection = connection
        if self._wanted is not None and found is not None and found.covers(self._wanted):
            self._has_kept()
        self._send()

    async def kept(self) -> None:
        """Return once the newest is kept, however long that takes."""
        await self._is_kept.wait()

    async def watch(self, connection: AmqpConnection) -> None:
        """While its consumer has the lane: see that the queue is there, and has the mark; if not, keep it again.

        Somebody may delete or purge it, and a process that had the lane before may be late with an older mark: an idle
        lane has nothing newer to keep. Raises as `AmqpChannel.call`.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            channel = await connection.channel()
            is_empty = await channel.declare_mark(self._lane) == 0
            await channel.close()
            kept = self._kept
            if kept is None or self._wanted is not None:
                continue
            try:
                found = await read_mark(connection, self._lane)
            except MarkHeld:
                continue
            is_kept = found is not None and found.sequence >= kept.sequence and not found.is_other_than(kept)
            if is_kept or self._wanted is not None:
                continue
            if is_empty and found is None:
                log.warning("mark_gone", lane=self._lane, sequence=kept.sequence)
            self.keep(kept)

    def _send(self) -> None:
        mark, connection = self._wanted, self._connection
        if mark is None or connection is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._under_way = asyncio.create_task(self._publish(mark, connection), name=f"mark of {self._lane}")
        self._under_way.add_done_callback(partial(self._on_done, mark))

    async def _publish(self, mark: Mark, connection: AmqpConnection) -> None:
        channel = await connection.channel()
        await channel.declare_mark(self._lane)
        await channel.close()
        await self._publisher.publish("", mark_queue_name(self._lane), mark_properties(), encode_mark(mark))

    def _on_done(self, mark: Mark, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if self._under_way is not task:
            return
        self._under_way = None
        if error is not None:
            self._warn(error)
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._send)
            return
        self._kept = mark
        if self._wanted is mark:
            self._has_kept()
        else:
            self._send()

    def _has_kept(self) -> None:
        self._wanted = None
        self._is_kept.set()

    def _warn(self, error: BaseException) -> None:
        now_s = monotonic()
        if self._warned_at_s is None or now_s - self._warned_at_s >= WARNED_EVERY_S:
            self._warned_at_s = now_s
            log.warning("mark_not_kept", lane=self._lane, reason=str(error))
