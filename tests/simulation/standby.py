"""A lane that requires a synchronous standby (LANE_REQUIRE_SYNC_STANDBY), as PostgreSQL keeps it.

Each transaction proves by its fence that commits wait for the standby. It comes and goes: while it is away a COMMIT is
on the primary's disk, has the lease row's lock and is seen by nobody, until the standby has it, or until somebody ends
that wait (an operator, a takeover, another setting), when all see it and the standby may never get it. A failover
promotes the standby: it has what it received, in order, and nothing else. So nothing that anybody was told may be lost.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec.structs import replace

from coordinator.stores.admin import LaneAdmin, proved_entry
from coordinator.stores.lane_tables import LogEntry, Series
from coordinator.stores.port import Lease, StoreUnavailable
from tests.simulation.database import Database, Pending
from tests.simulation.failover import Copy, copy_of, known_to, restore
from tests.simulation.schedule import DONE, NEVER, Act
from tests.simulation.store import Crash, SimulatedStore, SimulatedTransaction

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

SHARE: Final = 0.08
"""Of the seeds, whose lanes require a standby."""


def rate(seed: int) -> float:
    """By a chance of its own: a seed without a standby is as it was before there was any."""
    return 1.0 if random.Random(f"standby {seed}").random() < SHARE else 0.0


class Wait:
    """One COMMIT that waits for the standby. `end`: how that ended, and None while it lasts."""

    def __init__(self, commit: Pending) -> None:
        self.commit = commit
        self.end: str | None = None
        self.given_out: list[Series] = []


class ReplicatedDatabase(Database):
    """A primary, and its standby as the copies of what that lacks: the first one is what it would be if promoted."""

    def __init__(self, world: World, lane: str) -> None:
        super().__init__(world, lane)
        self._copies = None
        # As if the lane had made a commit before: the first one of all tells nobody up to where commits are safe.
        self.proved = 0
        self.is_connected = self.is_wanted = True
        self.comes_at = self.wanted_at = NEVER
        self.settings_read = 0
        """How often the server has read its settings."""
        self._lacking: deque[Copy] = deque()
        self._wait: Wait | None = None
        self._landed_as: dict[str, int] = {}
        self._waits_as: dict[str, int] = {}
        """By id: with which transaction a command was settled, or began to wait for its key."""
        self._written = 0
        self._told: set[str] = set()

    @property
    def received(self) -> int:
        """Up to which transaction the standby has all of them."""
        return self._written - len(self._lacking)

    @property
    def safe_sequence(self) -> int:
        """How far the lane is on the standby."""
        return int(self._lacking[0].values["sequence"]) if self._lacking else self.sequence

    def lease(self) -> Lease:
        return replace(super().lease(), proved=self.proved)

    # Changes.

    def changes(self) -> None:
        self._written += 1
        if not self.is_connected:
            self._lacking.append(copy_of(self))

    def land(self, commit: Pending) -> None:
        proved, waited = self.proved_by(commit), set(self.waited)
        super().land(commit)
        self.proved = proved
        if proved > self.safe_sequence:
            self.world.violation(
                f"{commit.process} tells that {self.lane} is safe up to {proved}: {self.safe_sequence}"
            )
        landed = [row.command_id for rows in commit.changes.inserts for row in rows if isinstance(row, LogEntry)]
        self._landed_as |= dict.fromkeys(landed, self._written)
        self._waits_as |= dict.fromkeys(self.waited.keys() - waited, self._written)
        if self._lacking:
            self._ask_for(landed)

    def proved_by(self, commit: Pending) -> int:
        """Up to where a commit tells that all are safe: its lane began it once it knew that."""
        return self.sequence

    def pause(self, reason: str | None) -> None:
        super().pause(reason)
        if reason is not None and not self._lacking:
            # The operator's command tells it, since the lane may write nothing now.
            self.proved = self.sequence

    def wait_with(self, commit: Pending) -> list[Series]:
        """Commit, wait for the standby, and return the ids as of then. Raises StoreUnavailable where it may lack it."""
        settings_read = self.settings_read
        if self.is_connected or not self.is_wanted:
            self.land(commit)
            given_out = list(self.table(Series).values())
        else:
            self.world.trace("%s waits with its COMMIT for the standby of %s", commit.process, self.lane)
            wait = self._wait = Wait(commit)
            self.pending = commit
            self.world.interlude()
            if wait.end is None:
                self._break_off()
            if commit.process.is_dead:
                raise Crash
            self.world.trace("the wait of %s is over: %s", commit.process, wait.end)
            self.check_waited(wait)
            given_out = wait.given_out
        self.check_settings(settings_read)
        return given_out

    def check_waited(self, wait: Wait) -> None:
        """The server warns of a wait that was cancelled."""
        if wait.end == "cancelled":
            raise StoreUnavailable("a commit may not be on its synchronous standby: the wait was cancelled")

    def _break_off(self) -> None:
        """What ends a wait for a standby that does not come."""
        how = self.world.chance()
        if how < 0.3:
            self.fall()
        elif how < 0.5:
            self._want_none()
        else:
            self._end("cancelled")

    def check_settings(self, settings_read: int) -> None:
        """A server that is told to wait for no standby ends the waits as if it had the commits, without a warning."""
        if self.settings_read != settings_read:
            raise StoreUnavailable("the server has read its settings meanwhile: it may not have waited for its standby")

    def wait_for_commit(self) -> None:
        if self._wait is None:
            super().wait_for_commit()
        else:
            # Whoever waits for its lock ends its session.
            self._end("cancelled")

    def _end(self, how: str) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            self.pending = None
            wait.end = how
            self.land(wait.commit)
            wait.given_out = list(self.table(Series).values())

    # The standby.

    def step(self) -> Act:
        world = self.world
        if world.now >= self.comes_at:
            self.come()
            return DONE
        if world.now >= self.wanted_at:
            self.set_wanted(True)
            return DONE
        return Act.IDLE if self._wait is not None else super().step()

    def wake(self) -> float:
        return min(self.comes_at, self.wanted_at, NEVER if self._wait is not None else super().wake())

    def strike(self) -> None:
        """The standby goes, or gets some of what it lacked, or is promoted; or the server is told to wait for none."""
        world = self.world
        kind = world.chance()
        if self._lacking and kind < 0.5:
            self.fall()
        elif kind < 0.65:
            self._go(2.0)
        elif kind < 0.75:
            for _ in range(int(world.chance() * (1 + len(self._lacking)))):
                self._lacking.popleft()
            world.trace("the standby of %s lacks %s transactions", self.lane, len(self._lacking))
        else:
            # As a cluster's manager does that has run out of standbys.
            self._go(1.0)
            self._want_none()
        world.wake(self.actor)

    def _go(self, at_most_s: float) -> None:
        self.is_connected = False
        self.comes_at = self.world.now + self.world.chance() * at_most_s
        self.world.trace("the standby of %s is away until %.3f", self.lane, self.comes_at)

    def _want_none(self) -> None:
        self.set_wanted(False)
        self.wanted_at = self.world.now + self.world.chance() * 0.5
        self.world.wake(self.actor)

    def come(self) -> None:
        """It is back, and has all."""
        self.world.trace("the standby of %s is back", self.lane)
        self.is_connected, self.comes_at = True, NEVER
        self._lacking.clear()
        self._end("received")

    def set_wanted(self, is_wanted: bool) -> None:
        """Whether `synchronous_standby_names` has a name."""
        self.world.trace("the server of %s waits for %s standby", self.lane, "its" if is_wanted else "no")
        self.is_wanted, self.wanted_at = is_wanted, NEVER
        self.settings_read += 1
        if not is_wanted:
            self._end("released")

    def heal(self) -> None:
        self.come()
        self.set_wanted(True)

    # Failover.

    @property
    def can_fall(self) -> bool:
        return True

    def fall(self) -> None:
        """The primary is gone, and the standby is promoted, which has one of its own or none yet."""
        world = self.world
        self.wait_for_commit()
        lost: set[str] = set()
        if self._lacking:
            before = known_to(self)
            world.keep_orphans(self.lane)
            restore(self, self._lacking[0])
            lost = before - known_to(self)
        world.trace("the standby of %s is promoted: %s are lost", self.lane, sorted(lost))
        self.lost |= lost
        for command_id in sorted(lost):
            self._landed_as.pop(command_id, None)
            self._waits_as.pop(command_id.removeprefix("waiting "), None)
            if command_id in self._told:
                world.violation(f"{command_id} is lost with the primary, and somebody was told of it")
        self._lacking.clear()
        self.connections += 1
        for process in world.processes.values():
            process.seen.floor = {}
            process.emitted.withdrawn.clear()
        if world.chance() < 0.4:
            self.is_connected, self.comes_at = False, world.now + world.chance() * 0.6
        self.set_wanted(world.chance() < 0.6)
        self.wanted_at = NEVER if self.is_wanted else world.now + world.chance() * 0.4
        world.wake(self.actor)

    # What the checks are told.

    def told(self, command_id: str | None) -> None:
        """Somebody knows the outcome of a command: it must be safe."""
        number = self._landed_as.get(command_id or "")
        if number is not None and command_id is not None:
            self._told.add(command_id)
            self._check_received(command_id, number)

    def acknowledged_to_broker(self, command_id: str) -> None:
        """The broker forgets a command: that it is settled, or waits for its key, must be safe."""
        numbers = [of[command_id] for of in (self._landed_as, self._waits_as) if command_id in of]
        if numbers:
            self._check_received(command_id, min(numbers))

    def _check_received(self, command_id: str, number: int) -> None:
        if number > self.received:
            self.world.violation(f"somebody was told of {command_id} before the standby of {self.lane} had it")

    def _ask_for(self, command_ids: Sequence[str]) -> None:
        """Gateways are asked for what they may find before it is safe."""
        for command_id in command_ids:
            if self.world.chance() < 0.3 and proved_entry(cast("LaneAdmin", _Log(self)), command_id) is not None:
                self.told(command_id)

    def suspends(self, process: Process, reason: str) -> None:
        """Nothing that was acknowledged is lost with a primary; and what a blocked lane has settled is proved."""
        if not process.is_astray and reason.startswith("its database has lost acknowledged commands"):
            self.world.violation(f"{process} says that acknowledged commands are lost, and none is: {reason}")
        is_blocked = reason.startswith("blocked by command ") and process.name == self.holder
        if is_blocked and self.proved != self.sequence:
            self.world.violation(f"{process} is blocked at sequence {self.sequence}, and {self.proved} is proved")

    def unproved(self, *, is_active: bool) -> Iterator[str]:
        if is_active and self.paused is None and self.proved != self.sequence:
            yield f"{self.lane} is idle at sequence {self.sequence}, and tells that it is safe up to {self.proved}"

    @property
    def is_left_unproved(self) -> bool:
        return self.lease().is_unproved


class _Log:
    """What a gateway, or an operator's command, reads of a lane."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, command_id: str) -> LogEntry | None:
        entry: LogEntry | None = self._database.table(LogEntry).get(command_id)
        return entry

    def proved(self) -> int | None:
        return self._database.lease().proved


class StandbyStore(SimulatedStore):
    """Implements `Store` for a lane that requires a standby."""

    database: ReplicatedDatabase

    def begin(self) -> SimulatedTransaction:
        self.call("begin")
        return StandbyTransaction(self)

    def look(self) -> Lease | None:
        lease = super().look()
        self.check_standby()
        return lease

    def check_standby(self) -> None:
        """Raises StoreUnavailable where commits wait for no standby."""
        if not self.database.is_wanted:
            raise StoreUnavailable("commits wait for no synchronous standby, and LANE_REQUIRE_SYNC_STANDBY wants one")

    def _raise_epoch(self, above: int = 0) -> Lease:
        self.check_standby()
        database = self.database
        settings_read, connections = database.settings_read, database.connections
        lease = super()._raise_epoch(above)
        number = database._written
        if database.received < number:
            self.world.interlude()
            if self.process.is_dead:
                raise Crash
            if database.settings_read == settings_read or database.connections != connections:
                self.check_raised(number, connections)
        database.check_settings(settings_read)
        return lease

    def check_raised(self, number: int, connections: int) -> None:
        """Raises StoreUnavailable where the standby may not have what has raised the epoch, and all that was before."""
        if self.database.received < number or self.database.connections != connections:
            raise StoreUnavailable("a commit may not be on its synchronous standby: the wait was cancelled")


class StandbyTransaction(SimulatedTransaction):
    """Implements `Transaction` for such a lane."""

    store: StandbyStore
    database: ReplicatedDatabase

    def __init__(self, store: StandbyStore) -> None:
        super().__init__(store)
        self._given_out: list[Series] = []

    def check_fence(self, lease: Lease) -> None:
        self.prove_standby()
        super().check_fence(lease)

    def prove_standby(self) -> None:
        """In each transaction, by its fence."""
        self.store.check_standby()

    def land(self, commit: Pending) -> None:
        self._given_out = self.database.wait_with(commit)

    def given_out(self) -> list[Series]:
        return self._given_out


def database_of(world: World, lane: str) -> Database:
    return ReplicatedDatabase(world, lane) if world.rates["standby"] else Database(world, lane)


def store_of(process: Process) -> SimulatedStore:
    database: Any = process.world.databases[process.lane_name]
    return (StandbyStore if process.world.rates["standby"] else SimulatedStore)(database, process)
