"""One lane's queue within a process.

A command goes to the lane at once. It is written to the journal only when its issuer must learn that it is safe before
it has an outcome. Until then the issuer waits in this very process, so a crash cannot deceive it.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog
from msgspec.structs import replace

from coordinator.lane.control import Marker
from coordinator.lane.delivery import Arrival, Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.packing import packed_bytes
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.clock import now_ms
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.telling import tell
from coordinator.service.errors import BrokerUnavailable, OutcomeUnknown, Overloaded
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.inbox import Inbox
from coordinator.transports.inprocess.journal import WRITE_BYTES_MAX, Journal, JournalUnavailable, encode_message
from coordinator.transports.inprocess.journal_mark import JournalMark
from coordinator.transports.inprocess.unwritten import UnwrittenCommand
from coordinator.transports.port import Confirmed

QUEUE_BYTES_MAX = 64 << 20
"""The bytes of the commands that may wait for a lane, since they are in memory."""

COMMAND_BYTES: Final = 1024
"""The least memory that a command takes while it waits."""
RETRY_S: Final = 1.0
"""The pause before the next attempt at a journal that could not be written, even if nothing is accepted meanwhile."""

log = structlog.get_logger("inprocess")


class LocalQueue:
    """Implements `LaneTransport`. Any thread may call `put`, and the methods that the lane calls.

    The lane's thread calls `on_settlement` with each settlement, `on_emitted` with the emitted commands, and `on_mark`
    with each mark that it has to be kept. `on_lost` gets the reason when this process has lost the lane.
    """

    def __init__(
        self,
        lane: str,
        inbox: Inbox,
        journal: Journal | None,
        *,
        on_settlement: Callable[[Settlement], None],
        on_emitted: Callable[[Sequence[OutboxEntry]], None],
        on_lost: Callable[[str], None],
        on_mark: Callable[[Mark], None] = lambda _: None,
        bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._lane = lane
        self._inbox = inbox
        self._journal = journal
        self._on_settlement = on_settlement
        self._on_emitted = on_emitted
        self._on_lost = on_lost
        self._on_mark = on_mark
        self._bytes_max = bytes_max
        self._on_emitted_confirmed: Confirmed | None = None
        self._lock = threading.Lock()
        self._channel = 0
        self._number = 0
        self._sizes: dict[int, int] = {}
        self._ids: dict[str, int] = {}
        """How many commands with each id wait. A Counter would take three times as long."""
        self._id_of: dict[int, str] = {}
        self._bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepted: set[int] = set()
        self._adding: dict[int, UnwrittenCommand] = {}
        self._removing: list[int] = []
        """Of these none is in `_adding`: a removal is never written ahead of what it removes."""
        self._writing: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._mark = JournalMark(lane, journal)
        self.failure: Exception | None = None
        self._unwritable: str | None = None
        """Why nothing could be written; None: it could, the last time."""

    @property
    def unready_reason(self) -> str | None:
        """Why nothing can be made safe; None: it can."""
        if self._unwritable is None and self._journal is not None and (why := self._journal.problem()) is not None:
            return self._cannot_be_written(why)
        return self._unwritable

    def start(self, on_emitted_confirmed: Confirmed) -> None:
        """Called within the event loop. The commands accepted before come first, in their order."""
        self._on_emitted_confirmed = on_emitted_confirmed
        self._loop = asyncio.get_running_loop()
        mark, accepted = self._mark.start(), [] if self._journal is None else self._journal.read()
        # Under the lock: a command that is put in meanwhile gets a higher number, and comes behind.
        with self._lock:
            self._channel = self._inbox.begin_channel()
            if mark is not None:
                self._inbox.learn(mark)
            for number, message in accepted:
                self._accepted.add(number)
                self._number = number
                self._deliver(number, message, _size_of(message), None, is_redelivered=True)
        if self._journal is not None and (why := self._journal.problem()) is not None:
            # It is tried again until something can be written, also while nobody asks for it.
            self._try_later(why, ())

    def put(self, message: CommandMessage, correlation_id: str | None = None, *, is_bounded: bool = True) -> int:
        """Hand a command to the lane; return its number.

        Raises Overloaded, and BrokerUnavailable before `start`: then it is not in the queue.
        """
        with self._lock:
            if self._channel == 0:
                raise BrokerUnavailable(f"lane {self._lane} is not started")
            size_bytes = _size_of(message)
            if is_bounded and self._bytes + size_bytes > self._bytes_max:
                raise Overloaded(f"the commands that wait for lane {self._lane} have {self._bytes} bytes already")
            self._number += 1
            number = self._number
            # Under the lock, so that the numbers are in the order of the queue.
            self._deliver(number, message, size_bytes, correlation_id, is_redelivered=False)
        return number

    def put_delivery(self, delivery: Delivery) -> int:
        """Hand a message of another transport to the lane, which keeps it until it is settled; return its number.

        That transport bounds how many there are. Raises BrokerUnavailable before `start`.
        """
        with self._lock:
            if self._channel == 0:
                raise BrokerUnavailable(f"lane {self._lane} is not started")
            self._number += 1
            first = delivery.commands[0] if len(delivery.commands) == 1 else None
            size_bytes = COMMAND_BYTES * len(delivery.commands) + delivery.size_bytes
            self._enter(
                replace(delivery, tag=self._number), size_bytes, "" if first is None else first.command_id or ""
            )
            return self._number

    async def accept(self, number: int, message: CommandMessage) -> None:
        """Return once a crash can no longer lose the command. Raises OutcomeUnknown if that is impossible."""
        if self._loop is None or self._journal is None or self.failure is not None:
            raise OutcomeUnknown(f"command {message.command_id} is under way, and would be lost with this process")
        # Encoded here, so that it fails alone: it is written together with others.
        try:
            encoded = encode_message(message)
        except (TypeError, ValueError, OverflowError) as error:
            text = f"command {message.command_id} is under way, and cannot be written down: {error}"
            raise OutcomeUnknown(text) from error
        with self._lock:
            if number not in self._sizes:
                # It was settled meanwhile, and the log has it. Nobody would take it out of the journal any more.
                return
            self._accepted.add(number)
        written: asyncio.Future[None] = self._loop.create_future()
        self._adding[number] = UnwrittenCommand(number, message.command_id or "", encoded, written)
        self._write_soon()
        await written

    async def accept_unless(self, outcome: "asyncio.Future[Any]", number: int, message: CommandMessage) -> None:
        """As `accept`, but return also once there is an outcome."""
        accepting = asyncio.ensure_future(self.accept(number, message))
        changes: set[asyncio.Future[Any]] = {accepting, outcome}
        try:
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            if not outcome.done():
                accepting.result()
        finally:
            await end_tasks(accepting)

    def settle(self, channel: int, settlement: Settlement) -> None:  # noqa: ARG002  # there is one only
        with self._lock:
            for tag in settlement.tags:
                self._forget(tag)
            # Most are settled before they would be written down, and leave nothing to do.
            accepted = [tag for tag in settlement.tags if tag in self._accepted]
        self._on_settlement(settlement)
        self._on_emitted(settlement.emitted)
        if accepted and self._loop is not None and not tell(self._loop, self._take_out, accepted):
            # The commands left in the journal are delivered again, and the log answers them.
            log.info("journal_left", lane=self._lane)

    def keep(self, channel: int, mark: Mark) -> None:  # noqa: ARG002  # there is one only
        self._mark.keep(mark)
        self._on_mark(mark)

    def remember(self, mark: Mark) -> None:
        """Keep in the journal what another one than the lane knows."""
        self._mark.keep(mark)

    @property
    def mark(self) -> Mark | None:
        """The newest that was found or is to be kept; None: the lane is not started, or has kept none yet."""
        return self._mark.mark

    def confirm_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Note that these are settled in the lanes to which they were sent."""
        if self._on_emitted_confirmed is not None:
            self._on_emitted_confirmed(entries)

    @property
    def last_number(self) -> int:
        """That of what was put in last. The lane's thread gets all later ones behind a mark that it was told before."""
        return self._number

    @property
    def waiting(self) -> int:
        """How many commands wait for the lane."""
        return len(self._sizes)

    def pending(self, command_id: str) -> bool:
        """Whether a command with this id waits for the lane."""
        return command_id in self._ids

    def wake(self, command_id: str) -> None:
        self.put(
            CommandMessage(command_id=command_id, type=Marker.type, arguments=b"{}", origin="system"), is_bounded=False
        )

    def stand_by(self, channel: int) -> None:
        """Another process has taken the lane over: the issuers of commands under way here must repeat them."""
        if channel == self._channel:
            log.error("lane_lost", lane=self._lane, reason="another process took the lane over")
            self._on_lost(
                f"another process took lane {self._lane} over: issue commands there, those that were issued here with "
                "the same id"
            )

    def begin_again(self, channel: int) -> bool:  # noqa: ARG002  # there is one only
        """No other process has the journal, in which the mark is."""
        return False

    def hand_over(self, channel: int) -> bool:  # noqa: ARG002  # there is one only
        """Nor does one have the commands that wait here."""
        return False

    @property
    def late(self) -> None:
        """Its journal waits for no server; what cannot be written there is said by `unready_reason`."""
        return

    def stop(self, timeout_s: float) -> bool:  # noqa: ARG002  # nothing is sent
        self._inbox.close()
        return True

    async def close(self) -> None:
        """Take the settled commands out of the journal and close it, once the lane's thread has ended."""
        # Lets the loop run what the thread has scheduled last.
        await asyncio.sleep(0)
        if self._retry is not None:
            self._retry.cancel()
        while self._writing is not None and not self._writing.done():
            await self._writing
            if self._retry is not None:
                self._retry.cancel()
        await self._mark.close()
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)

    def _deliver(
        self,
        number: int,
        message: CommandMessage,
        size_bytes: int,
        correlation_id: str | None,
        *,
        is_redelivered: bool,
    ) -> None:
        delivery = Delivery(
            tag=number,
            commands=(message,),
            redelivered=is_redelivered,
            reply_to=None if correlation_id is None else "here",
            correlation_id=correlation_id,
            arrival=Arrival(now_ms(), 2 if is_redelivered else 1),
        )
        self._enter(delivery, size_bytes, message.command_id or "")

    def _enter(self, delivery: Delivery, size_bytes: int, command_id: str) -> None:
        self._sizes[delivery.tag] = size_bytes
        self._bytes += size_bytes
        self._id_of[delivery.tag] = command_id
        self._ids[command_id] = self._ids.get(command_id, 0) + 1
        self._inbox.put(self._channel, lambda: delivery)

    def _forget(self, number: int) -> None:
        self._bytes -= self._sizes.pop(number, 0)
        command_id = self._id_of.pop(number, "")
        if (waiting := self._ids.get(command_id, 0)) > 1:
            self._ids[command_id] = waiting - 1
        else:
            self._ids.pop(command_id, None)

    def _take_out(self, numbers: Sequence[int]) -> None:
        gone = [number for number in numbers if number in self._accepted]
        if gone:
            self._accepted.difference_update(gone)
            for number in gone:
                if number in self._adding:
                    # It need not be written any more: the log has it.
                    self._adding.pop(number).is_safe()
                else:
                    self._removing.append(number)
            self._write_soon()

    def _write_soon(self) -> None:
        if self.failure is None and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write(), name=f"journal of {self._lane}")

    async def _write(self) -> None:
        """Write, in one go each time, everything that came during the last write."""
        journal, adding = self._journal, list[UnwrittenCommand]()
        try:
            while journal is not None and (self._adding or self._removing or self._unwritable is not None):
                adding = self._next_added()
                removing, self._removing = self._removing, []
                try:
                    added = [(accepted.number, accepted.message) for accepted in adding]
                    await asyncio.to_thread(journal.write, added, removing)
                except JournalUnavailable as error:
                    self._removing = [*removing, *self._removing]
                    self._try_later(str(error), adding)
                    return
                self._unwritable = None
                for accepted in adding:
                    accepted.is_safe()
        except Exception as error:
            log.exception("journal_failed", lane=self._lane)
            self._end(error, adding)

    def _next_added(self) -> list[UnwrittenCommand]:
        added: list[UnwrittenCommand] = []
        size_bytes = 0
        for accepted in self._adding.values():
            size_bytes += len(accepted.message)
            if added and size_bytes > WRITE_BYTES_MAX:
                break
            added.append(accepted)
        for accepted in added:
            del self._adding[accepted.number]
        return added

    def _try_later(self, why: str, adding: Iterable[UnwrittenCommand]) -> None:
        """Commands that could not be added may be on disk all the same: they are taken out once they are settled."""
        if self._unwritable is None:
            log.error("journal_unavailable", lane=self._lane, reason=why)
        self._unwritable = self._cannot_be_written(why)
        self._fail_all(why, adding)
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._write_soon)

    def _cannot_be_written(self, why: str) -> str:
        return f"the journal of lane {self._lane} cannot be written: {why}"

    def _fail_all(self, why: str, adding: Iterable[UnwrittenCommand]) -> None:
        for accepted in (*adding, *self._adding.values()):
            accepted.fail(why)
        self._adding.clear()

    def _end(self, error: Exception, adding: Iterable[UnwrittenCommand]) -> None:
        """Fail everything that waits to be written down, and end the lane: the journal has failed for good."""
        self.failure = error
        why = f"its journal has ended by a defect, {type(error).__name__}: {error}"
        self._fail_all(why, adding)
        self._on_lost(f"lane {self._lane}: {why}; once the process has been restarted, issue the command again")


def _size_of(message: CommandMessage) -> int:
    return COMMAND_BYTES + packed_bytes(message)
