"""`Writes` over a broker: publish commands, wait for their confirms, wait for their outcomes.

A transport says how a message is published, and how outcomes arrive.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self
from uuid import uuid4

import msgspec
import structlog

from coordinator.client.command_log import CommandLog
from coordinator.protocol.issuing import issuable
from coordinator.protocol.outcomes import decode_outcome, decode_outcomes
from coordinator.protocol.wire import HEADER_REPLY_PACKS, CommandMessage, encode_pack, headers_of, headers_of_pack
from coordinator.runtime.awaited import Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings
from coordinator.runtime.telemetry import current_stages
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandPending,
    OutcomeUnknown,
    Overloaded,
)
from coordinator.service.outcome import Outcome
from coordinator.transports.in_flight import InFlight, Pack, packs_of
from coordinator.transports.lost_outcomes import LostOutcomes
from coordinator.transports.publishing import Publishing
from coordinator.transports.reconnecting import Reconnecting

UNSETTLED_MAX = 100_000
"""How many commands this process remembers whose outcomes are still to come."""
SETTLED_MAX = 10_000
"""How many commands it remembers whose outcomes came last."""
CONNECT_TIMEOUT_S = 15.0
"""How long `wait_connected` waits: for two or three attempts, and for a broker that is just starting."""

log = structlog.get_logger("writes")


class BrokeredWrites(ABC):
    """Implements `CommandTransport`, but for what a transport has of its own.

    Commands that are issued in the same turn of the event loop travel as one message, in their order. An outcome that
    is lost on its way is read from the command log, if `log` is given.

    With `in_order` this is a publisher session: commands of one lane are applied in the order in which they were
    issued here, even if the broker refused one and took the next, or the connection was lost in between. If one is not
    confirmed in time (OutcomeUnknown), the commands after it wait for the lane to give it up.
    """

    title: ClassVar[str]
    """The broker's name, for errors."""

    def __init__(
        self,
        broker: BrokerSettings,
        publisher: Publishing,
        *,
        confirm_timeout_s: float,
        wait_s: float,
        in_flight_max: int,
        log: CommandLog | None,
        name: str,
        in_order: bool,
    ) -> None:
        self._broker = broker
        self._publishing_by = publisher
        self._confirm_timeout_s, self._wait_s = confirm_timeout_s, wait_s
        self._in_flight_max = in_flight_max
        self._name = name
        self._replies = Reconnecting(f"{name} replies", broker)
        self._session = f"{name}.{uuid4().hex}" if in_order else None
        self._session_numbers: dict[str, int] = {}
        self._in_flight, self._number = 0, 0
        self._issued: defaultdict[str, list[InFlight]] = defaultdict(list)
        self._by_id: dict[str, InFlight] = {}
        self._by_correlation: dict[str, tuple[str, InFlight]] = {}
        # The ids of commands whose outcomes are still to come, and their lanes.
        self._unsettled: dict[str, str] = {}
        self._unanswered: dict[str, str] = {}
        # Of a dict the first key is found behind the places of all that were removed before it.
        self._settled: OrderedDict[str, tuple[str, int]] = OrderedDict()
        # By lane, if some were forgotten: when this message has its outcome, the forgotten ones have theirs.
        self._forgotten_until: dict[str, int] = {}
        self._task: asyncio.Task[NoReturn] | None = None
        self._publishing: asyncio.Task[NoReturn] | None = None
        self._lookups: set[asyncio.Task[None]] = set()
        self._lost = None if log is None else LostOutcomes(log, self._all_waiting)

    @abstractmethod
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
        """Publish a message: a command, or a pack of them (None). The future is done once it is safe.

        Each time it is sent again after a refusal, if this is a publisher session. Where outcomes go is added here.
        """

    @abstractmethod
    async def _receive(self) -> BrokerUnavailable:
        """Have outcomes come to `_take_in` until the connection is lost; call `is_up` of `_replies` once they do."""

    @property
    @abstractmethod
    def _receiving_late(self) -> Late | None:
        """A sign of life of the connection of the outcomes, if it is late."""

    @property
    def connected(self) -> bool:
        return self.problem is None

    @property
    def problem(self) -> str | None:
        if not self._publishing_by.is_healthy:
            return self._publishing_by.problem
        if not self._replies.connected.is_set():
            return self._replies.problem
        return None if self._late is None else "the broker does not answer"

    @property
    def unready_reason(self) -> str:
        """Why it is not connected, naming the broker's host and port."""
        if not self._publishing_by.is_healthy:
            return self._publishing_by.unready_reason
        return self._replies.reason if (late := self._late) is None else str(late)

    @property
    def _late(self) -> Late | None:
        return self._publishing_by.late or self._receiving_late

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

    def settled_place(self, command_id: str) -> tuple[str, int] | None:
        return self._settled.get(command_id)

    async def start(self) -> None:
        """Connect in the background, and again whenever a connection is lost."""
        self._publishing = self._publishing_by.start()
        self._task = asyncio.create_task(self._replies.run(self._receive), name=f"replies {self._name}")
        if self._lost is not None:
            self._lookups.add(asyncio.create_task(self._lost.keep_looking(), name=f"lost outcomes {self._name}"))

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
        await self._publishing_by.wait_ready()
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
        await self._publishing_by.close()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        message = issuable(message)
        if self._in_flight >= self._in_flight_max:
            raise Overloaded(f"{self._in_flight_max} commands are under way here already")
        # A number of a session that was given up would be missing.
        by = self._publishing_by
        if not (by.is_ready or (by.takes_messages and self._session is None)):
            raise BrokerUnavailable(by.unready_reason)
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
        if is_alone:
            # The id is under way already, perhaps with other content: the correlation id tells their outcomes apart.
            self._by_correlation[correlation_id] = (lane, entries[0])
        else:
            headers[HEADER_REPLY_PACKS] = True
            self._by_id.update({entry.command_id: entry for entry in entries})
        body = encode_pack([entry.message for entry in entries]) if is_pack else first.arguments
        confirm = self._send(
            lane, None if is_pack else first, headers, body, correlation_id, is_system=first.origin == "system"
        )
        pack = Pack(entries, confirm, must_come=self._session is not None)
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

    def _all_waiting(self) -> tuple[Iterable[InFlight], ...]:
        """Those whose outcomes may come, in parts in which the oldest is the first."""
        return self._by_id.values(), (entry for _, entry in self._by_correlation.values())

    def _confirm_is_late(self, pack: Pack) -> None:
        timeout_s = self._confirm_timeout_s
        pack.fail(
            lambda entry: OutcomeUnknown(
                f"{self.title} did not confirm command {entry.command_id} within {timeout_s} s: it may be applied yet"
            )
        )
        pack.withdraw()

    def _outcome_is_late(self, entries: list[InFlight]) -> None:
        """An outcome may have been lost on its way: ask the log before giving up."""
        if self._lost is None:
            self._give_up(entries)
            return
        task = asyncio.create_task(self._look_up(self._lost, entries), name="look up outcomes")
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _look_up(self, lost: LostOutcomes, entries: list[InFlight]) -> None:
        waiting = [entry for entry in entries if not entry.outcome.done()]
        await lost.find(waiting)
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
            self._note_settled(lane, entry.outcome.result())
        elif entry.pack is not None:
            self._unanswered[entry.command_id] = lane
            self._shorten(self._unanswered)
        if entry.pack is not None:
            entry.pack.forget()

    def _note_settled(self, lane: str, outcome: Outcome) -> None:
        if outcome.command_id is not None and outcome.sequence is not None:
            self._settled[outcome.command_id] = lane, outcome.sequence
            if len(self._settled) > SETTLED_MAX:
                self._settled.popitem(last=False)

    def _shorten(self, ids: dict[str, str]) -> None:
        """Forget the oldest beyond the limit. Their outcomes come before those of later commands."""
        while len(ids) > UNSETTLED_MAX:
            lane = ids.pop(next(iter(ids)))
            self._forgotten_until[lane] = self._number + 1

    def _take_in(self, correlation_id: str | None, body: bytes, *, is_pack: bool) -> None:
        """One message of outcomes has come."""
        try:
            outcomes = decode_outcomes(body) if is_pack else [decode_outcome(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.error("outcome_malformed", correlation_id=correlation_id, error=str(error))
            return
        lane, alone = (None, None) if is_pack else self._by_correlation.get(correlation_id or "", (None, None))
        if lane in self._forgotten_until and int(correlation_id or "0") >= self._forgotten_until[lane]:
            # A lane's outcomes come in its order, except that of a parked command, which names its message.
            del self._forgotten_until[lane]
        for outcome in outcomes:
            command_id = outcome.command_id or ""
            expected_of = self._unsettled.pop(command_id, None)
            expected_of = self._unanswered.pop(command_id, expected_of)
            if expected_of is not None:
                self._note_settled(expected_of, outcome)
            entry = alone or self._by_id.get(command_id)
            # Only a pack for several messages names none of them. Whose id is under way twice is in no pack's message.
            names_none = is_pack and correlation_id is None
            is_another_s = entry is not None and not names_none and correlation_id != entry.correlation_id
            if entry is not None and not is_another_s and not entry.outcome.done():
                entry.outcome.set_result(outcome)
