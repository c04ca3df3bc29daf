"""The database of a lane: its tables, a lease row and its lock. Its processes reach it through `store.py`.

Simulated: refused batches (unique columns, a check, a length, a range); a commit that lands later, with the lease row's
lock held until then, so that whoever raises the epoch or fences waits it out; operators' transactions; copies that lag
(`failover.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from coordinator.protocol.actors import is_anothers
from coordinator.protocol.fingerprints import Fingerprints
from coordinator.protocol.wire import CommandMessage
from coordinator.service.rows import R, Row, key_of
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry, ParkedCommand
from coordinator.stores.lineages import superseding
from coordinator.stores.port import BatchFault, Changes, Fenced, Lease
from tests.simulation import forgets, timers
from tests.simulation.astray import ANOTHER, find
from tests.simulation.failover import COPIES_MAX, Copy, check_above, copy_of, known_to, restore
from tests.simulation.letters import NUMBER_SETTLED, Book
from tests.simulation.schedule import DONE, IDLE, NEVER, PASSED, Act
from tests.simulation.services import BALANCE_MIN, FIRST_SECRET, NOTE_CHARACTERS_MAX
from tests.support.ledger import Account

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

INTEGER_MAX = 2**63 - 1

AHEAD = 7
"""How far another database has come beyond the lane's."""


def rows_of(model: type[R], groups: Sequence[Sequence[Row]]) -> list[R]:
    """Those of one model; each group has rows of one."""
    return [cast("R", row) for rows in groups if type(rows[0]) is model for row in rows]


class Pending(Struct, frozen=True):
    """A COMMIT on its way: it has passed the fence and holds the lease row's lock."""

    process: Process
    lease: Lease
    sequence: int
    changes: Changes
    waiting: int
    """How many deliveries its process had not settled when the lane admitted this batch."""
    acknowledged: int
    """The sequence of which its process knew when it was sent: of more it may learn until this lands."""
    given_out: dict[str, int]
    """The series, likewise."""


class Database:
    """What the stores of one lane's processes share. An actor: commits under way land, or are lost."""

    astray: dict[str, Lease]
    """By the place of a process whose address leads to another database: the lease there."""

    copied_at: dict[str, int]
    """Up to which sequence the log there is that of the lane: it is a copy that has gone on by itself."""

    lineage: str | None = None
    supersedes: str | None = None
    is_misled = False
    ends_elsewhere = 0
    """The sequence of the other database to which its address leads then."""
    """Whether its address leads to another database of such a lane, which has come further."""

    def __init__(self, world: World, lane: str) -> None:
        self.world = world
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.lane = lane
        self.tables = defaultdict[type[Row], dict[Any, Any]](
            dict, {FingerprintKey: {1: FingerprintKey(id=1, secret=FIRST_SECRET, made_at=world.wall())}}
        )
        self.epoch = self.sequence = self._keys_made = self._accepted = 0
        self.astray, self.copied_at = {}, {}
        self.proved: int | None = None
        self.revision = 0
        self.paused: str | None = None
        self.loss_accepted: int | None = None
        self.acknowledged = 0
        self.highest = 0
        """The highest sequence that any copy ever came to."""
        self.given_out: dict[str, int] = {}
        self.holder = ""
        self.pending: Pending | None = None
        self.away_until = 0.0
        self.cut_until: dict[str, float] = {}
        """Until when whose way to it is cut off, by the process's place."""
        self.landed_at: dict[str, int] = {}
        self.holders: dict[int, Process] = {}
        """Who has committed in which epoch."""
        self.cancelled: set[str] = set()
        self.ever_cancelled: set[str] = set()
        """Also what a lost copy alone knew to be cancelled."""
        # By id, of commands that wait for their key: when that was committed, their place, and the account.
        self.waited: dict[str, tuple[int, int, int]] = {}
        self.book = Book(world, lane)
        self.pruned: dict[str, LogEntry] = {}
        """What the log has forgotten."""
        self.forgotten: dict[str, LogEntry] = {}
        """What entries were before somebody was forgotten: for the checks they are that."""
        self.landed_again: dict[str, int] = {}
        """When something was settled under an id that was forgotten."""
        self.withdrawn: set[str] = set()
        self.moved_at: dict[str, int] = {}
        """By its command's id: when a timer moved into the outbox."""
        self.numbers: set[tuple[str, int]] = set()
        """Of publisher sessions, those whose messages were acknowledged."""
        self.lost: set[str] = set()
        """What was known only to a copy that is lost (`known_to`)."""
        self.skipped: set[int] = set()
        """The sequences that an operator has accepted as lost."""
        self.raised: list[tuple[int, dict[str, int]]] = []
        """When, and to which values, series were raised for such a loss."""
        self._copies: deque[Copy] | None = deque(maxlen=COPIES_MAX) if world.rates["failover"] else None
        self._newest: Copy | None = None
        self.connections = 0
        """Counts the falls: the connections of before are lost."""

    def lease(self) -> Lease:
        if self.is_misled:
            return Lease(self.epoch, self.ends_elsewhere, holder="another", lineage=ANOTHER)
        told = self.paused, self.loss_accepted, self.holder
        return Lease(self.epoch, self.sequence, self.revision, *told, lineage=self.lineage, supersedes=self.supersedes)

    def table(self, model: type[Row]) -> dict[Any, Any]:
        return self.tables[model]

    def is_settled(self, command_id: str) -> bool:
        """Whether it ever was, whatever the log still knows."""
        return command_id in self.tables[LogEntry] or command_id in self.pruned

    def settled(self, command_id: str | None) -> LogEntry | None:
        """The first entry under this id."""
        name = command_id or ""
        entry: LogEntry | None = self.forgotten.get(name) or self.pruned.get(name) or self.tables[LogEntry].get(name)
        return entry

    def history(self) -> list[tuple[int, LogEntry]]:
        """Every entry that was ever in the log, and when it came."""
        at, pruned = self.landed_at, self.pruned
        now = [
            (self.landed_again[name] if name in pruned else at.get(name, 0), self.forgotten.get(name, entry))
            for name, entry in self.tables[LogEntry].items()
        ]
        return [(at.get(name, 0), entry) for name, entry in pruned.items()] + now

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
        self.changes()
        self._check_right(commit)
        check_above(self, commit)
        waiting = self._note_waiting(commit.changes)
        timers.note(self, commit.changes)
        forgets.note(self, commit.changes)
        for rows in commit.changes.deletes:
            for row in rows:
                self.table(type(row)).pop(key_of(row), None)
        for rows in commit.changes.updates:
            # Also what is emptied in the log: it was settled long ago, and does not land now.
            for row in rows:
                self.table(type(row))[key_of(row)] = row
        for rows in commit.changes.inserts:
            table = self.tables[type(rows[0])]
            for row in rows:
                table[key_of(row)] = row
                if isinstance(row, LogEntry):
                    self._land_entry(commit, row)
        for command_id in waiting:
            self.world.taken(commit, command_id)
        self.sequence = commit.sequence
        self.highest = max(self.highest, self.sequence)
        self.book.note(self, commit.changes)
        forgets.landed(self, commit.changes)

    def _land_entry(self, commit: Pending, entry: LogEntry) -> None:
        self.world.ticks += 1
        if entry.command_id in self.pruned:
            self._land_again(entry)
        self.landed_at.setdefault(entry.command_id, self.world.ticks)
        # What waited for its key had its turn among its publisher's commands when it began to wait.
        if entry.command_id not in self.waited:
            self.world.taken(commit, entry.command_id)

    def _land_again(self, entry: LogEntry) -> None:
        """The log had forgotten this id: what is sent so late must have a number, and be refused by that."""
        self.landed_again[entry.command_id] = self.world.ticks
        if entry.error_code != NUMBER_SETTLED:
            self.world.violation(f"{entry.command_id} is settled a second time, {entry.status}, since it was forgotten")

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
            keys = [key_of(row) for row in rows]
            taken = {key for key in keys if key in table}
            if taken:
                taken -= {key_of(row) for rows_ in changes.deletes for row in rows_ if type(row) is model}
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
        self.changes()
        self.revision += 1
        self.add_fingerprint_key()
        self.paused = reason

    def cancel(self, command_id: str) -> None:
        self.wait_for_commit()
        self.changes()
        self.revision += 1
        self.add_fingerprint_key()
        if command_id not in self.table(LogEntry):
            self.cancelled.add(command_id)
            self.ever_cancelled.add(command_id)
            self.table(Cancellation).setdefault(
                command_id,
                Cancellation(command_id=command_id, reason="simulated", requested_at=self.world.wall()),
            )

    def add_fingerprint_key(self) -> None:
        """An operator's too, with the others and before each takeover, so that no history has other draws for it.

        Whoever is taken over does not know the key of his successor. No two keys are alike.
        """
        self._keys_made += 1
        number, secret = len(self.table(FingerprintKey)) + 1, f"{self._keys_made:064x}"
        self.table(FingerprintKey)[number] = FingerprintKey(id=number, secret=secret, made_at=self.world.wall())

    def is_of(self, entry: LogEntry, message: CommandMessage) -> bool:
        """Whether an entry is of a command with this content."""
        keys = {key.id: key.secret for key in self.table(FingerprintKey).values()}
        return Fingerprints(keys).is_same(entry.fingerprint, message)

    def is_anothers(self, entry: LogEntry, message: CommandMessage) -> bool:
        """Whether an entry under this command's id is certainly of another command."""
        return is_anothers(entry.actor, message.actor) or not self.is_of(entry, message)

    def command_at(self, sequence: int) -> str | None:
        """The id of the command that the log has with this sequence; None: it has none."""
        entries = reversed(self.table(LogEntry).values())
        return next((entry.command_id for entry in entries if entry.sequence == sequence), None)

    def accept_loss(self, sequence: int, up_to: int, given_out: dict[str, int], lineage: str | None) -> None:
        """An operator's, as `LaneAdmin` has it. The lane has said up to which sequence commits are lost.

        `given_out`: the ids of which its successors will learn. `lineage`: what the mark names.
        """
        self.wait_for_commit()
        if self.sequence == sequence:
            if up_to > self.highest:
                self.world.violation(f"{self.lane} never came to sequence {up_to}, and that is accepted as lost")
            self.changes()
            self.revision += 1
            self.loss_accepted = up_to
            self._accepted += 1
            self.supersedes = superseding(self.supersedes, self.lineage, lineage, up_to=max(sequence, up_to))
            self.lineage = f"accepted-{self._accepted}"
            self.acknowledged = max(sequence, up_to)
            self.given_out = given_out

    def lose_mark(self) -> None:
        """The broker's: no successor will learn from it which ids were given out."""
        self.given_out = {}
        for copy in (*(self._copies or ()), *([] if self._newest is None else [self._newest])):
            copy.values["given_out"] = {}

    # Another database.

    def mislead(self) -> None:
        """From now on its address leads to another database."""
        self.wait_for_commit()
        self.is_misled = True
        # It does not fall when this one does, and if its address leads there again, it is where it was.
        self.ends_elsewhere = max(self.ends_elsewhere, self.sequence + AHEAD)
        self.connections += 1
        self.world.trace("the address of %s leads to another database", self.lane)

    def find_again(self) -> None:
        """The address is set right."""
        self.is_misled = False
        self.connections += 1
        self.world.trace("the address of %s leads to its database again", self.lane)

    def check_own(self, process: Process) -> None:
        """A process is about to write. Who knows of nothing that was acknowledged cannot tell which database it is.

        Nor can he tell a copy that has all that he knows by its id, and has come further.
        """
        if self.is_misled or process.is_astray:
            copied_at = self.copied_at.get(process.place)
            seen = process.seen
            knows_other = seen.sequence > 0 and seen.knows_whose if copied_at is None else seen.named > copied_at
            if knows_other:
                self.world.violation(f"{process} writes into another database than the one that has what it knows of")
            if self.is_misled:
                self.find_again()
            find(process)

    # Copies that lag.

    def has_lost(self, command_id: str | None) -> bool:
        """Whether this command was settled, or waited, and is not known any more."""
        return command_id in self.lost or f"waiting {command_id}" in self.lost

    def told(self, command_id: str | None) -> None:
        """Somebody knows the outcome of a command."""

    def acknowledged_to_broker(self, command_id: str) -> None:
        """The broker forgets a command."""

    def suspends(self, process: Process, reason: str) -> None:
        """A process says why it cannot go on."""

    def unproved(self, *, is_active: bool) -> Iterable[str]:
        """At rest: what readers cannot know to be safe."""
        return ()

    @property
    def is_left_unproved(self) -> bool:
        """Whether readers cannot know that the last commit is safe."""
        return False

    def has_lost_letter(self, source: str) -> bool:
        return f"letter {source}" in self.lost

    def changes(self) -> None:
        """A transaction is about to change something, of which older copies know nothing."""
        if self._copies is not None:
            self._copies.append(copy_of(self))
            # Whoever goes on with an older copy makes it the only one.
            self._newest = None

    @property
    def can_fall(self) -> bool:
        return bool(self._copies)

    @property
    def has_fallen(self) -> bool:
        """Whether there is a newer copy, which would have everything."""
        return self._newest is not None

    def fall(self) -> None:
        """From now on there is an older copy in its place."""
        assert self._copies
        self.wait_for_commit()
        newest = copy_of(self)
        before = known_to(self)
        lag = 1 + int(self.world.chance() * len(self._copies))
        self.world.keep_orphans(self.lane)
        restore(self, self._copies[-lag])
        self.lost |= before - known_to(self)
        self.world.trace(
            "the database of %s has lost its last %s transactions: it is at sequence %s, and was at %s",
            self.lane,
            lag,
            self.sequence,
            newest.values["sequence"],
        )
        self._copies.clear()
        self._newest = newest
        self.connections += 1
        for process in self.world.processes.values():
            process.seen.floor = {}
            process.emitted.withdrawn.clear()

    def rise_again(self) -> None:
        """The operator points at the newest copy."""
        assert self._newest is not None
        self.world.trace("the operator points %s at its newest copy", self.lane)
        restore(self, self._newest)
        self._newest = None
        self.connections += 1
