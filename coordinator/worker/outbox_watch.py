"""Watches the outbox and the timers: measures what waits, and wakes the lane if no process does what should be done.

A successor publishes the entries that a dead process left in the outbox. But on an idle lane no process learns that
it is the successor, since the broker tells a consumer that it is active only by delivering to it. So every process of
a lane, standbys too, looks into the outbox now and then, and publishes a marker into the lane if the same entry is
there twice under one epoch: the consumer that gets it takes the lane over, and publishes the entries that it finds.
One that cannot delete them now, or whose target takes nothing, is told again after 10 s, and in the end once a
minute. It does the same for a timer that is overdue, for a last commit of which nobody tells others that it is safe
(`Lease.proved`), and for one that waited for its key and need not wait any more, unless an operator has paused the
lane. What frees a key is acknowledged after all that waited for it, so there is such a command only where a database
or a broker has lost what it had: then nothing is delivered for its sake.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import structlog
from msgspec import Struct
from prometheus_client import Gauge

from coordinator.lane.control import Marker
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import system_command_id
from coordinator.service.rows import Key
from coordinator.stores.lane_tables import TIMERS_WAITING, OutboxEntry, ParkedCommand, Series, Timer
from coordinator.stores.port import Backlog, Read, Store, StoreError, Transaction

ROWS = Gauge("coordinator_lane_outbox_rows", "Emitted commands that the broker has not confirmed.", ["lane", "target"])
AGE = Gauge("coordinator_lane_outbox_age_seconds", "How long the oldest of them has waited.", ["lane", "target"])
TIMERS = Gauge("coordinator_lane_timers", "Commands that wait for their time.", ["lane"])
OVERDUE = Gauge("coordinator_lane_timer_overdue_seconds", "How long the first of them is overdue.", ["lane"])
_PAUSE_S_MAX: Final = 60.0
_FIRST_PAUSE_S: Final = 10.0
_PAGE: Final = 100
"""How many parked commands are read at once: a body may have a MiB."""

log = structlog.get_logger("outbox")


class Left(Struct, frozen=True):
    """The entries of an outbox, by target, and the id of the oldest command; None if there is none.

    `timers` counts those that wait for their time; `first` is the one that is due first. `is_paused`: by an operator.
    `unproved` is the sequence of a last commit of which others cannot tell whether it is safe. `freed` is the id of a
    command that waits for its key, which no failed command keeps waiting; it is looked for (`has_looked`) only once the
    lane has stood still at `sequence` from one look to the next. So is `waits`, the first that waits, freed or not.
    """

    backlog: list[Backlog]
    oldest_id: str | None
    timers: int = 0
    first: Timer | None = None
    is_paused: bool = False
    unproved: int | None = None
    freed: str | None = None
    has_looked: bool = False
    sequence: int = 0
    waits: str | None = None
    epoch: int = 0

    @property
    def first_id(self) -> str | None:
        """What tells this work for the lane from other work; None: there is none."""
        return self.oldest_id or (self.freed or self.commit_id if self.first is None else self.first.id)

    @property
    def commit_id(self) -> str | None:
        """What tells the commit that is to be proved from others."""
        return None if self.unproved is None else f"commit {self.unproved}"


class _LeftWork:
    """Work of one kind that waits for a lane: it is woken for what was there at the last look, too.

    A marker may be lost, so it is woken again: soon at first, and once a minute in the end.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._due_s = self._pause_s = 0.0

    def is_due(self, now_id: str | None, left: Left, now_s: float) -> bool:
        """Whether to wake the lane for it now; `now_id` is None where there is none. Never while the lane is paused."""
        before, self._id = self._id, now_id
        if before != now_id:
            self._due_s, self._pause_s = now_s, _FIRST_PAUSE_S
            return False
        if now_id is None or left.is_paused or now_s < self._due_s:
            return False
        self._due_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        return True


class OutboxWatch:
    """Looks every so often, on a connection of its own."""

    def __init__(self, lane: str, store: Store, wake: Callable[[str], None], interval_s: float) -> None:
        self._lane = lane
        self._store = store
        self._wake = wake
        self._interval_s = interval_s
        self._targets: set[str] = set()
        self._unsent, self._overdue, self._unproved, self._freed = (_LeftWork() for _ in range(4))

    async def run(self) -> None:
        """Until cancelled."""
        before: Left | None = None
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                left = await asyncio.to_thread(left_in_outbox, self._store, before)
                if left is None:
                    continue
                before = left
                self._measure(left.backlog)
                self._look_at_outbox(left, monotonic())
                self._look_at_timers(left, datetime.now(UTC), monotonic())
                self._look_at_commit(left, monotonic())
                self._look_at_freed(left, monotonic())
        finally:
            self._store.close()

    def _measure(self, backlog: list[Backlog]) -> None:
        now = datetime.now(UTC)
        for gone in self._targets - {each.target for each in backlog}:
            ROWS.labels(self._lane, gone).set(0)
            AGE.labels(self._lane, gone).set(0)
        for each in backlog:
            self._targets.add(each.target)
            ROWS.labels(self._lane, each.target).set(each.rows)
            AGE.labels(self._lane, each.target).set(max(0.0, (now - each.oldest_at).total_seconds()))

    def _look_at_outbox(self, left: Left, now_s: float) -> None:
        """Wake a lane whose oldest entry was there at the last look, too: whoever has it now may not know that."""
        unsent = None if left.oldest_id is None else f"{left.oldest_id} {left.epoch}"
        if self._unsent.is_due(unsent, left, now_s) and left.oldest_id is not None:
            log.warning("outbox_left", lane=self._lane, command_id=left.oldest_id)
            self._wake(marker_id(left.oldest_id))

    def _look_at_timers(self, left: Left, now: datetime, now_s: float) -> None:
        """Measure them, and wake the lane for one that was overdue at the last look, too.

        A lane that is blocked does not get a marker at every look: they would only gather in its queue.
        """
        overdue_s = 0.0 if left.first is None else max(0.0, (now - left.first.due_at).total_seconds())
        TIMERS.labels(self._lane).set(left.timers)
        OVERDUE.labels(self._lane).set(overdue_s)
        timer = left.first if overdue_s else None
        if self._overdue.is_due(None if timer is None else timer.id, left, now_s) and timer is not None:
            log.warning("timer_left", lane=self._lane, command_id=timer.command_id, overdue_s=round(overdue_s, 1))
            self._wake(marker_id(timer.id))

    def _look_at_commit(self, left: Left, now_s: float) -> None:
        """Wake a lane whose last commit was there at the last look, too, and is not proved: no process has the lane."""
        if self._unproved.is_due(left.commit_id, left, now_s) and left.commit_id is not None:
            log.info("commit_left", lane=self._lane, sequence=left.unproved)
            self._wake(marker_id(left.commit_id))

    def _look_at_freed(self, left: Left, now_s: float) -> None:
        """Wake a lane that has not applied what need not wait any more, as at the last look."""
        if self._freed.is_due(left.freed, left, now_s) and left.freed is not None:
            log.warning("parked_left", lane=self._lane, command_id=left.freed)
            self._wake(marker_id(left.freed))


def left_in_outbox(store: Store, before: Left | None = None) -> Left | None:
    """What is left for the lane to do; None if the database is away. `before` is what the last look found, if any."""
    try:
        lease = store.current()
        sequence = 0 if lease is None else lease.sequence
        stands_still = before is None or before.sequence == sequence
        waits, freed = (None, None) if before is None or not stands_still else (before.waits, before.freed)
        must_look = stands_still and not (before is not None and before.has_looked)
        transaction = store.begin()
        try:
            rows = transaction.scan(OutboxEntry, 1)
            backlog = transaction.backlog() if rows else []
            first = next(iter(transaction.scan(Timer, 1)), None)
            waits, freed = _waiting(transaction) if must_look else (waits, freed)
            counted = [] if first is None else transaction.load([Read(Series, Series.key, [TIMERS_WAITING])])[0]
        finally:
            transaction.rollback()
    except StoreError:
        return None
    return Left(
        backlog,
        rows[0].command_id if rows else None,
        sum(series.value for series in counted),
        first,
        lease is not None and lease.paused is not None,
        lease.sequence if lease is not None and lease.is_unproved else None,
        freed,
        stands_still,
        sequence,
        waits,
        0 if lease is None else lease.epoch,
    )


def _waiting(transaction: Transaction) -> tuple[str | None, str | None]:
    """The first command that waits for its key, and the first that does though no failed one keeps it waiting."""
    heads: set[str] = set()
    waiting: dict[str, tuple[int, str]] = {}
    last: Key | None = None
    while page := transaction.scan(ParkedCommand, _PAGE, last):
        for row in page:
            if row.error_code is not None:
                heads.add(row.ordering_key)
            else:
                found = (row.position, row.command_id)
                waiting[row.ordering_key] = min(found, waiting.get(row.ordering_key, found))
        last = page[-1].command_id
    free = [first for key, first in waiting.items() if key not in heads]
    return _first(waiting.values()), _first(free)


def _first(places: Collection[tuple[int, str]]) -> str | None:
    return min(places)[1] if places else None


def marker_of(command_id: str) -> CommandMessage:
    """The marker that wakes a lane in whose outbox this command was left."""
    return CommandMessage(command_id=marker_id(command_id), type=Marker.type, arguments=b"{}", origin="system")


def marker_id(command_id: str) -> str:
    """The id of the marker, the same from every process that finds this command: the log takes one row for it."""
    return system_command_id(command_id, "left in the outbox")
