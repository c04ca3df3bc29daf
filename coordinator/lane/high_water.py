"""How far a lane is known to have come: its database must not fall behind that.

A database falls behind when acknowledged commits are lost: a backup was restored, a standby was promoted that lagged,
or the address names another server. A lane that went on there would give sequences and ids out a second time. So would
one in a database of another lineage, wherever that ends (`coordinator.stores.lineages`), or in a copy that has gone on
by itself: it has the same lineage, and other commands in its log.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from coordinator.lane.basis import Blocked
from coordinator.service.commands import INTEGER_MAX
from coordinator.stores.lane_tables import COUNTS, Series
from coordinator.stores.lineages import SUPERSEDED_CHARACTERS_MAX, given_up_to, is_other
from coordinator.stores.port import Lease, StoreUnavailable

SERIES_MAX = 1_000
"""How many series of ids are remembered, with the last id of each: those that were used last."""
MARK_BYTES_MAX = 1 << 18
"""More than a mark takes with `SERIES_MAX` names of the longest."""

_ONLY_SEEN: Final = (
    "; where that finds no mark, and nothing lost, start this process again, which has only seen the other database"
)
_NOT_NAMED: Final = (
    "; a loss was accepted here that does not name that lineage: where that finds no mark, or nothing lost, start this "
    "process again"
)
_GONE_ON: Final = (
    "; where that finds nothing lost, another process has gone on here by what it knew: start this process again"
)

_Number = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
_Name = Annotated[str, Meta(pattern=r"^[\x01-\x7f]{1,64}\Z")]
"""As the database takes it."""
_Lineage = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,64}\Z")]
_Lineages = Annotated[str, Meta(pattern=rf"^[\x20-\x7e]{{1,{SUPERSEDED_CHARACTERS_MAX}}}\Z")]
"""Those that are given up, as the lease has them."""


class LastCommand(Struct, frozen=True):
    """A command that the log has: its sequence, and its id."""

    sequence: _Number
    command_id: _Name

    def is_belied_by(self, found: str | None) -> bool:
        """Whether a log is another one, by the id that it has at this sequence; None: none, since it is pruned."""
        return found is not None and found != self.command_id


class Mark(Struct, frozen=True):
    """The last sequence that was acknowledged, the epoch, and the last id of each series.

    `is_partial`: there were more than `SERIES_MAX` series. `lineage`: of the database in which that is so; None: it is
    not known, since an earlier release has kept the mark. `supersedes`: those that are given up for it, as the lease
    has them. `last`: the last command that is known by its id, mostly the one with `sequence`; None: none is, or an
    earlier release has kept the mark.
    """

    sequence: _Number = 0
    epoch: _Number = 0
    series: Annotated[dict[_Name, _Number], Meta(max_length=SERIES_MAX)] = {}
    is_partial: bool = False
    lineage: _Lineage | None = None
    supersedes: _Lineages | None = None
    last: LastCommand | None = None

    def is_other_than(self, other: "Mark") -> bool:
        """Whether these are marks of two histories of a lane."""
        return self.lineage is not None and other.lineage is not None and self.lineage != other.lineage

    def covers(self, wanted: "Mark") -> bool:
        """Whether this one, which is kept, says all that a process still wanted to be kept before it lost the lane; of
        another history, whoever had the lane since then knows better."""
        return self.sequence >= wanted.sequence or self.is_other_than(wanted)


def both(mark: Mark, other: Mark) -> Mark:
    """What two marks of a lane say together; of two histories the second says how it is, unless it was given up for the
    first."""
    known = HighWater("")
    known.learn(mark)
    known.learn(other)
    return known.mark()


class CommitsLost(Blocked):
    """Raised where the database is behind the mark, or has another history, and no operator has accepted it."""


class MarkOutdated(StoreUnavailable):
    """Raised where an operator has accepted a loss of which this consumer does not know: another one knew more."""


class HighWater:
    """The highest position that a consumer has seen: in its own commits, in the database, and from the transport."""

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self.sequence = 0
        self.epoch = 0
        self.lineage: str | None = None
        """That of the database in which this is so; None: it is not known."""
        self._supersedes: str | None = None
        """What is given up for it; None: nothing, or it is not known."""
        self._is_sure = False
        """Whether a consumer had the lane in that lineage: this one, or the one whose mark it was given."""
        self._was_beside = False
        """Whether it had been told of another history, for which that one was given up: ids of it may be above those in
        the database."""
        self._seen_since: Lease | None = None
        """What it has only seen of a history for which its own was given up."""
        self.is_in_doubt = False
        """Whether all of this was only seen in a database, and another one answers now: it is nobody's mark."""
        self._doubted_in: str | None = None
        """The lineage of the one that answers now."""
        self._ids_known_to = 0
        """The sequence up to which it knows the ids, too: a look at the lease shows none."""
        self._last: tuple[int, str] | None = None
        """The last command of its lineage of which the id is known, by its sequence."""
        self._uncompared: tuple[int, str] | None = None
        """That of the last mark, until the database was asked for it."""
        self._series: dict[str, int] = {}
        self._is_partial = False
        self.series_learnt = 0
        """How often its database had ids that it did not know: a mark that was kept before has them no more than it."""
        self._wondered_at: int | None = None

    @property
    def knows_last(self) -> bool:
        """Whether the mark names the last command."""
        return self._last is not None

    def mark(self) -> Mark:
        """The mark as it is now."""
        last = None if self._last is None else LastCommand(*self._last)
        of = self.lineage, self._supersedes, last
        return Mark(self.sequence, self.epoch, dict(self._series), self._is_partial, *of)

    def learn(self, mark: Mark) -> None:
        """Take in the mark of another process of the lane. If it is of another history, that one counts: it is of
        whoever had the lane last. One that was given up for its own, as far as it knows, is of before: a later one was
        not kept."""
        if mark.sequence and mark.lineage is not None and not self._has_given_up(mark):
            # Whoever accepted that ours is given up went above all that he knew, and may not have known all of it.
            if is_other(mark.lineage, mark.supersedes, self.lineage):
                self.sequence = self._ids_known_to = 0
                self._series, self._is_partial = {}, False
                self._supersedes = None
            if mark.lineage != self.lineage:
                self._was_beside = bool(self._series)
                # At its sequence the new history may have another one.
                self._last = self._uncompared = None
            self.lineage, self._supersedes = mark.lineage, mark.supersedes or self._supersedes
            self._is_sure, self.is_in_doubt = True, False
        self.rise(mark.sequence, mark.epoch)
        self._ids_known_to = max(self._ids_known_to, mark.sequence)
        if mark.last is not None and mark.lineage is not None and mark.lineage == self.lineage:
            self._learn_last((mark.last.sequence, mark.last.command_id))
        self._is_partial = self._is_partial or mark.is_partial
        for name, value in mark.series.items():
            self._count(name, value)
        if (since := self._seen_since) is not None and since.lineage == self.lineage:
            self._seen_since = None
            self.rise(since.safe_sequence, since.epoch)

    def _has_given_up(self, mark: Mark) -> bool:
        """Whether the lineage of a mark was given up for its own, and with it all that the mark knows of."""
        if self.lineage is None or self.lineage == mark.lineage:
            return False
        up_to = given_up_to(self.lineage, self._supersedes, mark.lineage)
        if up_to is None:
            return not is_other(self.lineage, self._supersedes, mark.lineage)
        # Else it has worked in a copy, and the mark is of the lane's own database.
        return mark.sequence <= up_to

    def _learn_last(self, last: tuple[int, str]) -> None:
        if last == self._last:
            return
        # A lower one may be of another history, too: that of a database which this process took for the lane's.
        self._uncompared = last
        if self._last is None or last[0] >= self._last[0]:
            self._last = last

    def rise(self, sequence: int, epoch: int) -> None:
        """This much is committed."""
        self.sequence = max(self.sequence, sequence)
        self.epoch = max(self.epoch, epoch)

    def rise_with_ids(self, sequence: int, epoch: int) -> None:
        """This much is committed, and the ids up to there were told, too."""
        self.rise(sequence, epoch)
        self._ids_known_to = self.sequence

    def settled(self, sequence: int, command_id: str) -> None:
        """This command is committed, as the last one."""
        self._last = sequence, command_id

    def given_out(self, rows: Iterable[Series]) -> None:
        """These ids are committed."""
        for row in rows:
            self._count(row.name, row.value)

    def found(self, rows: Iterable[Series], *, are_all: bool) -> None:
        """The database has these series, and with `are_all` no others. Those that are known were used later."""
        known, self._series = self._series, {}
        self.given_out(rows)
        for name, value in known.items():
            self._count(name, value)
        self._is_partial = self._is_partial or not are_all
        self.series_learnt += self._series != known

    def is_above(self, lease: Lease | None) -> bool:
        """Whether a database that has this lease has lost commits."""
        return self.sequence > (0 if lease is None else lease.sequence)

    def is_beside(self, lease: Lease | None) -> bool:
        """Whether a database that has this lease has another history, also where an operator has accepted that."""
        named = None if lease is None else lease.lineage
        is_another = self.lineage is not None and named is not None and self.lineage != named
        return bool(self.sequence) and (is_another or self._was_beside)

    def contradicts(self, lease: Lease | None) -> bool:
        """Whether a lane must not go on under this lease before it was claimed again."""
        return self.is_above(lease) or self.is_beside(lease) or self._uncompared is not None

    def goes_on_in(self, lease: Lease, last_id: str | None = None) -> None:
        """The lane goes on in the history of this lease. `last_id`: that of its last command, as its log has it."""
        if lease.lineage != self.lineage:
            self._last = None
        if last_id is not None:
            self._last = lease.sequence, last_id
        self._uncompared, self._seen_since, self._was_beside = None, None, False
        self.lineage, self._supersedes = lease.lineage or self.lineage, lease.supersedes
        self._is_sure, self.is_in_doubt = True, False

    def seen(self, lease: Lease) -> None:
        """What the database shows to a standby, but for what may be lost with the primary: nobody was told of it."""
        if self.lineage is None or (not self.sequence and lease.safe_sequence):
            # In whatever database it was before, nothing was told.
            self.lineage, self._supersedes, self._is_sure = lease.lineage, lease.supersedes, False
        elif lease.lineage is not None and lease.lineage != self.lineage:
            # Its mark tells of its own history, and does not mix them.
            self._seen_since, self.epoch = lease, max(self.epoch, lease.epoch)
            return
        self.rise(lease.safe_sequence, lease.epoch)

    def _go_over_to(self, seen: Lease) -> None:
        """What was seen there counts, and what it knew was given up for that."""
        self.lineage, self._supersedes, self._seen_since = seen.lineage, seen.supersedes, None
        self._last, self._uncompared, self._was_beside = None, None, bool(self._series)
        self.rise(seen.safe_sequence, seen.epoch)

    def check(self, lease: Lease | None) -> None:
        """Raises CommitsLost where the database has lost commits, and no operator has accepted all of that."""
        found, accepted = (0, None) if lease is None else (lease.sequence, lease.lost_up_to)
        since, named = self._seen_since, None if lease is None else lease.lineage
        if since is not None and named == since.lineage and since.safe_sequence > (accepted or found):
            self._go_over_to(since)
        accepting = self._accepting(found)
        if self.is_in_doubt and lease is not None and lease.has_given_up(self._doubted_in):
            # A loss was accepted here since then, by somebody's word: there is no mark that would have been named.
            self.lineage, self.is_in_doubt = lease.lineage, False
        if lease is not None and self.sequence and lease.is_other(self.lineage):
            self.is_in_doubt, self._doubted_in = not self._is_sure, lease.lineage
            raise CommitsLost(
                f"its database is not the one in which its commands were applied: it ends at sequence {found} in "
                f"lineage {lease.lineage}, and {self.sequence} was acknowledged in lineage {self.lineage}. Is this the "
                f"right database? If it is to go on, and what only the other one has is given up: {accepting}"
                + self._if_that_helps_not(lease)
            )
        if self.sequence > (accepted or found):
            raise CommitsLost(
                f"its database has lost acknowledged commands: it ends at sequence {found}, and {self.sequence} was "
                f"acknowledged. Is this the right database, and its newest copy? If {found + 1} to {self.sequence} are "
                f"lost for good: {accepting}"
            )
        self._check_given_up(lease)

    def _if_that_helps_not(self, lease: Lease) -> str:
        if self.is_in_doubt:
            return _ONLY_SEEN
        return _NOT_NAMED if self.sequence <= (lease.loss_accepted or 0) else ""

    def _check_given_up(self, lease: Lease | None) -> None:
        """Raises CommitsLost where whoever gave up the lineage that it knows did not know of as much of that: not the
        lane's own database was it, but a copy."""
        up_to = None if lease is None else lease.given_up_to(self.lineage)
        if lease is None or up_to is None or self._ids_known_to <= up_to:
            return
        # What was only seen, as by a standby, may have been seen there.
        self.sequence = self._ids_known_to
        raise CommitsLost(
            f"its database is not the one in which its commands were applied: it ends at sequence {lease.sequence} in "
            f"lineage {lease.lineage}, for which lineage {self.lineage} was given up up to {up_to}, and "
            f"{self.sequence} was acknowledged in that. Is this the right database? If it is to go on, and what only "
            f"the other one has is given up: {self._accepting(lease.sequence)}{_GONE_ON}"
        )

    def to_compare(self, lease: Lease | None) -> list[tuple[int, str]]:
        """The commands that the log must have under this lease, or none in their place: their sequences, and ids."""
        if lease is None or lease.lineage is None or lease.lineage != self.lineage:
            # It is believed, or an operator has accepted that it is another one.
            return []
        wanted = {each for each in (self._last, self._uncompared) if each is not None}
        return sorted(each for each in wanted if each[0] <= lease.sequence)

    def compare(self, lease: Lease, wanted: tuple[int, str], found: str | None) -> None:
        """Raises CommitsLost where the log has another command with this sequence: it is a copy that went on by itself.

        `found`: the id that it has there; None: none, since it was pruned.
        """
        sequence, command_id = wanted
        if not LastCommand(sequence, command_id).is_belied_by(found):
            if self._uncompared == wanted:
                self._uncompared = None
            return
        self._last = self._uncompared = wanted
        # What was only seen, as by a standby, may have been seen there.
        self.sequence = self._ids_known_to
        raise CommitsLost(
            f"its database is not the one in which its commands were applied: it ends at sequence {lease.sequence} in "
            f"lineage {lease.lineage}, and {self.sequence} was acknowledged in another copy of that, which has gone on "
            f"by itself: {sequence} was {command_id} there, and is {found} here. Is this the right database? If it is "
            f"to go on, and what only the other one has is given up: {self._accepting(lease.sequence)}{_GONE_ON}"
        )

    def _accepting(self, found: int) -> str:
        return f"`coordinator accept-loss {self._lane} --at {found} --up-to {self.sequence}`"

    def check_accepted(self, lease: Lease | None) -> None:
        """Raises MarkOutdated, once, where more was accepted as lost than this consumer knows of.

        Its mark is as old as its channel. The consumer that was blocked by the loss has handed its own mark to the
        transport since then, which tells it with the next channel. If that brings nothing, nobody knows more.
        """
        up_to = None if lease is None else lease.lost_up_to
        if up_to is None or up_to <= self._ids_known_to:
            return
        if self._wondered_at != up_to:
            self._wondered_at = up_to
            raise MarkOutdated(f"an operator has accepted a loss up to sequence {up_to}: which ids were given out?")

    def series_above(self, found: Iterable[Series]) -> tuple[list[Series], list[Series]]:
        """The series that are behind in the database or missing there, with the values that they must have."""
        values = {row.name: row.value for row in found}
        above = [Series(name=name, value=value) for name, value in self._series.items()]
        return (
            [each for each in above if values.get(each.name, each.value) < each.value],
            [each for each in above if each.name not in values],
        )

    @property
    def series_names(self) -> list[str]:
        """The names of the remembered series."""
        return list(self._series)

    def _count(self, name: str, value: int) -> None:
        if name in COUNTS:
            # It is not given out. A database that lost commits has the right number of what it still has.
            return
        # Put it at the end: the first series is the one that was used longest ago.
        known = self._series.pop(name, 0)
        self._series[name] = max(known, value)
        if len(self._series) > SERIES_MAX:
            del self._series[next(iter(self._series))]
            self._is_partial = True


_decoder = msgspec.json.Decoder(Mark)


def encode_mark(mark: Mark) -> bytes:
    """As JSON."""
    return msgspec.json.encode(mark)


def decode_mark(body: bytes) -> Mark:
    """Raises ValueError for everything that is not a mark: anybody may have put it there."""
    if len(body) > MARK_BYTES_MAX:
        raise ValueError(f"a mark has at most {MARK_BYTES_MAX} bytes, and this has {len(body)}")
    try:
        return _decoder.decode(body)
    except RecursionError as error:
        raise ValueError(str(error)) from None
