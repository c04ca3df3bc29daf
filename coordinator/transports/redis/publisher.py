"""A publisher that keeps itself connected, waits until Redis has synced, and repeats unconfirmed messages in order."""

import asyncio
import itertools
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final, NoReturn

import redis
import structlog

from coordinator.runtime.awaited import LATE_S, Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import (
    BrokerUnavailable,
    ConfigurationError,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
)
from coordinator.transports.reconnecting import Reconnecting
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.driver_arguments import redis_address
from coordinator.transports.redis.keys import counter_key
from coordinator.transports.redis.loss import RunPlace, counted_of
from coordinator.transports.redis.lost_messages import report_lost
from coordinator.transports.redis.scripts import (
    ADD,
    ENTRY_BYTES,
    FULL,
    GREET,
    NOT_GREETED,
    NUMBER_MAX,
    RUNS_MAX,
    UNUSABLE,
)
from coordinator.transports.redis.unable import Unable, is_without_memory

REFUSED_DELAY_S: Final = 0.05
"""Pause before a message that a full queue refused is sent again."""
_SYNC_MS: Final = 5_000
log = structlog.get_logger("broker")


class _Adding:
    """One message on its way."""

    __slots__ = ("body", "future", "head", "is_repeated", "number", "sent_at_s", "stream", "target", "times_sent")

    def __init__(
        self,
        number: int,
        target: str,
        stream: str,
        head: bytes,
        body: bytes,
        future: "asyncio.Future[None]",
        *,
        is_repeated: bool,
    ) -> None:
        self.number = number
        self.target = target
        self.stream = stream
        self.head = head
        self.body = body
        self.future = future
        self.is_repeated = is_repeated
        self.times_sent = 0
        self.sent_at_s = 0.0

    def refused(self, error: Exception) -> Exception:
        """Why the message was refused. If it was sent before, on a lost connection, Redis may have that copy."""
        return error if self.times_sent <= 1 else OutcomeUnknown(f"{error}; sent before, it may have been taken")


class RedisPublisher:
    """Adds messages to streams. Used within one event loop.

    It notes the last number of each target, and says when Redis no longer has it.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        # A malformed address ends the process, whether or not Redis can be reached.
        self._where = str(redis_address(settings))
        self._settings = settings
        self._name = name
        self._reconnecting = Reconnecting(name, settings)
        self._connection: RedisConnection | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Adding] = {}
        self._unsynced: deque[tuple[_Adding, RunPlace]] = deque()
        self._greeted: set[str] = set()
        self._under_way: dict[int, _Adding] = {}
        self._syncing: asyncio.Handle | None = None
        self._places: dict[str, RunPlace] = {}
        self._streams: dict[str, str] = {}
        """Of each target to which something was confirmed, the stream."""
        self._unable = Unable(settings, "takes no messages")
        self._task: asyncio.Task[NoReturn] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it is connected."""
        return self._connection is not None and not self._connection.lost.done()

    @property
    def takes_messages(self) -> bool:
        return self.is_ready

    @property
    def is_healthy(self) -> bool:
        return self.is_ready and not self._unable

    @property
    def late(self) -> Late | None:
        """The confirm of the oldest message on its way, or a sign of the connection's life, if it is late.

        For any thread.
        """
        with suppress(RuntimeError):  # another thread is at them just now: they are being confirmed
            oldest = next(iter(self._under_way.values()), None) if self.is_ready else None
            if oldest is not None and (waited_s := time.monotonic() - oldest.sent_at_s) >= LATE_S:
                return Late("Redis (confirm)", oldest.sent_at_s, waited_s)
        connection = self._connection
        return None if connection is None else connection.late

    @property
    def problem(self) -> str:
        """Why it is not ready, in words for anybody."""
        return self._unable.words if self._unable else self._reconnecting.problem

    @property
    def unready_reason(self) -> str:
        """Why it is not ready, naming Redis's host and port."""
        if self._unable:
            return self._unable.reason
        return f"nothing can be published to Redis at {self._where}: {self._reconnecting.reason}"

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
        for adding in list(self._waiting.values()):
            kind = OutcomeUnknown if adding.times_sent else BrokerUnavailable
            _fail(adding.future, kind("the publisher was closed"))
        self._waiting.clear()

    def publish(
        self, target: str, stream: str, head: bytes, body: bytes, *, repeat_refused: bool = False
    ) -> "asyncio.Future[None]":
        """Add an entry to a stream of this target; the future is done when Redis has it safe on disk.

        While there is no connection the message waits for one. It is sent again, in order, after a lost connection,
        so it may arrive twice. Cancelling the future stops that. The future fails with BrokerUnavailable when nobody
        has made such a queue, or Redis takes nothing, with Overloaded when the queue is full, with OutcomeUnknown if an
        earlier sending may have been taken; with `repeat_refused` the message is sent again instead, until the future
        is cancelled. It fails with InvalidCommand if the names are no text that can be sent.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        adding = _Adding(next(self._numbers), target, stream, head, body, future, is_repeated=repeat_refused)
        self._waiting[adding.number] = adding
        if self._connection is not None:
            self._send(self._connection, adding)
        return future

    async def _serve(self) -> BrokerUnavailable:
        """Connect, repeat unconfirmed messages, and stay until the connection is lost."""
        try:
            connection = await RedisConnection.open(self._settings, self._name)
        except ConfigurationError as error:
            self._fail_all(error)
            raise
        try:
            for adding in [each for each in self._waiting.values() if each.future.cancelled()]:
                del self._waiting[adding.number]
            self._under_way.clear()
            self._unsynced.clear()
            self._greeted.clear()
            self._connection = connection
            for target in self._places:
                # It need not wait for a command to see what is lost.
                self._greet(connection, target, self._streams[target])
            for adding in list(self._waiting.values()):
                self._send(connection, adding)
            self._reconnecting.is_up()
            return await asyncio.shield(connection.lost)
        finally:
            self._connection = None
            self._unable.end()
            await connection.close()

    def _send(self, connection: RedisConnection, adding: _Adding) -> None:
        target, stream = adding.target, adding.stream
        if target not in self._greeted:
            # Ahead of what is added, on the same connection: nothing overtakes anything meanwhile.
            self._greet(connection, target, stream)
        adding.times_sent += 1
        adding.sent_at_s = time.monotonic()
        self._under_way[adding.number] = adding
        answer = connection.run_script(
            ADD,
            (stream, counter_key(target)),
            connection.run,
            self._settings.queue_bytes_max,
            ENTRY_BYTES,
            adding.head,
            adding.body,
            NUMBER_MAX,
        )
        answer.add_done_callback(lambda done: self._on_answer(connection, adding, done))

    def _greet(self, connection: RedisConnection, target: str, stream: str) -> None:
        self._greeted.add(target)
        keys = (counter_key(target), stream)
        greeting = connection.run_script(GREET, keys, connection.run, 0, NUMBER_MAX, RUNS_MAX)
        greeting.add_done_callback(lambda done: self._on_greeted(target, done))

    def _on_greeted(self, target: str, answer: "asyncio.Future[Any]") -> None:
        """See whether Redis has lost what it had confirmed here."""
        if answer.cancelled() or answer.exception() is not None:
            self._greeted.discard(target)
            return
        last, runs = answer.result()
        if last == NOT_GREETED:
            self._greeted.discard(target)
            return
        place = self._places.get(target)
        if place is None:
            return
        lost = counted_of(last, runs).lost(place)
        if lost is not None:
            del self._places[target]
            report_lost(target, lost)

    def _on_answer(self, connection: RedisConnection, adding: _Adding, answer: "asyncio.Future[Any]") -> None:
        if answer.cancelled() or connection is not self._connection:
            return
        error = answer.exception()
        if error is not None:
            self._on_error(connection, adding, error)
            return
        number = answer.result()
        if number == NOT_GREETED:
            self._greeted.discard(adding.target)
            self._refuse(adding, BrokerUnavailable(f"no queue takes messages for {adding.target!r}"))
        elif number == FULL:
            self._refuse(adding, Overloaded(f"the queue of {adding.target!r} is full"))
        elif number == UNUSABLE:
            self._refuse(adding, Overloaded(f"the queue of {adding.target!r} has a foreign entry at its end"))
        elif connection.waits_for_sync:
            self._unsynced.append((adding, RunPlace(connection.run, number)))
            if self._syncing is None:
                self._syncing = asyncio.get_running_loop().call_soon(self._sync, connection)
        else:
            self._confirm(adding, RunPlace(connection.run, number))

    def _on_error(self, connection: RedisConnection, adding: _Adding, error: BaseException) -> None:
        if isinstance(error, BrokerUnavailable):
            # The connection is lost: the message is repeated on the next one.
            return
        if isinstance(error, UnicodeError):
            self._end(adding)
            why = f"this message cannot be published to {adding.target!r}: {error}"
            _fail(adding.future, InvalidCommand(why, code="message_refused"))
            return
        self._unable.note(connection, adding.target, adding.stream, error)
        self._refuse(adding, _meaning(error, adding.stream))
        if isinstance(error, redis.exceptions.NoScriptError | redis.exceptions.ReadOnlyError):
            connection.end_because(BrokerUnavailable(f"Redis at {self._where}: {error}"))

    def _sync(self, connection: RedisConnection) -> None:
        """Have Redis say when it has synced what was added so far."""
        count = len(self._unsynced)
        answer = connection.call("WAITAOF", 1, 0, _SYNC_MS)
        answer.add_done_callback(lambda done: self._on_synced(connection, count, done))

    def _on_synced(self, connection: RedisConnection, count: int, answer: "asyncio.Future[Any]") -> None:
        self._syncing = None
        if answer.cancelled() or connection is not self._connection or not self._unsynced:
            return
        error = answer.exception()
        if isinstance(error, redis.ResponseError):
            connection.end_because(BrokerUnavailable(f"Redis at {self._where} does not sync: {error}"))
        if error is not None:
            return
        if answer.result()[0] >= 1:
            for _ in range(count):
                self._confirm(*self._unsynced.popleft())
        if self._unsynced:
            self._syncing = asyncio.get_running_loop().call_soon(self._sync, connection)

    def _confirm(self, adding: _Adding, place: RunPlace) -> None:
        self._places[adding.target], self._streams[adding.target] = place, adding.stream
        self._end(adding)
        if not adding.future.done():
            adding.future.set_result(None)

    def _end(self, adding: _Adding) -> None:
        self._under_way.pop(adding.number, None)
        self._waiting.pop(adding.number, None)

    def _refuse(self, adding: _Adding, error: Exception) -> None:
        self._under_way.pop(adding.number, None)
        if adding.is_repeated:
            asyncio.get_running_loop().call_later(REFUSED_DELAY_S, self._repeat, adding)
            return
        self._waiting.pop(adding.number, None)
        _fail(adding.future, adding.refused(error))

    def _repeat(self, adding: _Adding) -> None:
        if adding.future.done():
            self._waiting.pop(adding.number, None)
        elif adding.number in self._waiting and adding.number not in self._under_way and self._connection is not None:
            self._send(self._connection, adding)

    def _fail_all(self, error: Exception) -> None:
        """Redis does not let us publish: fail all messages, since that will not change."""
        for adding in self._waiting.values():
            kind = OutcomeUnknown if adding.times_sent else BrokerUnavailable
            _fail(adding.future, kind(str(error)))
        self._waiting.clear()


def _meaning(error: BaseException, stream: str) -> Exception:
    text = str(error)
    if is_without_memory(error):
        return Overloaded(f"Redis has no memory left: {text}")
    if "WRONGTYPE" in text:
        return BrokerUnavailable(f"the key {stream!r} of Redis is no stream: remove it")
    return BrokerUnavailable(f"Redis takes nothing: {text}")


def _fail(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
