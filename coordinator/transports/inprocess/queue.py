"""One lane's queue within a process.

A command goes to the lane at once. It is written to the journal where somebody is to learn that it is safe, and has
no outcome to learn instead: until then whoever issued it waits in this very process, and learns of a crash by it.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.packing import packed_bytes
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import BrokerUnavailable, OutcomeUnknown, Overloaded
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.inbox import Inbox
from coordinator.transports.inprocess.journal import Journal, JournalEntry, JournalUnavailable
from coordinator.transports.port import Confirmed

QUEUE_BYTES_MAX = 64 << 20
"""Of the commands that wait for a lane: they are in memory."""

COMMAND_BYTES: Final = 1024
"""What a command takes in memory, at least, with all that is kept of it while it waits."""

log = structlog.get_logger("inprocess")


class LocalQueue:
    """Implements `LaneTransport`. `put` and what the lane calls may be called by any thread.

    `on_settlement` gets what the lane settled, `on_emitted` what it emitted, by the lane's thread; `on_lost` why this
    process has the lane no more.
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
        bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._lane = lane
        self._inbox = inbox
        self._journal = journal
        self._on_settlement = on_settlement
        self._on_emitted = on_emitted
        self._on_lost = on_lost
        self._bytes_max = bytes_max
        self._on_emitted_confirmed: Confirmed | None = None
        self._lock = threading.Lock()
        self._channel = 0
        self._number = 0
        self._sizes: dict[int, int] = {}
        self._ids: Counter[str] = Counter()
        self._id_of: dict[int, str] = {}
        self._bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepted: set[int] = set()
        self._adding: list[tuple[JournalEntry, asyncio.Future[None]]] = []
        self._removing: list[int] = []
        self._writing: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    @property
    def unready_reason(self) -> str | None:
        return None

    def start(self, on_emitted_confirmed: Confirmed) -> None:
        """Within the event loop. What was accepted before comes first, in its order."""
        self._on_emitted_confirmed = on_emitted_confirmed
        self._loop = asyncio.get_running_loop()
        mark, accepted = (None, []) if self._journal is None else (self._journal.mark(), self._journal.read())
        # Under the lock: whatever is put in meanwhile gets a higher number, and comes behind.
        with self._lock:
            self._channel = self._inbox.begin_channel()
            if mark is not None:
                self._inbox.learn(mark)
            for number, message in accepted:
                self._accepted.add(number)
                self._number = number
                self._deliver(number, message, None, is_redelivered=True)

    def put(self, message: CommandMessage, correlation_id: str | None = None, *, is_bounded: bool = True) -> int:
        """Hand a command to the lane; return its number.

        Raises Overloaded, and BrokerUnavailable before `start`: then it is not in the queue.
        """
        with self._lock:
            if self._channel == 0:
                raise BrokerUnavailable(f"lane {self._lane} is not started")
            if is_bounded and self._bytes + _size_of(message) > self._bytes_max:
                raise Overloaded(f"the commands that wait for lane {self._lane} have {self._bytes} bytes already")
            self._number += 1
            number = self._number
            # Under the lock, so that the numbers are in the order of the queue.
            self._deliver(number, message, correlation_id, is_redelivered=False)
        return number

    async def accept(self, number: int, message: CommandMessage) -> None:
        """Return once a crash does not lose the command any more. Raises OutcomeUnknown if that cannot be had."""
        if self._loop is None or self._journal is None:
            raise OutcomeUnknown(f"command {message.command_id} is under way, and would be lost with this process")
        with self._lock:
            if number not in self._sizes:
                # It is settled meanwhile, and the log has it: in the journal nobody would take it out any more.
                return
            self._accepted.add(number)
        written: asyncio.Future[None] = self._loop.create_future()
        self._adding.append((JournalEntry(number, message), written))
        self._write_soon()
        await written

    def settle(self, channel: int, settlement: Settlement) -> None:  # noqa: ARG002  # there is one only
        with self._lock:
            for tag in settlement.tags:
                self._forget(tag)
        self._on_settlement(settlement)
        self._on_emitted(settlement.emitted)
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._take_out, settlement.tags)
            except RuntimeError:
                # The loop is closed. What stays in the journal is delivered again, and the command log answers it.
                log.info("journal_left", lane=self._lane)

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        self._on_emitted(entries)

    def keep(self, channel: int, mark: Mark) -> None:  # noqa: ARG002  # there is one only
        if self._journal is not None:
            try:
                self._journal.keep(mark)
            except JournalUnavailable as error:
                log.error("journal_unavailable", lane=self._lane, reason=str(error))  # it says it all

    def confirm_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """These are settled where they were sent."""
        if self._on_emitted_confirmed is not None:
            self._on_emitted_confirmed(entries)

    def pending(self, command_id: str) -> bool:
        """Whether a command of this id waits for the lane."""
        return self._ids[command_id] > 0

    def wake(self, command_id: str) -> None:
        self.put(
            CommandMessage(command_id=command_id, type=Marker.type, arguments=b"{}", origin="system"), is_bounded=False
        )

    def stand_by(self, channel: int) -> None:
        """Another process has taken the lane over: what is under way here is for its issuers to repeat."""
        if channel == self._channel:
            log.error("lane_lost", lane=self._lane, reason="another process took the lane over")
            self._on_lost(
                f"another process took lane {self._lane} over: issue commands there, those that were issued here with "
                "the same id"
            )

    def stop(self, timeout_s: float) -> bool:  # noqa: ARG002  # nothing is sent
        self._inbox.close()
        return True

    async def close(self) -> None:
        """Once the lane's thread has ended: write down what is settled, and let go of the journal."""
        # What the thread has settled last.
        await asyncio.sleep(0)
        while self._writing is not None and not self._writing.done():
            await self._writing
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)

    def _deliver(
        self, number: int, message: CommandMessage, correlation_id: str | None, *, is_redelivered: bool
    ) -> None:
        self._sizes[number] = size_bytes = _size_of(message)
        self._bytes += size_bytes
        self._id_of[number] = message.command_id or ""
        self._ids[message.command_id or ""] += 1
        delivery = Delivery(
            tag=number,
            commands=(message,),
            redelivered=is_redelivered,
            reply_to=None if correlation_id is None else "here",
            correlation_id=correlation_id,
        )
        self._inbox.put(self._channel, lambda: delivery)

    def _forget(self, number: int) -> None:
        self._bytes -= self._sizes.pop(number, 0)
        command_id = self._id_of.pop(number, "")
        self._ids[command_id] -= 1
        if self._ids[command_id] <= 0:
            del self._ids[command_id]

    def _take_out(self, numbers: Sequence[int]) -> None:
        gone = [number for number in numbers if number in self._accepted]
        if gone:
            self._accepted.difference_update(gone)
            self._removing += gone
            self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name=f"journal of {self._lane}")

    async def _write(self) -> None:
        """Everything that came while the last of it was written, in one go."""
        journal = self._journal
        while journal is not None and (self._adding or self._removing):
            adding, self._adding = self._adding, []
            removing, self._removing = self._removing, []
            try:
                await asyncio.to_thread(journal.write, [accepted for accepted, _ in adding], removing)
            except JournalUnavailable as error:
                log.error("journal_unavailable", lane=self._lane, reason=str(error))  # it says it all
                for accepted, written in adding:
                    self._accepted.discard(accepted.number)
                    if not written.done():
                        text = f"command {accepted.message.command_id} is under way, and not safe: {error}"
                        written.set_exception(OutcomeUnknown(text))
                # With the next that is written; delivered again, the command log answers it.
                self._removing = [*removing, *self._removing]
                return
            for _, written in adding:
                if not written.done():
                    written.set_result(None)


def _size_of(message: CommandMessage) -> int:
    return COMMAND_BYTES + packed_bytes(message)
