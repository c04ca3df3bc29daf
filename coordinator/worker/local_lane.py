"""One lane of a process without a broker: its queue, and its thread."""

import asyncio
import threading
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from coordinator.client.publish_spans import messaging
from coordinator.lane.delivery import Delivery, Settlement, SuspensionCause
from coordinator.lane.high_water import Mark
from coordinator.lane.lane import Lane
from coordinator.lane.tenancy import Clock
from coordinator.runtime.late_answers import LateAnswers
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.service.ids import new_command_id
from coordinator.service.service import Service
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.moves import Moved
from coordinator.stores.port import Lease, OnDisk, Store, StoreError
from coordinator.stores.sqlite.file import HeldFile
from coordinator.stores.watched import WatchedStore
from coordinator.transports.inbox import Inbox
from coordinator.transports.inprocess.journal import journal_of
from coordinator.transports.inprocess.queue import LocalQueue
from coordinator.worker.database_check import check_now
from coordinator.worker.holder import holder_name
from coordinator.worker.lane_spans import awaited_of_lane
from coordinator.worker.lane_thread import LaneThread
from coordinator.worker.lock_watch import LockWatch
from coordinator.worker.outbox_watch import left_in_outbox, marker_id
from coordinator.worker.suspended_words import suspended_words

log = structlog.get_logger("inprocess")


class LaneHost(Protocol):
    """Whatever runs the lanes of a process. A lane's thread calls it."""

    def deliver_emitted(self, origin: "LocalLane", entry: OutboxEntry, *, is_inherited: bool) -> None:
        """Hand an emitted command to its lane, or an effect to its worker."""

    def takes_at_once(self, target: str) -> bool:
        """Whether a lane or worker of this process is the target, and has what is emitted for it at once."""

    def reply(self, lane: "LocalLane", settlement: Settlement) -> None:
        """Give outcomes to the issuers that wait for them."""

    def has_come(self, lane: "LocalLane", mark: Mark) -> None:
        """This is how far a lane has come, to be kept for whoever has it next."""

    def lost(self, lane: str, reason: str) -> None:
        """Fail every issuer that waits for a lane that this process has lost."""


class LocalLane:
    """One lane: its queue, and its thread."""

    def __init__(
        self,
        host: LaneHost,
        service: Service,
        store: Store,
        settings: LaneSettings,
        clock: Clock,
        targets: Collection[str] | None,
        directory: Path | None,
        queue_bytes_max: int,
    ) -> None:
        self.name = service.lane
        self.lost_reason: str | None = None
        """The reason why this process has lost the lane; None: it runs it."""
        self.numbering = threading.Lock()
        """Held while a command that is put into the queue gets its number, and the number is noted."""
        self._host = host
        self._awaited = awaited = awaited_of_lane()
        self.late = LateAnswers(("lane", service.lane), [awaited])
        self._journal = partial(journal_of, store, service.lane, directory)
        self._file = store.path if isinstance(store, OnDisk) else None
        self._held: HeldFile | None = None
        self.lock_watch = LockWatch(service.lane, store, awaited)
        self._store = store = WatchedStore(store, awaited)
        self._check = partial(check_now, store, service, settings)
        self._is_checked = False
        self._database_reason: str | None = None
        """Why the database could not be checked yet, or is not fit; None: it is, or nobody has looked."""
        self._line = RepeatedLine()
        self._queue_bytes_max = queue_bytes_max
        self._settings = settings
        self.inbox = Inbox()
        self._projection = service.projection() if service.projection is not None else None
        self.holder = holder_name("in-process", service.lane)
        """The name that is in its leases."""
        self._lane = Lane(service, store, clock, self.holder, settings, time.monotonic, targets, host.takes_at_once)
        self._thread = threading.Thread(target=self._run, name=f"lane {service.lane}", daemon=True)
        self._queue: LocalQueue | None = None
        self._lane_thread: LaneThread | None = None

    @property
    def queue(self) -> LocalQueue:
        if self._queue is None:
            raise BrokerUnavailable(f"lane {self.name} is not started")
        return self._queue

    @property
    def unready_reason(self) -> str | None:
        """The reason why its commands are not safe, or do not get their outcomes; None: they are, and do.

        One that an operator has paused takes them, and they get their outcomes later: so it is behind a broker, too.
        """
        if self.lost_reason is None and self._queue is not None and (kept := self._kept_reason) is not None:
            return f"lane {self.name} is suspended: {kept}"
        return self.untaken_reason

    @property
    def untaken_reason(self) -> str | None:
        """The reason why it takes no commands, or they are not safe; None: it does, also while its database is away."""
        return self.lost_reason if self.lost_reason is not None or self._queue is None else self._queue.unready_reason

    @property
    def problem(self) -> str | None:
        """The same in words for anybody: the reason names files and hosts, and quotes rows and errors."""
        if self.lost_reason is not None:
            return f"lane {self.name} does not run here any more"
        if self._kept_reason is not None:
            trouble = "away" if self._lane_thread is None else self._lane_thread.trouble
            late = self.late.late
            why = suspended_words(self.suspended_cause, trouble) if late is None else f"it waits for {late.what}"
            return f"lane {self.name} is suspended: {why}"
        return None if self.unready_reason is None else f"what lane {self.name} accepts cannot be written"

    @property
    def _kept_reason(self) -> str | None:
        """The reason why it applies nothing, but for a pause; None: it does, or is paused."""
        is_paused = self._lane_thread is not None and self._lane_thread.is_paused and self.late.reason is None
        return None if is_paused else self.suspended_reason

    @property
    def suspended_reason(self) -> str | None:
        """The reason why it applies nothing; None: it does."""
        if self.lost_reason is not None or self._lane_thread is None:
            return self.lost_reason
        return self.late.reason or self._database_reason or self._lane_thread.suspended_reason

    @property
    def suspended_cause(self) -> SuspensionCause | None:
        """The kind of that reason; None: it has none, as where an answer is late."""
        if self.lost_reason is not None or self._lane_thread is None or self.late.reason is not None:
            return None
        return "database" if self._database_reason is not None else self._lane_thread.suspended_cause

    def put_delivery(self, delivery: Delivery) -> int:
        """Hand it a message of a broker; return its number."""
        return self.queue.put_delivery(delivery)

    def learn(self, mark: Mark) -> None:
        """Take in what a broker remembers of the lane, and keep it: the broker may be away at the next start."""
        self.queue.remember(mark)
        self.inbox.learn(mark)

    @property
    def last_number(self) -> int:
        """That of what was put into the queue last."""
        return self.queue.last_number

    def mark(self) -> Mark | None:
        """How far the lane has come; None: it is in doubt. For the lane's thread."""
        return None if self._lane.is_in_doubt else self._lane.mark()

    def confirm_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """These are settled, or safe elsewhere."""
        self.queue.confirm_emitted(entries)

    def lease(self) -> Lease | None:
        """The lease under which this process has the lane; None: it has none now."""
        return None if self.lost_reason is not None else self._lane.lease

    def pending(self, command_id: str) -> bool:
        """Whether a command with this id has no outcome yet: it is in the queue, or waits for its key."""
        # In this order: a command leaves the queue once it is known that it waits.
        return self._queue is not None and (self._queue.pending(command_id) or self._lane.is_waiting(command_id))

    async def check(self) -> None:
        """Check the database. The lane waits for one that is away, and checks it then. Raises ConfigurationError."""
        try:
            await asyncio.to_thread(self._check)
        except StoreError as error:
            self._say_unfit(str(error))
        else:
            self._is_checked = True

    def open(self) -> None:
        """Open the queue, with the commands accepted before. Raises ConfigurationError."""
        if self._file is not None:
            self._held = HeldFile(self._file)
        self._queue = LocalQueue(
            self.name,
            self.inbox,
            self._journal(),
            on_settlement=lambda settlement: self._host.reply(self, settlement),
            on_emitted=self._emitted,
            on_lost=self._lose,
            on_mark=lambda mark: self._host.has_come(self, mark),
            bytes_max=self._queue_bytes_max,
        )

    def deliver(self) -> None:
        """Let the queue deliver: the commands accepted before come first. Raises ConfigurationError."""
        lane_thread = LaneThread(
            self.name,
            self._lane,
            self.inbox,
            self.queue,
            self._projection,
            self._settings,
            self._awaited,
            messaging=messaging(is_rabbitmq=False),
        )
        self.queue.start(lane_thread.confirm_emitted)
        self._lane_thread = lane_thread

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            if not self._wait_for_database():
                return
            left = left_in_outbox(self._store)
            oldest_id = new_command_id() if left is None else left.first_id or left.waits
            if oldest_id is not None:
                # A delivery makes the lane take over, and so publish the entries that the process before left, and know
                # when the timers are due, and which commands wait for their keys. If the database is away there may be
                # some: the lane waits for it.
                self.queue.wake(marker_id(oldest_id))
            if self._lane_thread is not None:
                self._lane_thread.run()
        except Moved as error:
            log.error("lane_moved", lane=self.name, reason=str(error))  # no defect of ours
            self._lose(f"lane {self.name}: {error}")
        except Exception as error:
            log.exception("lane_failed", lane=self.name)
            self._lose(
                f"lane {self.name} has ended by a defect, {type(error).__name__}: {error}; once the process has been "
                "restarted, issue the command again with the same id"
            )

    def _wait_for_database(self) -> bool:
        """Check the database once it is there. False: the process stops before. Raises Moved.

        One that is not fit is looked at again, too: the lane has done nothing yet, and others wait for this process.
        """
        delay_s = self._settings.retry_delay_s
        while not self._is_checked:
            if self.inbox.wait_void(self.inbox.channel_number, delay_s):
                return False
            try:
                self._check()
            except Moved:
                raise
            except (StoreError, ConfigurationError) as error:
                self._say_unfit(str(error))
                delay_s = min(delay_s * 2, self._settings.retry_delay_s_max)
            else:
                self._is_checked, self._database_reason = True, None
        return True

    def _say_unfit(self, reason: str) -> None:
        self._database_reason = reason
        if self._line.is_due(reason, time.monotonic()):
            log.error("database_unavailable", lane=self.name, reason=reason)

    def stop(self, timeout_s: float) -> None:
        self.inbox.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._projection is not None:
            self._projection.close()
        self._store.close()

    async def close(self) -> None:
        if self._queue is not None:
            await self._queue.close()
        if self._held is not None:
            self._held.close()

    def _emitted(self, entries: Sequence[OutboxEntry]) -> None:
        for entry in entries:
            self._host.deliver_emitted(self, entry, is_inherited=self._lane.is_inherited(entry))

    def _lose(self, reason: str) -> None:
        self.lost_reason = reason
        self.inbox.close()
        self._host.lost(self.name, reason)
