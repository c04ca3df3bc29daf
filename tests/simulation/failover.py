"""A database that falls back to an older copy of itself: it has lost its last commits, acknowledged ones among them.

A standby was promoted that lagged, a backup was restored, or an address names another server. In the end the operator
either points the lane at the newest copy again, or accepts the loss. What the checks know of a lane is kept with each
copy, so that they judge the history that survived; what only the lost one had is in `Database.lost`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from coordinator.lane.committed import series_in
from coordinator.service.rows import Row, key_of
from coordinator.stores.lane_tables import DeadLetter, LogEntry, Series
from coordinator.stores.port import Lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coordinator.lane.high_water import Mark
    from coordinator.protocol.wire import CommandMessage
    from tests.simulation.database import Database, Pending

COPIES_MAX = 6
"""How many commits a copy may lag."""
ID_SERIES = {"accounts": "accounts", "notes": "notes", "reports": "reports", "dead_letters": "dead_letters"}
"""The series of each table whose rows are numbered."""
_OF_ROWS = ID_SERIES.keys() - {"dead_letters"}
"""Those of a service: without an entry in the log they rise over a loss only."""
_PLAIN = (
    "epoch",
    "sequence",
    "proved",
    "revision",
    "paused",
    "loss_accepted",
    "holder",
    "lineage",
    "supersedes",
    "acknowledged",
    "given_out",
)
_COPIED = ("landed_at", "holders", "cancelled", "waited", "withdrawn", "lost", "skipped", "raised")


class Copy(Struct):
    """Everything about a lane at one time."""

    tables: dict[type[Row], dict[Any, Any]]
    values: dict[str, Any]
    letters: dict[int, DeadLetter]
    sources: dict[str, list[int]]
    unseen: dict[int, CommandMessage | None]


def copy_of(database: Database) -> Copy:
    """Rows are immutable, so that their tables are all there is to copy."""
    book = database.book
    return Copy(
        {model: table.copy() for model, table in database.tables.items()},
        {name: getattr(database, name) for name in _PLAIN} | {name: getattr(database, name).copy() for name in _COPIED},
        book.ever.copy(),
        {source: numbers.copy() for source, numbers in book.by_source.items()},
        book.unseen.copy(),
    )


def restore(database: Database, copy: Copy) -> None:
    """From now on the lane has this copy. It is used once."""
    database.tables = defaultdict(dict, copy.tables)
    for name, value in copy.values.items():
        setattr(database, name, value)
    book = database.book
    book.ever, book.by_source, book.unseen = copy.letters, copy.sources, copy.unseen


def known_to(database: Database) -> set[str]:
    """What a lane's database knows: ids of commands that are settled or wait, and the letters by their sources."""
    waiting = {f"waiting {command_id}" for command_id in database.waited}
    return {*database.tables[LogEntry], *waiting, *(f"letter {source}" for source in database.book.by_source)}


class Seen:
    """How far one process knows the lane to have come, and which ids were given out: no copy may take it back."""

    __slots__ = ("asked_about", "floor", "knows_whose", "lineage", "named", "sequence", "series")

    def __init__(self) -> None:
        self.sequence = 0
        self.named = 0
        """The sequence of the last command that it knows by its id: so it tells a copy that has gone on by itself."""
        self.lineage: str | None = None
        """That in which it does."""
        self.knows_whose = False
        """Whether it has ever seen a lineage: the database of an earlier release had none, and looks like any other."""
        self.asked_about: set[int] = set()
        """Up to which sequences a loss was accepted that it did not know of."""
        self.floor: dict[str, int] = {}
        """The series at the time when it went above a loss."""
        self.series: dict[str, int] = {}

    def at_commit(self) -> tuple[int, dict[str, int]]:
        """What a commit that is sent now must be above."""
        return self.sequence, self.series.copy()

    def committed(self, sequence: int, given_out: Iterable[Series], last: int) -> None:
        """Its own commit was answered, and these ids are given out: by it, or before it took the lane over. `last`: the
        sequence of the last command that it has settled; 0: none.

        A loss is told by sequences: one without any, such as of a letter of an older release alone, goes unnoticed.
        """
        if sequence == self.sequence:
            return
        self.rise(sequence)
        self.named = max(self.named, last)
        for row in given_out:
            self.count(row.name, row.value)

    def learned(self, mark: Mark, named: int, lease: Lease) -> None:
        """It was given the mark of another process, which knew a command with this sequence by its id. `lease`: of the
        lane's database."""
        up_to = lease.given_up_to(mark.lineage)
        if up_to is not None and mark.sequence > up_to:
            # It cannot tell this from having been led to a copy: what it knows of there counts no more.
            self.sequence, self.series = 0, {}
        self.rise(mark.sequence)
        self.knows_whose = self.knows_whose or mark.lineage is not None
        self.names(named, mark.lineage)
        for name, value in mark.series.items():
            self.count(name, value)

    def lacking_in(self, mark: Mark) -> list[str]:
        """The numbered rows whose last ids it knows, and the mark does not have."""
        return [name for name in ID_SERIES.values() if self.series.get(name, 0) > mark.series.get(name, 0)]

    def names(self, sequence: int, lineage: str | None) -> None:
        """It knows the command with this sequence by its id. At the same one another lineage may have another."""
        if lineage != self.lineage:
            self.lineage, self.named = lineage, 0
        self.named = max(self.named, sequence)

    def rise(self, sequence: int) -> None:
        self.sequence = max(self.sequence, sequence)

    def count(self, name: str, value: int) -> None:
        self.series[name] = max(value, self.series.get(name, 0))


def check_above(database: Database, commit: Pending) -> None:
    """A commit is about to land: it must not give out again what its process knows to be given out."""
    world, process, lease = database.world, commit.process, commit.lease
    seen = process.seen
    entries = [row for rows in commit.changes.inserts for row in rows if isinstance(row, LogEntry)]
    is_accepted = lease.lost_up_to is not None and lease.lost_up_to >= commit.acknowledged
    if lease.sequence < commit.acknowledged and not is_accepted:
        world.violation(f"{process} goes on at sequence {lease.sequence}, and {commit.acknowledged} was acknowledged")
    if commit.sequence != database.sequence + len(entries):
        if entries or not is_accepted:
            world.violation(f"{process} goes from sequence {database.sequence} to {commit.sequence}")
        _note_raised(database, commit)
    elif not entries and not _OF_ROWS.isdisjoint(series_in(commit.changes)):
        # A copy that has gone on by itself ended where the other one did: only ids are behind.
        _note_raised(database, commit)
    for entry in entries:
        if entry.sequence <= max(commit.acknowledged, database.acknowledged):
            world.violation(f"{process} gives sequence {entry.sequence} out again")
    for rows in commit.changes.inserts:
        name = ID_SERIES.get(rows[0].table, "")
        last = (commit.given_out if name in _OF_ROWS else seen.floor).get(name, 0)
        for row in rows if last else ():
            key: Any = key_of(row)
            if key <= last:
                world.violation(f"{process} gives out {row.table} {key_of(row)}, which was given out before")


def _note_raised(database: Database, commit: Pending) -> None:
    """A lane goes above a loss: with its series it must go above the ids that it can know of."""
    world, seen, up_to = database.world, commit.process.seen, commit.lease.lost_up_to
    if up_to is not None and up_to > seen.sequence and up_to not in seen.asked_about:
        world.violation(f"{commit.process} goes above {up_to}, and has not asked which ids were given out")
    database.skipped.update(range(database.sequence + 1, commit.sequence + 1))
    world.ticks += 1
    values = {name: row.value for name, row in series_in(commit.changes).items()}
    database.raised.append((world.ticks, values))
    for name, value in database.given_out.items():
        seen.count(name, value)
    seen.floor = seen.series.copy()
    found = {row.name: row.value for row in database.tables[Series].values()} | values
    if below := [name for name in ID_SERIES.values() if found.get(name, 0) < seen.floor.get(name, 0)]:
        world.violation(f"{commit.process} goes above a loss, and below the last {below}")
