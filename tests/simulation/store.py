"""How one process reaches its lane's database: calls that take time, fail, and lose their answers.

Not simulated: isolation levels, as a lane is the only writer: reads see what is committed at the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from coordinator.service.rows import KeyPart, Row, RowSelection, key_of
from coordinator.stores.audit_tables import AuditedTable
from coordinator.stores.lane_tables import LogEntry, OutboxEntry, Series, Timer
from coordinator.stores.port import Backlog, Changes, Conflict, Fenced, Lease, Read, StoreUnavailable
from tests.simulation.astray import CLONES
from tests.simulation.database import Database, Pending

if TYPE_CHECKING:
    from datetime import datetime

    from tests.simulation.process import Process


class Crash(BaseException):
    """The process that made this call is dead. Not an Exception: nothing may survive it."""


class SimulatedStore:
    """Implements `Store` for one process."""

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process
        self.world = database.world
        rates = self.world.rates
        self._rates = rates["stall"], rates["crash"], rates["unavailable"]
        self._connection = database.connections, process.is_astray

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        """The tables are dictionaries."""
        return ()

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:
        self.call("take over")
        self.database.check_own(self.process)
        if not self.process.was_active:
            self.world.violation(f"{self.process} takes the lane over, and was never its active consumer")
        self.database.wait_for_commit()
        self.database.add_fingerprint_key()
        self.database.lineage = self.database.lineage or lineage
        return self._raise_epoch(above)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        self.call("renew")
        self.check_lease(epoch)
        self.database.check_own(self.process)
        self.database.wait_for_commit()
        if self.database.epoch != epoch:
            raise Fenced(f"epoch {epoch} is over; it is {self.database.epoch} now")
        return self._raise_epoch()

    def _raise_epoch(self, above: int = 0) -> Lease:
        database = self.database
        database.changes()
        database.epoch = max(database.epoch, above) + 1
        database.holder = self.process.name
        self.world.trace("%s raises the epoch to %s", self.process, database.epoch)
        lease = database.lease()
        if self.world.happens("answer_lost"):
            raise StoreUnavailable("the answer was lost")
        return lease

    def current(self) -> Lease | None:
        self.call("ask whose the lane is")
        return self._lease()

    def look(self) -> Lease | None:
        self.call("look")
        return self._lease()

    def command_at(self, sequence: int) -> str | None:
        if self.world.rates["clone"]:
            # A world without such a copy is as it was before there was any.
            self.call("ask for the id of a command")
        if self.process.is_dead:
            raise Crash
        self._check_connection()
        if self.process.is_astray and sequence > self.database.copied_at.get(self.process.place, 0):
            return CLONES
        return self.database.command_at(sequence)

    def _lease(self) -> Lease:
        return self.database.astray.get(self.process.place) or self.database.lease()

    def check_lease(self, epoch: int) -> None:
        """Another database has another lease."""
        if self.process.is_astray:
            raise Fenced(f"there is no epoch {epoch} of {self.process} here")

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
            self._check_connection()
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
        database = self.database
        if database.cut_until and world.now < database.cut_until.get(process.place, 0.0):
            world.trace("%s: its database cannot be reached at %s", process, point)
            raise StoreUnavailable(f"cut off at {point}")
        if world.now < database.away_until or (unavailable and not world.is_calm and chance() < unavailable):
            world.trace("%s: the database is away at %s", process, point)
            raise StoreUnavailable(f"away at {point}")
        self._check_connection()

    def _check_connection(self) -> None:
        connection = self.database.connections, self.process.is_astray
        if self._connection != connection:
            self._connection = connection
            raise StoreUnavailable("the connection was lost: another copy answers now")


class SimulatedTransaction:
    """Implements `Transaction`."""

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.database = store.database

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        if not all(read.model is AuditedTable for read in reads):
            # A world with an audit is as it was before there was one.
            self.store.call("load")
        return [self.rows(read) for read in reads]

    def rows(self, read: Read | RowSelection[Row]) -> list[Any]:
        if isinstance(read, RowSelection):
            found = self.scan(read.model, 1 << 30, read.after)
            return [row for row in found if all(getattr(row, of) == value for of, value in read.where)][: read.limit]
        table = self.database.tables[read.model]
        if read.column == read.model.key:
            return [table[value] for value in read.values if value in table]
        wanted = set(read.values)
        return [row for row in table.values() if getattr(row, str(read.column)) in wanted]

    def scan(
        self, model: type[Any], limit: int, after: Any = None, where: tuple[str, KeyPart] | None = None
    ) -> list[Any]:
        is_of_audit = model is LogEntry and where is not None
        if not is_of_audit and (model is not Timer or self.store.world.rates["timers"]):
            # A world without timers is as it was before there were any.
            self.store.call("scan")
        table = self.database.table(model)
        keys = sorted(table) if after is None else sorted(key for key in table if key > after)
        if where is not None:
            column, value = where
            keys = [key for key in keys if getattr(table[key], column) == value]
        return [table[key] for key in keys[:limit]]

    def last(self, model: type[Any], limit: int) -> list[Any]:
        self.store.call("last")
        table = self.database.table(model)
        return [table[key] for key in sorted(table, reverse=True)[:limit]]

    def last_numbers(self, model: type[Any], limit: int) -> list[Any]:
        return [key_of(row) for row in self.last(model, limit)]

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
        self.store.check_lease(lease.epoch)
        database.check_own(process)
        self.check_fence(lease)
        database.refuse(changes)
        commit = Pending(process, lease, sequence, changes, process.waiting, *process.seen.at_commit())
        if world.happens("lands_later"):
            world.trace("%s: the connection is lost during COMMIT", process)
            database.pending = commit
            world.wake(database.actor)
            raise StoreUnavailable("the connection was lost during COMMIT")
        self.land(commit)
        world.trace("%s commits epoch %s, sequence %s", process, lease.epoch, sequence)
        if world.happens("crash_after_commit"):
            world.trace("%s crashes after its commit", process)
            process.crash()
            raise Crash
        if world.happens("answer_lost"):
            world.trace("%s: the answer to COMMIT is lost", process)
            raise StoreUnavailable("the answer to COMMIT was lost")
        last = max((row.sequence for rows in changes.inserts for row in rows if isinstance(row, LogEntry)), default=0)
        process.seen.committed(sequence, self.given_out(), last)

    def wait_for_lock(self) -> None:
        self.database.wait_for_commit()

    def check_fence(self, lease: Lease) -> None:
        self.database.fence(lease)

    def land(self, commit: Pending) -> None:
        self.database.land(commit)

    def given_out(self) -> Iterable[Series]:
        """The ids as of the commit that was answered last."""
        return self.database.table(Series).values()

    def rollback(self) -> None:
        """Nothing was kept."""
