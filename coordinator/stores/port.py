"""The seam between a lane and its database.

A store is used by one thread. Its errors say what became of the transaction, and nothing about the driver:

    StoreError
    ├── Fenced              the epoch is no longer ours; nothing was committed
    ├── Refusal             a statement was refused; nothing was committed
    │   ├── BatchFault          certainly for what a command wrote: rerunning the same batch would fail again
    │   │   └── RowFault            for a row that a command reads, and that cannot be read as its class
    │   └── BatchRefused        for a reason that the server does not tell for certain: a time limit, a trigger's error
    ├── Conflict            the database aborted the transaction to resolve a conflict; nothing was committed
    └── StoreUnavailable    the database is away, or takes nothing, since a right, a table or space is missing; a
        │                   commit may or may not have happened
        ├── NotAdmitted         it answers, and refuses this user, password, database, TLS or use of a table
        ├── AnotherLanes        it is that of another lane
        └── DiskFull            its disk has no room

A command is the culprit of a refusal only if its neighbours are committed without it. So an error that every batch
would meet is StoreUnavailable, which says what to do. An error that may be either is BatchRefused: the lane finds out.

After StoreUnavailable the lane renews its lease before anything else: that waits out an old COMMIT still under way, so
that what the log says then is final.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection
from coordinator.stores.lineages import given_up_to, is_other
from coordinator.stores.moves import LaneMove

MAKES_ROLES: Final = (
    "if nobody has made this role yet, `coordinator migrate` does, with the password of its address; if its password "
    "was changed, set the new one in the address, and start the process again"
)
"""Said of a login that an SQL server refuses, which does not tell whether there is such a role."""
LOOKS: Final = 3
"""How many looks at a database see all of its tables: a lane looks once a second."""


class StoreError(Exception):
    """The root of the tree."""


class Fenced(StoreError):
    """Raised by `renew` and `commit` when another consumer has taken the lane over, and by `commit` when an operator
    has changed the lane."""


class Refusal(StoreError):
    """Raised as one of the two below. The transaction has left nothing, and the connection is good for another."""


class BatchFault(Refusal):
    """Raised for violated constraints, values of a wrong kind or out of range, and refusals of the service's own rules
    in the database: a trigger, row-level security, a view's check option."""


class RowFault(BatchFault):
    """Raised for a row that somebody else has written, and that is none of its class; the text shows no value of it.

    `key`: the row's; None where it cannot be read either.
    """

    def __init__(self, text: str, key: Key | None = None) -> None:
        super().__init__(text)
        self.key = key


class BatchRefused(Refusal):
    """Raised for all other refusals of a connected server, unless it is sure to refuse every batch."""


class Conflict(StoreError):
    """Raised for deadlocks, lock timeouts and serialization failures: rerunning the same batch may succeed.

    The lane treats one that does not end like a BatchRefused.
    """


class StoreUnavailable(StoreError):
    """Raised for everything else. The connection is closed; the next call opens another."""


class NotAdmitted(StoreUnavailable):
    """Raised when the server answers, and refuses this user, password, database or use of a table, or has not the TLS
    that the address asks for. A coordinator that starts does not wait then."""


class AnotherLanes(StoreUnavailable):
    """Raised when the database has become that of another lane, before anything is written there."""


class DiskFull(StoreUnavailable):
    """Raised where the disk that the database is on has no room."""


Trouble: TypeAlias = Literal["away", "not_admitted", "disk_full"]
"""What somebody has to look at where a database takes nothing."""


def trouble_of(error: Exception) -> Trouble:
    """That of an error."""
    if isinstance(error, DiskFull):
        return "disk_full"
    return "not_admitted" if isinstance(error, NotAdmitted) else "away"


class UnfitTables(ConfigurationError):
    """Raised by `check` for tables that are there, and do not keep rows as their classes need it."""


class NoStandby(ConfigurationError):
    """Raised where a lane is to insist on a synchronous standby, and its kind of database has no way to."""

    def __init__(self, scheme: str) -> None:
        super().__init__(
            f"LANE_REQUIRE_SYNC_STANDBY is for PostgreSQL: on a database of {scheme}:// a lane cannot make sure that "
            "each of its commits waits for a standby"
        )


Lack: TypeAlias = Literal["tls", "login", "right", "table", "table or schema", "connection"]
"""What a reader lacks although the server answers: they do not agree about TLS, or the server refuses its role, or a
right, or has no such table, which only an operator can mend; or it has no connection left for it, which may pass by
itself."""


class Lease(Struct, frozen=True):
    """The right to write: commits under `epoch` succeed until someone raises it. `sequence` is the last one settled.

    `revision` counts an operator's changes to the lane: a commit under an older one is Fenced too, and renewing the
    lease shows the change. `paused` is the reason why the lane must not go on, or None. `loss_accepted`: an operator
    has accepted that everything after `sequence` up to this one is lost. It is over once the lane has gone above it, so
    no copy of the database carries it into a later loss. `holder` is the process that raised the epoch last. `move`
    tells of a move of the lane from here, or to here.

    `proved` is the last sequence that is known to be as safe as the database makes commits, where it may show them
    before: each commit raises it to the sequence that it finds, since a lane begins none before it knows that the one
    before is safe, and a takeover or a renewal makes sure of all. None: what the database shows is safe.

    `lineage` is the history of the lane that this database has, and `supersedes` those that an operator has given up
    for it (`coordinator.stores.lineages`).
    """

    epoch: int
    sequence: int
    revision: int = 0
    paused: str | None = None
    loss_accepted: int | None = None
    holder: str = ""
    move: LaneMove | None = None
    proved: int | None = None
    lineage: str | None = None
    supersedes: str | None = None

    @property
    def is_unproved(self) -> bool:
        """Whether the last commit is shown to others who cannot tell yet whether it is safe."""
        return self.proved is not None and self.proved < self.sequence

    @property
    def safe_sequence(self) -> int:
        """The last sequence that a reader of the lease knows to be safe."""
        return self.sequence if self.proved is None else self.proved

    @property
    def lost_up_to(self) -> int | None:
        """The last sequence of a loss that is accepted, and above which the lane has yet to go; None: there is none."""
        return lost_up_to(self.loss_accepted, self.sequence)

    def is_other(self, lineage: str | None) -> bool:
        """Whether a mark that names this lineage is of another history than the database."""
        return is_other(self.lineage, self.supersedes, lineage)

    def given_up_to(self, lineage: str | None) -> int | None:
        """How far this lineage was given up for that of the database; None: it was not, or nobody says how far."""
        return given_up_to(self.lineage, self.supersedes, lineage)

    def has_given_up(self, lineage: str | None) -> bool:
        """Whether an operator has accepted a loss where the database had this lineage."""
        return lineage != self.lineage and not self.is_other(lineage)


def lost_up_to(accepted: int | None, sequence: int) -> int | None:
    """The last sequence of an accepted loss above which the lane has yet to go, by what its lease says of both."""
    return accepted if accepted is not None and accepted > sequence else None


def _unknown(row: Row) -> Row | None:  # noqa: ARG001
    return None


class Changes(Struct, frozen=True):
    """The changes of a batch: each list has the rows of one model, which were not there, or are as they were read.

    Applied in the order of the fields, but for what the database's own constraints want in another one.
    """

    deletes: Sequence[Sequence[Row]]
    updates: Sequence[Sequence[Row]]
    inserts: Sequence[Sequence[Row]]
    before: Callable[[Row], Row | None] = _unknown
    """The row that one of the updates changes, as it was read; None: it is not known."""
    has_moves: bool = False
    """Whether an update changes a value of a column of `unique`, so that another row may take the old one."""
    added_again: Sequence[Row] = ()
    """Those that were read, removed, and added anew under their keys: to the database updates, if they stayed."""


class Read(Struct, frozen=True):
    """Reads the rows of `model` whose `column`, its key or a unique one, is among `values`, each row once."""

    model: type[Row]
    column: str | tuple[str, ...]
    values: Sequence[Key]


class Backlog(Struct, frozen=True):
    """The emitted commands that wait in the outbox for one target: how many, and since when."""

    target: str
    rows: int
    oldest_at: datetime


class Transaction(Protocol):
    """One transaction. It sees what was committed before it began, and nobody else's changes after its fence."""

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        """The rows of each read, in any order, and of each selection, in order of their keys.

        All in one round trip, if the database can. The values of a selection have passed `RowCheck.selection`.
        """

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        """The first rows in order of their keys, or the first of those with a higher key; of any number.

        With `where` only those with this value in this column. An index on it and the key serves such a read.
        """

    def last(self, model: type[R], limit: int) -> list[R]:
        """The last rows in order of their keys, the last one first."""

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        """The last keys, the last one first, of a class whose key is a number; whatever the rest of their rows is."""

    def backlog(self) -> list[Backlog]:
        """The entries that wait in the outbox, counted by target."""

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        """Check the lease's epoch by a write, count its sequence up to `sequence`, write the changes, and commit.

        When this returns, all of it is on disk. Where others may see it before that, it tells them that the commits up
        to the lease's sequence are safe (`Lease.proved`). Raises StoreError.
        """

    def rollback(self) -> None:
        """End without a trace. Never raises."""


@runtime_checkable
class OnDisk(Protocol):
    """A store whose database is a file on this machine."""

    @property
    def path(self) -> Path | None:
        """The file; None if the database is in memory."""


@runtime_checkable
class WaitExplaining(Protocol):
    """A store whose database makes a statement wait for others, and tells for whom."""

    def explain_wait(self) -> str | None:
        """Why the call of now takes long: whose lock it waits for, in words, or which right would show it. None: it
        waits for nobody, as far as the database tells. It has no statement's text, and no value.

        Unlike all else it may be called from another thread during a call, since it has a connection of its own. It
        takes a few seconds at most. Raises the driver's errors.
        """


class Store(Protocol):
    """The database of one lane."""

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        """Raises ConfigurationError unless the schema holds the models' tables and the lane's own, in tables that know
        transactions, in a database that serves no other lane and, with `must_sync`, keeps its commits though the power
        of its machine fails.

        Returns what may cost commits all the same, such as replicas for which they do not wait: for the log.
        """

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:
        """Raise the epoch above this one and the current one, once no transaction under the latter is in flight.

        The lease keeps its lineage; where it has none yet it gets this one.
        """

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        """Raise the epoch in the same way if it still is `epoch`. Raises Fenced if it is not."""

    def current(self) -> Lease | None:
        """The lane's lease, whoever has it, by a read that sees every takeover that has returned; None: there is none
        yet. Between transactions only. Raises StoreUnavailable where the database has become another lane's."""

    def look(self) -> Lease | None:
        """As `current`. Raises what the lane's next write would meet, and writes nothing: StoreUnavailable where the
        database only reads, or lacks a right, a table or a column.

        It costs little: each look sees some of the tables, and `LOOKS` of them see all.
        """

    def command_at(self, sequence: int) -> str | None:
        """The id of the command with this sequence in the log; None: there is none, as where it is pruned, or where a
        loss was accepted. By one read of an index, between transactions only. Raises StoreUnavailable."""

    def begin(self) -> Transaction:
        """Begin a transaction. That the database is away may show only at the first read, or at the commit."""

    def close(self) -> None:
        """Close the connection; the next call opens another. Never raises."""
