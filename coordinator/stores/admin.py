"""The seam between the operator's commands and a lane's database.

Its errors are two of coordinator/service/errors.py: DatabaseUnavailable when the database is away or refuses,
ConfigurationError when its schema is not migrated. Where a change may be made, the first is a ChangeUnknown. Beside
these it raises Fenced to a lane's own process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.options import Origin
from coordinator.service.rows import R, Ref, Row, Value
from coordinator.service.service import Service
from coordinator.stores.audit import ActQuery, AuditBounds, AuditedCommand, ChangeQuery
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from coordinator.stores.lineages import is_other, next_lineage, superseding
from coordinator.stores.moves import LaneMove
from coordinator.stores.port import Backlog, Lease, lost_up_to

Holding = Callable[[], Lease | None]
"""The lease of the process that asks; None: it has none now."""

FAILED_AMONG = 10_000
"""How many of the latest log entries are searched for a failed one: the log has no index by status."""

NOT_ACTIVE = "lane {} is paused or blocked, another process has it, or its database has lost commits"

LOCK_TIMEOUT_S = 10
"""How long an operator's change waits for the lane's transaction in flight."""


class ChangeUnknown(DatabaseUnavailable):
    """Raised where a change may be made or not, since nothing answered its COMMIT, or may be lost with a failover."""


class LeaseState(Struct, frozen=True, kw_only=True):
    """The lane's lease row. `holder` is empty while no coordinator ever took the lane."""

    epoch: int
    sequence: int
    batches: int
    revision: int
    paused: str | None
    holder: str
    taken_at: datetime
    loss_accepted: int | None = None
    move: LaneMove | None = None
    proved: int | None = None
    lineage: str | None = None
    supersedes: str | None = None

    @property
    def lost_up_to(self) -> int | None:
        """The last sequence of a loss that is accepted, and above which the lane has yet to go; None: there is none."""
        return lost_up_to(self.loss_accepted, self.sequence)

    def is_other(self, lineage: str | None) -> bool:
        """Whether a mark that names this lineage is of another history than the database."""
        return is_other(self.lineage, self.supersedes, lineage)


def lineages_of_loss(lease: LeaseState | None, up_to: int, lineage: str | None) -> dict[str, str | None]:
    """What the lease says of its lineages once a loss is accepted; `lineage` is what its mark names."""
    own, before, ends_at = (None, None, 0) if lease is None else (lease.lineage, lease.supersedes, lease.sequence)
    if own is None and lineage is None:
        # The mark of an earlier release is believed.
        return {}
    return {"lineage": next_lineage(), "supersedes": superseding(before, own, lineage, up_to=max(ends_at, up_to))}


class WaitingTimers(Struct, frozen=True, kw_only=True):
    """How many commands wait for their time, and when the first of them is due; None: none waits."""

    count: int
    next_at: datetime | None


class ParkedCounts(Struct, frozen=True, kw_only=True):
    """For how many keys commands may have to wait, since one failed, and how many do."""

    keys: int
    commands: int


class LaneState(Struct, frozen=True, kw_only=True):
    """The state of a lane in its database. `last_failed` is the latest failed one of the last `FAILED_AMONG`.

    `outbox` has the entries that wait to be sent, by target.
    """

    lease: LeaseState | None
    last_settled: LogEntry | None
    last_failed: LogEntry | None
    dead_letters: int
    parked: ParkedCounts
    outbox: list[Backlog]
    timers: WaitingTimers


class LetterQuery(Struct, frozen=True, kw_only=True):
    """Chooses dead letters: those that match every given field.

    `since` is included, `until` is not. `contains` are bytes of the arguments.
    """

    target: str | None = None
    command_id: str | None = None
    type: str | None = None
    code: str | None = None
    origin: Origin | None = None
    since: datetime | None = None
    until: datetime | None = None
    contains: bytes | None = None


class LetterSummary(Struct, frozen=True, kw_only=True):
    """A dead letter without its large parts, arguments and traceback."""

    id: int
    target: str
    command_id: str | None
    type: str | None
    origin: str
    code: str
    reason: str
    sequence: int | None
    size_bytes: int
    copies: int
    dead_at: datetime


class EmittedSummary(Struct, frozen=True, kw_only=True):
    """An entry of the outbox without its arguments; `target` is its lane, or a service's effects.

    `options` is JSON text, as the row has it (`coordinator.service.options.Options`).
    """

    id: int
    target: str
    command_id: str
    type: str
    created_at: datetime
    continuation: str | None
    options: str | None


class TimerSummary(Struct, frozen=True, kw_only=True):
    """A timer without its command's arguments; `target` is its lane, or a service's effects.

    `about` is another command than its own where the timer is for an answer that does not come; `options` is JSON text.
    """

    id: str
    due_at: datetime
    target: str
    command_id: str
    about: str
    type: str
    set_at: datetime
    continuation: str | None
    options: str | None


class OnItsWay(Struct, frozen=True, kw_only=True):
    """Where a lane keeps a command that it has emitted: in its outbox, where `before` others for the same target are
    before it, or among its timers; None: not there. `cancelled_at`: since when it does not apply the command."""

    emitted: EmittedSummary | None = None
    before: int = 0
    timer: TimerSummary | None = None
    cancelled_at: datetime | None = None


class PassedEntry(Struct, frozen=True, kw_only=True):
    """An entry of the log without all but its place, its time, and its passage (`coordinator.stores.passages`)."""

    sequence: int
    settled_at: datetime
    passage: str | None


class ParkedSummary(Struct, frozen=True, kw_only=True):
    """A parked command without its message. The failed one has an error code; `actor` is JSON text."""

    command_id: str
    ordering_key: str
    error_code: str | None
    parked_at: datetime
    actor: str | None


class ParkedKeySummary(Struct, frozen=True, kw_only=True):
    """A key for which commands wait, and how many do, behind the failed one. `actor`, of that one, is JSON text."""

    ordering_key: str
    failed_id: str
    error_code: str
    parked_at: datetime
    actor: str | None
    waiting: int


class LaneAdmin(Protocol):
    """One lane's database, for operators. Every change counts the lease's revision up.

    The lane's fence checks the revision: after a change has returned, nothing commits until the lane has read the
    lease again, and with it the change.

    `act` is who does it, and why: it is kept in the transaction of the change, or neither is done. Where nothing is
    changed, since it is so already, no act is kept.
    """

    def state(self) -> LaneState:
        """The lane as it is now."""

    def dead_letters(self) -> int:
        """How many dead letters there are."""

    def sequence(self) -> int:
        """The sequence of the last command settled; 0 before the first."""

    def command_at(self, sequence: int) -> str | None:
        """As `Store.command_at`."""

    def clock(self) -> datetime | None:
        """What the clock of its server says; None: there is no server, and this machine's is the only one."""

    def find(self, command_id: str) -> LogEntry | None:
        """The log entry of this command, or None while it is not settled. See `proved`."""

    def proved(self) -> int | None:
        """Up to which sequence entries are known to be safe (`Lease.proved`): later ones a failover may lose, as far as
        others than the lane can tell. None: no entry is shown that is not safe."""

    def keeping(self, models: Sequence[type[Row]], texts: Sequence[str]) -> Ref[Row] | None:
        """A row of these models that has one of these texts in a column; None: no row has. It looks at all rows."""

    def rows(self, service: Service, model: type[R], where: Mapping[str, Value], limit: int) -> list[R]:
        """The first rows of one of the service's models with these values in these columns, in the order of their keys.

        For columns of a key or an index: it looks at all rows otherwise. Raises UnreadableRow.
        """

    def parked(self, *, key: str | None = None, command_id: str | None = None) -> list[ParkedSummary]:
        """The failed commands that keep their keys waiting, and those that wait, in the order in which they came: all
        of
        them, those of one key, or those of the key for which this command waits or keeps others waiting."""

    def parked_keys(self, limit: int) -> list[ParkedKeySummary]:
        """The keys for which commands may have to wait, those first whose command failed first."""

    def letters(self, query: LetterQuery, after: int, limit: int) -> list[LetterSummary]:
        """The first dead letters that the query chooses and that have a higher number, in order."""

    def letter(self, number: int) -> DeadLetter | None:
        """The dead letter of this number, whole."""

    def emitted(self, target: str | None, after: int, limit: int) -> list[EmittedSummary]:
        """The first entries of the outbox with a higher number, for this target or for all, in order."""

    def backlog(self) -> list[Backlog]:
        """The entries that wait in the outbox, counted by target."""

    def timers(self, after: str, limit: int) -> list[TimerSummary]:
        """The first timers with a higher key than `after` (empty: all have), by due time, and then as they were set."""

    def on_its_way(self, command_ids: Sequence[str]) -> dict[str, OnItsWay]:
        """Of each of these commands: its entry in the outbox, and the timer that is for itself. It looks through the
        outbox, once, since that has no index by command."""

    def passages(self, first: int, last: int) -> list[PassedEntry]:
        """The entries from one sequence to another, in order."""

    def naming(self, command_id: str, first: int, last: int, limit: int) -> list[LogEntry]:
        """The first of these entries, in order, whose passages name this command: as what they led to, or as what led
        to them. It looks at all of them."""

    def audited(self, query: ChangeQuery, before: int, limit: int) -> list[AuditedCommand]:
        """The last commands below a sequence that the query chooses, the last one first."""

    def audit_bounds(self, table: str | None) -> AuditBounds:
        """How far back the log goes, and the audit of a table."""

    def acts(self, query: ActQuery, before: str | None, limit: int) -> list[OperatorAct]:
        """The last acts before one with this id that the query chooses, the last one first."""

    def record(self, act: OperatorAct) -> None:
        """Keep an act that is not done in this database, or in many transactions, before it begins."""

    def pause(self, reason: str, now: datetime, act: OperatorAct | None = None) -> LeaseState:
        """Stop the lane from committing. A lane that never ran is paused before it starts."""

    def resume(self, now: datetime, act: OperatorAct | None = None) -> str | None:
        """Let the lane go on; return the reason for which it was paused, None if it was not."""

    def unread_columns(self, models: Sequence[type[Row]]) -> list[str]:
        """The columns of these tables that no class has and the database does not compute, as `table.column`: a lane
        neither reads nor writes them.

        Raises ConfigurationError where a lane cannot move from here.
        """

    def unfilled_references(self, models: Sequence[type[Row]]) -> list[str]:
        """The foreign keys from these tables to tables of no class that have no rows, in words: no row that has a value
        there can be copied to this database."""

    def set_move(
        self,
        before: LaneMove | None,
        after: LaneMove | None,
        now: datetime,
        act: OperatorAct | None = None,
        *,
        of: LeaseState | None = None,
    ) -> bool:
        """Have the lease tell of another step of a move, of its beginning, or of none; False: it does not tell of
        `before`, and nothing is done.

        With `of`, that of the database which the lane leaves, it gets the lineage of that one.
        The first step is given the lease's count of batches. The notes of a move stay: `forget_move_notes`.
        """

    def forget_move_notes(self, batch_rows: int) -> Iterator[int]:
        """Delete the notes of a move that is over, a transaction a batch; yield how many each deleted.

        It ends as soon as the lease tells of a move: that one needs its notes.
        """

    def accept_loss(
        self, sequence: int, up_to: int, now: datetime, act: OperatorAct | None = None, *, lineage: str | None = None
    ) -> int:
        """Let the lane go on although the commands after this sequence are lost up to that one, if its database ends
        there; return where it ends.

        It goes on in a lineage of its own, for which that of before is given up, and this one, which its mark names.
        """

    def cancel(self, command_id: str, reason: str, now: datetime, act: OperatorAct | None = None) -> LogEntry | None:
        """Keep the command from ever being applied; or return its log entry, if it is settled already.

        It looks and cancels in one transaction with the revision, so nothing can come between the two.
        """

    def settled_before(self, cutoff: datetime) -> int:
        """How many log entries `prune` would delete at most: those kept for their replays are counted."""

    def prune(self, cutoff: datetime, batch_rows: int, holding: Holding | None = None) -> Iterator[int]:
        """Delete log entries settled before, in their order, a transaction a batch; yield how many each deleted.

        `holding`, of a lane's own process: each transaction proves that the lane is active under this lease. Raises
        Fenced, and deletes nothing, once another consumer has it, it is paused, or its database has lost commits.

        Orders to forget stay as long as operators are shown what became of them (`kept_entries.py`).
        The entry with the highest sequence stays, and those of failed commands whose dead letters are still there, or
        whose replays are: so no command fails a second time that has a letter, and no replay has the id of an earlier
        one. With an entry goes what its command did to audited rows. It looks at the whole log: where a clock was wrong
        for a while, old entries are behind young ones.
        """

    def forget_letters(
        self, cutoff: datetime, now: datetime, batch_rows: int, holding: Holding | None = None
    ) -> Iterator[int]:
        """Delete dead letters that are older; yield how many each batch deleted. Each in one transaction with the
        revision, since the lane counts its letters without an id. `holding`: as `prune` has it.

        Those of failed commands for whose key commands wait stay: it would let those go on.
        """

    def forget_acts(self, cutoff: datetime, batch_rows: int, holding: Holding | None = None) -> Iterator[int]:
        """Delete what operators did before, a transaction a batch; yield how many each deleted. `holding`: as above."""

    def silent_publishers(self, cutoff: datetime) -> int:
        """How many positions of publishers `forget_publishers` would delete."""

    def forget_publishers(self, cutoff: datetime, now: datetime, batch_rows: int) -> Iterator[int]:
        """Delete the positions of publishers last seen before; yield how many each batch deleted.

        Each in one transaction with the revision, since the lane remembers them.
        """

    def close(self) -> None:
        """Close the connections. Never raises."""


def proved_entry(admin: LaneAdmin, command_id: str) -> LogEntry | None:
    """The log entry of this command, or None while it is not settled, or not known to be safe. Raises Unavailable."""
    entry = admin.find(command_id)
    if entry is None:
        return None
    # Asked after the log, which shows no entry of later.
    proved = admin.proved()
    return entry if proved is None or entry.sequence <= proved else None
