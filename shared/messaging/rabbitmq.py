"""`Writes` over RabbitMQ: publish the command, wait for its confirm, wait for its outcome."""

import asyncio
import itertools
from typing import Any
from uuid import uuid4

import msgspec
import pika
import structlog

from shared.command_log import CommandLog
from shared.errors import BrokerUnavailable, CommandPending, DatabaseUnavailable, Overloaded
from shared.messaging.amqp import AmqpConnection
from shared.messaging.outcome import Outcome, from_log
from shared.messaging.publisher import Publisher
from shared.messaging.topology import WRITES_EXCHANGE
from shared.messaging.wire import JSON_CONTENT, CommandMessage, decode_outcome, fingerprint_of, headers_of
from shared.settings import BrokerSettings
from shared.telemetry import current_stages, end_stage

REPLY_QUEUE_EXPIRES_MS = 60_000
PERSISTENT = 2
UNSETTLED_MAX = 10_000

log = structlog.get_logger("writes")


class _InFlight:
    """A command that somebody waits for."""

    __slots__ = ("command_id", "message", "outcome")

    def __init__(self, message: CommandMessage, outcome: "asyncio.Future[Outcome]") -> None:
        self.message = message
        self.command_id = message.command_id or ""
        self.outcome = outcome


class RabbitWrites:
    """Implements `Writes`.

    Outcomes come to a queue of this process's own. It outlives a lost connection by a minute; an outcome that is lost
    all the same is read from the command log, where `log` is given.

    With `in_order` this is a publisher session: commands of one lane are applied in the order in which they were
    issued here, even when the broker refused one and took the next, or the connection was lost in between. Should one
    not be confirmed in time (BrokerUnavailable), those after it wait for the lane to give it up.
    """

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
        self._broker = broker
        self._confirm_timeout_s = confirm_timeout_s
        self._wait_s = wait_s
        self._in_flight_max = in_flight_max
        self._log = log
        self._name = name
        self._publisher = Publisher(broker, f"{name} publish")
        self._reply_queue = f"replies.{name}.{uuid4()}"
        self._replies_ready = asyncio.Event()
        self._session = f"{name}.{uuid4().hex}" if in_order else None
        self._session_numbers: dict[str, int] = {}
        self._in_flight: dict[str, _InFlight] = {}
        self._unsettled: dict[str, None] = {}
        self._numbers = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """The broker takes commands and returns outcomes."""
        return self._publisher.is_ready and self._replies_ready.is_set()

    @property
    def in_flight(self) -> int:
        """Commands that somebody waits for."""
        return len(self._in_flight)

    def pending(self, command_id: str) -> bool:
        """Whether this process issued the command and has not seen its outcome yet (the latest ones only)."""
        return command_id in self._unsettled

    async def start(self) -> None:
        """Connect in the background, and again whenever a connection is lost."""
        self._publisher.start()
        self._task = asyncio.create_task(self._keep_receiving(), name="replies")

    async def wait_connected(self) -> None:
        """Return once commands can be issued."""
        await self._publisher.wait_ready()
        await self._replies_ready.wait()

    async def close(self) -> None:
        """Disconnect. Commands that are confirmed are settled all the same; nobody here learns of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._publisher.close()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        if len(self._in_flight) >= self._in_flight_max:
            raise Overloaded(f"{self._in_flight_max} commands are under way here already")
        if not self._publisher.is_ready:
            state = "takes no messages: a memory or disk alarm" if self._publisher.is_blocked else "cannot be reached"
            raise BrokerUnavailable(f"RabbitMQ {state}")
        if self._session is not None:
            number = self._session_numbers[lane] = self._session_numbers.get(lane, 0) + 1
            message = msgspec.structs.replace(message, publisher=self._session, publisher_seq=number)
        entry = _InFlight(message, asyncio.get_running_loop().create_future())
        correlation_id = str(next(self._numbers))
        self._in_flight[correlation_id] = entry
        stages = current_stages()
        if stages is not None:
            stages.command_id = entry.command_id
        try:
            await self._publish(lane, entry, correlation_id)
            self._note_unsettled(entry)
            end_stage("publish")
            limit_s = self._wait_s if wait_s is None else wait_s
            if not entry.outcome.done() and limit_s > 0:
                await asyncio.wait({entry.outcome}, timeout=limit_s)
                await self._look_up(entry)
            end_stage("apply")
            if not entry.outcome.done():
                raise CommandPending(entry.command_id)
            outcome = entry.outcome.result()
            if stages is not None:
                stages.sequence = outcome.sequence
            return outcome
        finally:
            del self._in_flight[correlation_id]
            if entry.outcome.done():
                self._unsettled.pop(entry.command_id, None)
            entry.outcome.cancel()

    async def _publish(self, lane: str, entry: _InFlight, correlation_id: str) -> None:
        """Return once the command is safe: confirmed, or already settled."""
        message = entry.message
        properties = pika.BasicProperties(
            message_id=message.command_id,
            type=message.type,
            content_type=JSON_CONTENT,
            delivery_mode=PERSISTENT,
            reply_to=self._reply_queue,
            correlation_id=correlation_id,
            headers=headers_of(message),
        )
        confirm = self._publisher.publish(
            WRITES_EXCHANGE, lane, properties, message.arguments, repeat_refused=self._session is not None
        )
        try:
            either: set[asyncio.Future[Any]] = {confirm, entry.outcome}
            await asyncio.wait(
                either,
                timeout=self._confirm_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if entry.outcome.done():
                return
            if not confirm.done():
                raise BrokerUnavailable(
                    f"RabbitMQ did not confirm command {entry.command_id} within {self._confirm_timeout_s} s; "
                    "it may be applied yet, or repeated with the same id"
                )
            confirm.result()
        finally:
            if not confirm.done():
                confirm.cancel()
            elif not confirm.cancelled():
                confirm.exception()

    def _note_unsettled(self, entry: _InFlight) -> None:
        self._unsettled[entry.command_id] = None
        if len(self._unsettled) > UNSETTLED_MAX:
            del self._unsettled[next(iter(self._unsettled))]

    async def _look_up(self, entry: _InFlight) -> None:
        """The outcome may have been lost on its way: ask the log."""
        if self._log is None or entry.outcome.done():
            return
        try:
            found = await self._log.find(entry.command_id)
        except DatabaseUnavailable:
            return
        if found is not None and found.fingerprint == fingerprint_of(entry.message) and not entry.outcome.done():
            entry.outcome.set_result(from_log(found, replayed=False))

    async def _keep_receiving(self) -> None:
        while True:
            try:
                await self._receive()
            except BrokerUnavailable as error:
                log.warning("broker_unavailable", connection=f"{self._name} replies", error=str(error))
            await asyncio.sleep(self._broker.reconnect_delay_s)

    async def _receive(self) -> None:
        connection = await AmqpConnection.open(self._broker, f"{self._name} replies")
        try:
            channel = await connection.channel()
            await channel.call(
                channel.raw.queue_declare,
                queue=self._reply_queue,
                durable=True,
                arguments={"x-expires": REPLY_QUEUE_EXPIRES_MS},
            )
            await channel.call(
                channel.raw.basic_consume,
                self._reply_queue,
                on_message_callback=self._on_reply,
                auto_ack=True,
            )
            self._replies_ready.set()
            reason = await asyncio.shield(connection.lost)
            log.warning("broker_connection_lost", connection=f"{self._name} replies", error=str(reason))
        finally:
            self._replies_ready.clear()
            await connection.close()

    def _on_reply(self, _: Any, __: Any, properties: pika.BasicProperties, body: bytes) -> None:
        try:
            outcome = decode_outcome(body)
        except msgspec.MsgspecError as error:
            log.error("outcome_malformed", correlation_id=properties.correlation_id, error=str(error))
            return
        self._unsettled.pop(outcome.command_id or "", None)
        entry = self._in_flight.get(properties.correlation_id or "")
        if entry is not None and not entry.outcome.done():
            entry.outcome.set_result(outcome)
