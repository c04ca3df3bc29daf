"""The database of a lane: transactions, a lease row and its lock, and everything that can go wrong at each step.

Simulated: unavailable at any call; conflicts; refused batches (unique columns, a check, a length, a range); a commit
that is applied though its answer is lost, or that lands later, with the lease row's lock held until then, so that
whoever raises the epoch or fences waits it out; operators' transactions. Not simulated: isolation levels, as a lane is
the only writer: reads see what is committed at the time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from coordinator.service.rows import R, Row
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry, OutboxEntry, ParkedCommand
from coordinator.stores.port import Backlog, BatchFault, Changes, Conflict, Fenced, Lease, Read, StoreUnavailable
from tests.simulation.letters import Book
from tests.simulation.schedule import DONE, IDLE, NEVER, PASSED, Act
from tests.simulation.services import BALANCE_MIN, NOTE_CHARACTERS_MAX
from tests.support.ledger import Account

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

INTEGER_MAX = 2**63 - 1


def rows_of(model: type[R], groups: Sequence[Sequence[Row]]) -> list[R]:
    """Those of one model; each group has rows of one."""
    return [cast("R", row) for rows in groups if type(rows[0]) is model for row in rows]


class Crash(BaseException):
    """The process that made this call is dead. Not an Exception: nothing may survive it."""


class Pending(Struct, frozen=True):
    """A COMMIT on its way: it has passed the fence and holds the lease row's lock."""

    process: Process
    lease: Lease
    sequence: int
    changes: Changes
    waiting: int
    """How many deliveries its process had not settled when the lane admitted this batch."""


class Database:
    """What the stores of one lane's processes share. An actor: commits under way land, or are lost."""

    def __init__(self, world: World, lane: str) -> None:
        self.world = world
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.lane = lane
        self.tables: defaultdict[type[Row], dict[Any, Any]] = defaultdict(dict)
        self.epoch = 0
        self.sequence = 0
        self.revision = 0
        self.paused: str | None = None
        self.loss_accepted: int | None = None
        self.holder = ""
        self.pending: Pending | None = None
        self.away_until = 0.0
        self.landed_at: dict[str, int] = {}
        self.holders: dict[int, Process] = {}
        """Who has committed in which epoch."""
        self.cancelled: set[str] = set()
        # By id, of commands that wait for their key: when that was committed, their place, and the account.
        self.waited: dict[str, tuple[int, int, int]] = {}
        self.book = Book(world, lane)
        self.withdrawn: set[str] = set()

    def lease(self) -> Lease:
        return Lease(self.epoch, self.sequence, self.revision, self.paused, self.loss_accepted, self.holder)

    def table(self, model: type[Row]) -> dict[Any, Any]:
        return self.tables[model]

    def step(self) -> Act:
        if self.pending is None:
            return IDLE
        if self.world.chance() < 0.7:
            return PASSED
        self.wait_for_commit()
        return DONE

    def wake(self) -> float:
        return NEVER if self.pending is None else self.world.now + 0.1

    def wait_for_commit(self) -> None:
        """Return once no COMMIT holds the lease row's lock."""
        pending, self.pending = self.pending, None
        if pending is None:
            return
        if self.world.chance() < 0.7:
            self.world.trace("database %s: the commit of %s lands late", self.lane, pending.process)
            self.land(pending)
        else:
            self.world.trace("database %s: the commit of %s is lost", self.lane, pending.process)

    def fence(self, lease: Lease) -> None:
        if (self.epoch, self.sequence, self.revision) != (lease.epoch, lease.sequence, lease.revision):
            raise Fenced(f"epoch {lease.epoch} is over; it is {self.epoch} now")

    def land(self, commit: Pending) -> None:
        """Make a commit durable, and note what no commit may do."""
        self._check_right(commit)
        waiting = self._note_waiting(commit.changes)
        for rows in commit.changes.deletes:
            for row in rows:
                self.table(type(row)).pop(getattr(row, row.key), None)
        for rows in (*commit.changes.updates, *commit.changes.inserts):
            table = self.tables[type(rows[0])]
            for row in rows:
                table[getattr(row, row.key)] = row
                if isinstance(row, LogEntry):
                    self.world.ticks += 1
                    self.landed_at.setdefault(row.command_id, self.world.ticks)
                    # What waited for its key had its turn among its publisher's commands when it began to wait.
                    if row.command_id not in self.waited:
                        self.world.taken(commit, row.command_id)
        for command_id in waiting:
            self.world.taken(commit, command_id)
        self.sequence = commit.sequence
        self.book.note(self, commit.changes)

    def _check_right(self, commit: Pending) -> None:
        """Only the holder of the present epoch commits, and not while the lane is paused."""
        if commit.lease.epoch != self.epoch:
            self.world.violation(f"a commit of epoch {commit.lease.epoch} landed in epoch {self.epoch}")
        holder = self.holders.setdefault(self.epoch, commit.process)
        if holder is not commit.process:
            self.world.violation(f"{commit.process} committed in epoch {self.epoch}, which is that of {holder}")
        if self.paused is not None:
            self.world.violation("a commit landed while the lane was paused")

    def _note_waiting(self, changes: Changes) -> list[str]:
        """Those that begin to wait do so behind everything that the same transaction settles."""
        waiting = rows_of(ParkedCommand, changes.inserts)
        entries = len(rows_of(LogEntry, changes.inserts)) if waiting else 0
        if waiting:
            self.world.wake(self.world.chaos.actor)
        begun = [row for row in waiting if row.error_code is None and row.command_id not in self.waited]
        for row in begun:
            account = int(row.ordering_key.partition("=")[2])
            self.waited[row.command_id] = (self.world.ticks + entries, len(self.waited) + 1, account)
        return [row.command_id for row in begun]

    def refuse(self, changes: Changes) -> None:
        """Raises BatchFault if the changes violate a constraint."""
        for rows in changes.inserts:
            model = type(rows[0])
            table = self.tables[model]
            keys = [getattr(row, row.key) for row in rows]
            taken = {key for key in keys if key in table}
            if taken:
                taken -= {getattr(row, row.key) for rows_ in changes.deletes for row in rows_ if type(row) is model}
            if taken or len(set(keys)) < len(keys):
                raise BatchFault(f"{rows[0].table}: duplicate key")
            if model is DeadLetter:
                self._refuse_letters(changes, rows)
        written = rows_of(Account, (*changes.updates, *changes.inserts))
        for row in written:
            if not BALANCE_MIN <= row.balance <= INTEGER_MAX or len(row.note or "") > NOTE_CHARACTERS_MAX:
                raise BatchFault("accounts: a value out of range")
        if written:
            owners = {key: row.owner for key, row in self.table(Account).items()}
            for row in rows_of(Account, changes.deletes):
                owners.pop(row.id, None)
            owners.update((row.id, row.owner) for row in written)
            if len(set(owners.values())) < len(owners):
                raise BatchFault("accounts: duplicate owner")

    def _refuse_letters(self, changes: Changes, added: Sequence[Any]) -> None:
        gone = {row.id for row in rows_of(DeadLetter, changes.deletes)}
        sources = [row.source for row in added]
        sources += [row.source for row in self.table(DeadLetter).values() if row.id not in gone]
        twice = {source for source, number in Counter(sources).items() if number > 1}
        if twice:
            logged = {row.command_id for row in rows_of(LogEntry, changes.inserts)}
            # One that is logged with its command may be tried without asking the log; others the lane looks for.
            if twice - logged:
                self.world.violation(f"{self.lane}: a dead letter is written twice")
            raise BatchFault("dead_letters: duplicate source")

    def pause(self, reason: str | None) -> None:
        """An operator's transaction; it waits for the lease row's lock too."""
        self.wait_for_commit()
        self.revision += 1
        self.paused = reason

    def cancel(self, command_id: str) -> None:
        self.wait_for_commit()
        self.revision += 1
        if command_id not in self.table(LogEntry):
            self.cancelled.add(command_id)
            self.table(Cancellation).setdefault(
                command_id,
                Cancellation(command_id=command_id, reason="simulated", requested_at=self.world.wall()),
            )


class SimulatedStore:
    """Implements `Store` for one process."""

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process
        self.world = database.world
        rates = self.world.rates
        self._rates = rates["stall"], rates["crash"], rates["unavailable"]

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> None:
        """The tables are dictionaries."""

    def take_over(self, holder: str, now: datetime, above: int = 0) -> Lease:
        self.call("take over")
        if not self.process.was_active:
            self.world.violation(f"{self.process} takes the lane over, and was never its active consumer")
        self.database.wait_for_commit()
        self.database.epoch = max(self.database.epoch, above)
        return self._raise_epoch()

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        self.call("renew")
        self.database.wait_for_commit()
        if self.database.epoch != epoch:
            raise Fenced(f"epoch {epoch} is over; it is {self.database.epoch} now")
        return self._raise_epoch()

    def _raise_epoch(self) -> Lease:
        database = self.database
        database.epoch += 1
        database.holder = self.process.name
        self.world.trace("%s raises the epoch to %s", self.process, database.epoch)
        lease = database.lease()
        if self.world.happens("answer_lost"):
            raise StoreUnavailable("the answer was lost")
        return lease

    def current(self) -> Lease | None:
        self.call("ask whose the lane is")
        return self.database.lease()

    def begin(self) -> SimulatedTransaction:
        self.call("begin")
        return SimulatedTransaction(self)

    def close(self) -> None:
        """Nothing is open."""

    def call(self, point: str) -> None:
        """Time passes, others act, and things go wrong."""
        world, process = self.world, self.process
        if process.is_dead:
            raise Crash
        if world.is_calm:
            return
        stall, crash, unavailable = self._rates
        chance = world.chance
        if stall and chance() < stall:
            world.trace("%s stalls at %s", process, point)
            world.interlude()
        if crash and not world.is_calm and chance() < crash:
            world.trace("%s crashes at %s", process, point)
            process.crash()
        if process.is_dead:
            raise Crash
        if world.now < self.database.away_until or (unavailable and not world.is_calm and chance() < unavailable):
            world.trace("%s: the database is away at %s", process, point)
            raise StoreUnavailable(f"away at {point}")


class SimulatedTransaction:
    """Implements `Transaction`."""

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.database = store.database

    def load(self, reads: Sequence[Read]) -> list[list[Any]]:
        self.store.call("load")
        return [self.rows(read) for read in reads]

    def rows(self, read: Read) -> list[Any]:
        table = self.database.tables[read.model]
        if read.column == read.model.key:
            return [table[value] for value in read.values if value in table]
        wanted = set(read.values)
        return [row for row in table.values() if getattr(row, read.column) in wanted]

    def scan(
        self, model: type[Any], limit: int, after: Any = None, where: tuple[str, int | str] | None = None
    ) -> list[Any]:
        self.store.call("scan")
        table = self.database.table(model)
        keys = sorted(table) if after is None else sorted(key for key in table if key > after)
        if where is not None:
            column, value = where
            keys = [key for key in keys if getattr(table[key], column) == value]
        return [table[key] for key in keys[:limit]]

    def backlog(self) -> list[Backlog]:
        self.store.call("backlog")
        targets: dict[str, list[OutboxEntry]] = {}
        for entry in self.database.table(OutboxEntry).values():
            targets.setdefault(entry.lane, []).append(entry)
        return [
            Backlog(target, len(entries), min(entry.created_at for entry in entries))
            for target, entries in sorted(targets.items())
        ]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        world, database, process = self.store.world, self.database, self.store.process
        self.store.call("commit")
        if world.happens("conflict"):
            raise Conflict("deadlock")
        self.wait_for_lock()
        self.check_fence(lease)
        database.refuse(changes)
        commit = Pending(process, lease, sequence, changes, process.waiting)
        if world.happens("lands_later"):
            world.trace("%s: the connection is lost during COMMIT", process)
            database.pending = commit
            world.wake(database.actor)
            raise StoreUnavailable("the connection was lost during COMMIT")
        database.land(commit)
        world.trace("%s commits epoch %s, sequence %s", process, lease.epoch, sequence)
        if world.happens("crash_after_commit"):
            world.trace("%s crashes after its commit", process)
            process.crash()
            raise Crash
        if world.happens("answer_lost"):
            world.trace("%s: the answer to COMMIT is lost", process)
            raise StoreUnavailable("the answer to COMMIT was lost")

    def wait_for_lock(self) -> None:
        self.database.wait_for_commit()

    def check_fence(self, lease: Lease) -> None:
        self.database.fence(lease)

    def rollback(self) -> None:
        """Nothing was kept."""
