"""What a consumer is on each broker: a thread of its own for a lane's I/O, and how the lane's thread reaches it.

So no batch, however long, keeps the broker from hearing of this process.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog

from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.telling import tell
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.service.ids import new_command_id
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import Emitting
from coordinator.transports.inbox import Inbox
from coordinator.transports.port import Confirmed
from coordinator.transports.reconnecting import HandedOver

OUTCOMES_WAIT_S: Final = 10.0

log = structlog.get_logger("consumer")


class _OutcomesWay(Protocol):
    async def wait_ready(self) -> None: ...


class _Connected(Protocol):
    @property
    def lost(self) -> "asyncio.Future[BrokerUnavailable]": ...


class ConsumerThread(ABC):
    """The part of a `LaneTransport` that is the same on each broker. What `_loop` runs is the consumer's own."""

    def __init__(self, lane: str, inbox: Inbox) -> None:
        self._lane = lane
        self._inbox = inbox
        self._on_emitted_confirmed: Confirmed = _ignore
        self._emitted: Emitting | None = None
        """What the lane emits while it is this channel's; None: there is no channel."""
        self._outward: Emitting | None = None
        """What a lane without a channel emits: one that runs in this process, and has a bridge."""
        self._has_left_emitted = False
        self._line = RepeatedLine()
        self._loop = new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"broker {lane}", daemon=True)
        self.failure: Exception | None = None

    @abstractmethod
    async def _serve(self) -> None:
        """Run until `_stop` is set, or something ends by a failure."""

    @abstractmethod
    def _new_emitting(self) -> Emitting:
        """Nothing is on its way in it."""

    @abstractmethod
    def _carry_out_now(self, channel_number: int, settlement: Settlement) -> None:
        """Carry out a settlement; outcomes first, since clients wait for them."""

    @abstractmethod
    def _keep(self, channel_number: int, mark: Mark) -> None:
        """Keep a mark, unless the channel is gone: its successor knows better then."""

    @abstractmethod
    def _end_channel(self, channel_number: int) -> None:
        """End this channel, if it is not gone already."""

    @abstractmethod
    def _hand_over(self, channel_number: int) -> None:
        """End this channel by `HandedOver`, if it is not gone already, once the mark is kept."""

    @abstractmethod
    def _publish(self, marker: CommandMessage) -> "asyncio.Future[Any]":
        """Publish a command of the system to the lane itself."""

    def start(self, on_emitted_confirmed: Confirmed) -> None:
        self._on_emitted_confirmed = on_emitted_confirmed
        self._thread.start()

    def settle(self, channel_number: int, settlement: Settlement) -> None:
        """Carry out a settlement, in the order of the calls. Called by the lane's thread."""
        tell(self._loop, self._carry_out, channel_number, settlement)

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish commands that a lane without a channel has emitted. Called by the lane's thread."""
        tell(self._loop, self._publish_outward, list(entries))

    def keep(self, channel: int, mark: Mark) -> None:
        """Keep how far the lane has come. Called by the lane's thread."""
        tell(self._loop, self._keep, channel, mark)

    def wake(self, command_id: str) -> None:
        if self._thread.is_alive():
            tell(self._loop, self._publish_marker, command_id)

    def stand_by(self, channel_number: int) -> None:
        """End this channel, and queue up behind the other consumers."""
        tell(self._loop, self._end_channel, channel_number)

    def begin_again(self, channel_number: int) -> bool:
        """End this channel: the mark is read again with the next one."""
        tell(self._loop, self._end_channel, channel_number)
        return True

    def hand_over(self, channel_number: int) -> bool:
        """End this channel once the mark is kept."""
        tell(self._loop, self._hand_over, channel_number)
        return True

    def stop(self, timeout_s: float) -> bool:
        """Finish the settlements that were given, then leave. False: that took longer than the timeout."""
        if self._thread.is_alive():
            tell(self._loop, self._stop.set)
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        # A process may have several lanes, whose lines say whose they are.
        structlog.contextvars.bind_contextvars(lane=self._lane)
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception as error:  # noqa: BLE001  # the process ends by it
            self._failed(error)
        finally:
            self._inbox.close()

    def _failed(self, error: Exception) -> None:
        """End the process and log why: one line for a configuration, a traceback for a defect."""
        if not isinstance(error, ConfigurationError):
            log.error("consumer_failed", lane=self._lane, exc_info=error)
        self.failure = self.failure or error

    def _all_ended(self, tasks: Sequence["asyncio.Task[Any]"]) -> None:
        """The tasks of `_serve` have ended: note the failures by which they did."""
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                self._failed(error)
        self._inbox.close()

    def _say_consuming(self, channel_number: int, ended: Exception | None) -> None:
        """A channel begins; `ended` is why the one before has ended. After a lane was handed over it is news once a
        minute."""
        if not isinstance(ended, HandedOver) or self._line.is_due(str(ended), time.monotonic()):
            log.info("consuming", lane=self._lane, channel_number=channel_number)

    async def _wait_for_outcomes(self, outcomes: _OutcomesWay, connection: _Connected) -> None:
        """After the broker was away, wait until outcomes can leave, but not for ever: then commands go on without."""
        ready = asyncio.create_task(outcomes.wait_ready())
        changes: set[asyncio.Future[Any]] = {ready, connection.lost}
        try:
            await asyncio.wait(changes, timeout=OUTCOMES_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(ready)

    def _carry_out(self, channel_number: int, settlement: Settlement) -> None:
        try:
            self._carry_out_now(channel_number, settlement)
        except Exception as error:  # noqa: BLE001  # the process ends by it
            # This process cannot settle these deliveries any more: another one must get them.
            self._failed(error)
            self._stop.set()

    def _begin_emitting(self) -> None:
        """A channel begins."""
        self._end_emitting()
        self._emitted = self._new_emitting()

    def _end_emitting(self) -> None:
        """The channel is gone: the lane may be another process's now, or soon."""
        emitted, self._emitted = self._emitted, None
        if emitted is not None:
            self._has_left_emitted = self._has_left_emitted or not emitted.is_idle
            emitted.stop()

    def _stop_emitting(self) -> None:
        """The process ends."""
        self._end_emitting()
        if self._outward is not None:
            self._outward.stop()

    def _wake_for_left(self) -> None:
        """Have whoever has the lane now read in the outbox what this consumer has left with a channel before."""
        if self._has_left_emitted:
            self._has_left_emitted = False
            self._publish_marker(new_command_id())

    def _emit(self, settlement: Settlement, *, is_current: bool) -> None:
        """`is_current`: the channel is there. What was committed for one that is gone is read in the outbox."""
        if self._outward is not None:
            self._outward.withdraw(settlement.withdrawn)
        if self._emitted is not None and is_current:
            self._emitted.withdraw(settlement.withdrawn)
            self._emitted.publish(settlement.emitted)
        elif settlement.emitted:
            self._has_left_emitted = True
            if self._emitted is not None:
                # The next one began before this was committed. A timer's command has no delivery that comes again.
                self._wake_for_left()

    def _publish_outward(self, entries: Sequence[OutboxEntry]) -> None:
        if self._outward is None:
            self._outward = self._new_emitting()
        self._outward.publish(entries)

    def _emitted_are_confirmed(self, entries: Sequence[OutboxEntry]) -> None:
        self._on_emitted_confirmed(entries)

    def _publish_marker(self, command_id: str) -> None:
        confirm = self._publish(CommandMessage(command_id, Marker.type, b"{}"))
        # The next look shows whether it arrived.
        confirm.add_done_callback(lambda done: done.cancelled() or done.exception())


def in_full(delivery: Callable[[], Delivery]) -> Callable[[], Delivery]:
    """A delivery that is read now, and not once its turn comes: so only the kept part of a large message waits."""
    read = delivery()
    return lambda: read


def _ignore(_: Sequence[OutboxEntry]) -> None:
    """A stand-in before the start, when no command is emitted."""
