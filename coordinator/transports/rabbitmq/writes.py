"""`Writes` over RabbitMQ: publish commands, wait for their confirms, wait for their outcomes."""

import asyncio
import time
from collections import defaultdict
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self
from uuid import uuid4

import msgspec
import pika
import structlog

from coordinator.client.command_log import CommandLog
from coordinator.protocol.attributing import say_nobody_asks
from coordinator.protocol.issuing import issuable
from coordinator.protocol.outcomes import decode_outcome, decode_outcomes
from coordinator.protocol.wire import (
    HEADER_REPLY_PACKS,
    PACK_CONTENT,
    CommandMessage,
    encode_pack,
    headers_of,
    headers_of_pack,
)
from coordinator.runtime.awaited import Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings
from coordinator.runtime.telemetry import current_stages
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandPending,
    DatabaseUnavailable,
    OutcomeUnknown,
    Overloaded,
)
from coordinator.service.outcome import Outcome
from coordinator.stores.outcomes import from_log
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.driver_arguments import user_of
from coordinator.transports.rabbitmq.errors import NOT_FOUND, ClosedByBroker
from coordinator.transports.rabbitmq.in_flight import InFlight, Pack, is_of, packs_of
from coordinator.transports.rabbitmq.properties import app_id, command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.queue_lengths import QueueLengths
from coordinator.transports.rabbitmq.reconnecting import Reconnecting
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE

REPLY_QUEUE_EXPIRES_MS = 60_000
UNSETTLED_MAX = 100_000
"""How many commands this process remembers whose outcomes are still to come."""
LOOKUPS_AT_ONCE = 8
LOOKUPS_S = 1.0
"""How long the log is asked for the outcomes of one message, however many there are: their time to wait is over."""
CONNECT_TIMEOUT_S = 15.0
"""How long `wait_connected` waits: for two or three attempts, and for a broker that is just starting."""

log = structlog.get_logger("writes")


class RabbitWrites:
    """Implements `Writes`.

    Commands that are issued in the same turn of the event loop travel as one message, in their order. Outcomes come to
    a queue of this process's own. It outlives a lost connection by a minute; an outcome that is lost all the same is
    read from the command log, if `log` is given.

    With `in_order` this is a publisher session: commands of one lane are applied in the order in which they were
    issued here, even if the broker refused one and took the next, or the connection was lost in between. If one is not
    confirmed in time (OutcomeUnknown), the commands after it wait for the lane to give it up.

    `async with RabbitWrites(...) as writes:` starts it, waits until it is connected, and closes it. A gateway, which
    must also live without a broker, calls `start`, and ends when `failed` does.

    With `is_system` it may also issue the system's own commands, and is ready only if it has the right to. Its messages
    name its account, by which a lane knows its gateways. With `as_account` that asks where nobody else is named.
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
        is_system: bool = False,
        as_account: bool = False,
    ) -> None:
        self._broker = broker
        self.account = user_of(broker)
        self._properties = partial(command_properties, user=self.account, app_id=app_id(name))
        self._as_account = as_account
        self._confirm_timeout_s, self._wait_s = confirm_timeout_s, wait_s
        self._in_flight_max = in_flight_max
        self._log, self._name = log, name
        exchanges = (WRITES_EXCHANGE, SYSTEM_EXCHANGE) if is_system else (WRITES_EXCHANGE,)
        self._publisher = Publisher(broker, f"{name} publish", exchanges, user=self.account)
        self._replies = Reconnecting(f"{name} replies", broker)
        self._receiving: AmqpConnection | None = None
        self._reply_queue = self._new_reply_queue()
        self._session = f"{name}.{uuid4().hex}" if in_order else None
        self._session_numbers: dict[str, int] = {}
        self._in_flight, self._number = 0, 0
        self._issued: defaultdict[str, list[InFlight]] = defaultdict(list)
        self._by_id: dict[str, InFlight] = {}
        self._by_correlation: dict[str, tuple[str, InFlight]] = {}
        # The ids of commands whose outcomes are still to come, and their lanes.
        self._unsettled: dict[str, str] = {}
        self._unanswered: dict[str, str] = {}
        # By lane, if some were forgotten: when this message has its outcome, the forgotten ones have theirs.
        self._forgotten_until: dict[str, int] = {}
        self._task: asyncio.Task[NoReturn] | None = None
        self._publishing: asyncio.Task[NoReturn] | None = None
        self.waiting = QueueLengths(broker, name).ready
        self._lookups: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        return self.problem is None

    @property
    def problem(self) -> str | None:
        if not (self._publisher.is_ready and self._replies.connected.is_set()):
            return self._publisher.problem
        return None if self._late is None else "the broker does not answer"

    @property
    def unready_reason(self) -> str:
        """Why it is not connected, naming the broker's host and port."""
        if not self._publisher.is_ready:
            return self._publisher.unready_reason
        return self._replies.reason if (late := self._late) is None else str(late)

    @property
    def _late(self) -> Late | None:
        return self._publisher.late or (None if self._receiving is None else self._receiving.late)

    @property
    def in_flight(self) -> int:
        """How many commands callers wait for."""
        return self._in_flight

    def pending(self, command_id: str) -> bool | None:
        """Whether this process issued the command and has not seen its outcome yet.

        None: it does not know, since it has issued more of them than it remembers.
        """
        if command_id in self._unsettled:
            return True
        return None if self._forgotten_until else False

    async def start(self) -> None:
        """Connect in the background, and again whenever a connection is lost."""
        self._publishing = self._publisher.start()
        self._task = asyncio.create_task(self._replies.run(self._receive), name=f"replies {self._name}")

    async def wait_connected(self, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Return once commands can be issued. Raises BrokerUnavailable with the last reason, or what `failed` does."""
        connected = asyncio.ensure_future(self._wait_connected())
        failed = asyncio.ensure_future(self.failed())
        try:
            await asyncio.wait({connected, failed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            if not connected.done():
                raise BrokerUnavailable(f"not connected within {timeout_s:g} s: {self.unready_reason}")
        finally:
            await end_tasks(connected, failed)

    async def failed(self) -> NoReturn:
        """Raise the error that ended a connection for good: a ConfigurationError, or a defect. End the process then."""
        tasks = [task for task in (self._publishing, self._task) if task is not None]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        raise AssertionError("the tasks of a connection end by raising only")

    async def _wait_connected(self) -> None:
        await self._publisher.wait_ready()
        await self._replies.connected.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await self.wait_connected()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect. Confirmed commands are settled all the same; this process does not learn of it."""
        await end_tasks(self._task, *self._lookups)
        await self._publisher.close()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        message = issuable(message)
        if self._in_flight >= self._in_flight_max:
            raise Overloaded(f"{self._in_flight_max} commands are under way here already")
        if not self._publisher.is_ready:
            raise BrokerUnavailable(self._publisher.unready_reason)
        if self._session is not None:
            number = self._session_numbers[lane] = self._session_numbers.get(lane, 0) + 1
            message = msgspec.structs.replace(message, publisher=self._session, publisher_seq=number)
        loop = asyncio.get_running_loop()
        entry = InFlight(message, loop.create_future(), self._wait_s if wait_s is None else wait_s)
        issued = self._issued[lane]
        if not issued:
            loop.call_soon(self._publish_issued, lane)
        issued.append(entry)
        self._in_flight += 1
        stages = current_stages()
        if stages is not None:
            stages.command_id = entry.command_id
        try:
            outcome = await entry.outcome
        finally:
            self._forget(lane, entry)
            if stages is not None and (entry.confirmed_at is not None or entry.has_outcome):
                stages.end("publish", entry.confirmed_at)
                stages.end("apply")
        if stages is not None:
            stages.sequence = outcome.sequence
        return outcome

    def _publish_issued(self, lane: str) -> None:
        """Publish the commands that were issued since the loop's last turn."""
        issued = self._issued.pop(lane)
        if self._session is None:
            # In a session, commands that no caller waits for any more must come too, or their numbers would be missing.
            issued = [entry for entry in issued if not entry.outcome.done()]
        for entries, is_alone in packs_of(issued, self._is_expected):
            try:
                self._publish(lane, entries, is_alone=is_alone)
            except Exception as error:  # noqa: BLE001  # its issuer gets the error, as from a call
                for entry in entries:
                    entry.fail(error)

    def _is_expected(self, command_id: str) -> bool:
        """Whether the outcome of a command with this id may come, issued just now or given up by its caller.

        If some were forgotten because there were too many, it may be any of those, of any lane.
        """
        return bool(self._forgotten_until) or command_id in self._by_id or command_id in self._unanswered

    def _publish(self, lane: str, entries: list[InFlight], *, is_alone: bool) -> None:
        self._number += 1
        correlation_id = str(self._number)
        for entry in entries:
            entry.correlation_id = correlation_id
        first, is_pack = entries[0].message, len(entries) > 1
        headers = headers_of_pack([entry.message for entry in entries]) if is_pack else headers_of(first)
        exchange = SYSTEM_EXCHANGE if first.origin == "system" else WRITES_EXCHANGE
        if exchange == WRITES_EXCHANGE and not self._as_account:
            say_nobody_asks(headers)
        if is_alone:
            # The id is under way already, perhaps with other content: the correlation id tells their outcomes apart.
            self._by_correlation[correlation_id] = (lane, entries[0])
        else:
            headers[HEADER_REPLY_PACKS] = True
            self._by_id.update({entry.command_id: entry for entry in entries})
        reply: dict[str, Any] = {"reply_to": self._reply_queue, "correlation_id": correlation_id}
        properties = self._properties(None if is_pack else first, headers, timestamp=int(time.time()), **reply)
        body = encode_pack([entry.message for entry in entries]) if is_pack else first.arguments
        confirm = self._publisher.publish(exchange, lane, properties, body, repeat_refused=self._session is not None)
        pack = Pack(entries, confirm)
        pack.timers.append(asyncio.get_running_loop().call_later(self._confirm_timeout_s, self._confirm_is_late, pack))
        confirm.add_done_callback(partial(self._on_confirm, lane, pack))

    def _on_confirm(self, lane: str, pack: Pack, confirm: "asyncio.Future[None]") -> None:
        """The commands are safe, or refused."""
        pack.cancel_timers()
        if confirm.cancelled():
            return
        error = confirm.exception()
        if isinstance(error, Exception):
            kind, arguments = type(error), error.args
            pack.fail(lambda _: kind(*arguments))
            return
        loop = asyncio.get_running_loop()
        by_wait: defaultdict[float, list[InFlight]] = defaultdict(list)
        for entry in pack.confirmed():
            self._unsettled[entry.command_id] = lane
            by_wait[entry.wait_s].append(entry)
        self._shorten(self._unsettled)
        for wait_s, entries in by_wait.items():
            if wait_s > 0:
                pack.timers.append(loop.call_later(wait_s, self._outcome_is_late, entries))
            else:
                self._give_up(entries)

    def _confirm_is_late(self, pack: Pack) -> None:
        timeout_s = self._confirm_timeout_s
        pack.fail(
            lambda entry: OutcomeUnknown(
                f"RabbitMQ did not confirm command {entry.command_id} within {timeout_s} s: it may be applied yet"
            )
        )

    def _outcome_is_late(self, entries: list[InFlight]) -> None:
        """An outcome may have been lost on its way: ask the log before giving up."""
        if self._log is None:
            self._give_up(entries)
            return
        task = asyncio.create_task(self._look_up(self._log, entries), name="look up outcomes")
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _look_up(self, command_log: CommandLog, entries: list[InFlight]) -> None:
        waiting = [entry for entry in entries if not entry.outcome.done()]
        try:
            async with asyncio.timeout(LOOKUPS_S):
                for start in range(0, len(waiting), LOOKUPS_AT_ONCE):
                    some = waiting[start : start + LOOKUPS_AT_ONCE]
                    entries_found = await asyncio.gather(*(command_log.find(entry.command_id) for entry in some))
                    for entry, found in zip(some, entries_found, strict=True):
                        if found is not None and is_of(found, entry.message) and not entry.outcome.done():
                            entry.outcome.set_result(from_log(found, replayed=False))
        except (TimeoutError, DatabaseUnavailable):
            pass
        except Exception:  # such as an entry of another release: the caller must not wait for ever
            log.exception("log_unreadable")
        self._give_up(waiting)

    def _give_up(self, entries: list[InFlight]) -> None:
        for entry in entries:
            entry.fail(CommandPending(entry.command_id))

    def _forget(self, lane: str, entry: InFlight) -> None:
        """No caller waits for this command any more."""
        self._in_flight -= 1
        self._by_correlation.pop(entry.correlation_id or "", None)
        if self._by_id.get(entry.command_id) is entry:
            del self._by_id[entry.command_id]
        if entry.has_outcome:
            self._unsettled.pop(entry.command_id, None)
        elif entry.pack is not None:
            self._unanswered[entry.command_id] = lane
            self._shorten(self._unanswered)
        if entry.pack is not None:
            entry.pack.forget()

    def _shorten(self, ids: dict[str, str]) -> None:
        """Forget the oldest beyond the limit. Their outcomes come before those of later commands."""
        while len(ids) > UNSETTLED_MAX:
            lane = ids.pop(next(iter(ids)))
            self._forgotten_until[lane] = self._number + 1

    def _new_reply_queue(self) -> str:
        return f"replies.{self._name}.{uuid4()}"

    async def _receive(self) -> BrokerUnavailable:
        connection = self._receiving = await AmqpConnection.open(self._broker, f"{self._name} replies")
        try:
            channel = await connection.channel()
            arguments = {"x-expires": REPLY_QUEUE_EXPIRES_MS}
            await channel.call(channel.raw.queue_declare, queue=self._reply_queue, durable=True, arguments=arguments)
            await channel.consume(self._reply_queue, self._on_reply, auto_ack=True)
            self._replies.is_up()
            return await asyncio.shield(connection.lost)
        except ClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                # In a cluster its node may be down, and then nobody can have a queue of this name.
                self._reply_queue = self._new_reply_queue()
            raise
        finally:
            await connection.close()

    def _on_reply(self, _: Any, __: Any, properties: pika.BasicProperties, body: bytes) -> None:
        try:
            is_pack = properties.content_type == PACK_CONTENT
            outcomes = decode_outcomes(body) if is_pack else [decode_outcome(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.error("outcome_malformed", correlation_id=properties.correlation_id, error=str(error))
            return
        correlation_id = properties.correlation_id
        lane, alone = (None, None) if is_pack else self._by_correlation.get(correlation_id or "", (None, None))
        if lane in self._forgotten_until and int(correlation_id) >= self._forgotten_until[lane]:
            # A lane's outcomes come in its order, except that of a parked command, which names its message.
            del self._forgotten_until[lane]
        for outcome in outcomes:
            self._unsettled.pop(outcome.command_id or "", None)
            self._unanswered.pop(outcome.command_id or "", None)
            entry = alone or self._by_id.get(outcome.command_id or "")
            # Only a pack for several messages names none of them. Whose id is under way twice is in no pack's message.
            names_none = is_pack and correlation_id is None
            is_another_s = entry is not None and not names_none and correlation_id != entry.correlation_id
            if entry is not None and not is_another_s and not entry.outcome.done():
                entry.outcome.set_result(outcome)
