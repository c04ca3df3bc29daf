"""The transaction of a settled command, from the entries around it: how many it had, and when it was committed.

The commands of one transaction were settled at one time; the first of each says so, since lane_0015. When it was
committed, only the first entry of the next transaction knows, if the same process wrote it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct

from coordinator.client.timeline import after
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.passages import passage_of

REACHES: Final = (100, 10_000)
"""How far before and behind a command the others are to be looked for: if that does not do, farther. More than the last
are not in one transaction."""


class PassedBy(Protocol):
    """What is needed of an entry of the log."""

    @property
    def sequence(self) -> int: ...
    @property
    def settled_at(self) -> datetime: ...
    @property
    def passage(self) -> str | None: ...


class TransactionTimes(Struct, frozen=True):
    """The transaction of a settled command: of how many commands it was, which of them it is, from 1, and its times."""

    size: int
    place: int
    committing_at: datetime | None
    committed_at: datetime | None


def have_whole(entry: LogEntry, around: Sequence[PassedBy], reach: int) -> bool:
    """Whether the entries so far around this one have all of its transaction, and the beginning of the next."""
    return sum(each.settled_at == entry.settled_at for each in around) < reach


def transaction_times(entry: LogEntry, around: Sequence[PassedBy]) -> TransactionTimes:
    """What the entries around this one, in their order and it among them, say of its transaction."""
    firsts = {each.sequence: passage for each in around if (passage := passage_of(each.passage)).is_first}
    same = [each.sequence for each in around if each.settled_at == entry.settled_at] or [entry.sequence]
    begin = max((at for at in same if at in firsts and at <= entry.sequence), default=same[0])
    end = min((at for at in same if at in firsts and at > entry.sequence), default=same[-1] + 1)
    first, following = firsts.get(begin), firsts.get(end)
    return TransactionTimes(
        size=sum(begin <= at < end for at in same),
        place=sum(begin <= at <= entry.sequence for at in same),
        committing_at=after(entry.settled_at, None if first is None else first.written_ms),
        committed_at=after(entry.settled_at, None if following is None else following.before_ms),
    )
