"""How far the publishers of a batch are, within its transaction."""

from collections.abc import Iterable

import msgspec

from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.wire import CommandMessage
from coordinator.stores.lane_tables import PublisherPosition

GAPS_MAX = 100
"""How many ranges of missing numbers are kept for one publisher. A number that would make one more is refused: if a
range were forgotten instead, its numbers, which never came, would count as settled."""

_NO_GAPS = "[]"
_Gaps = list[tuple[int, int]]


class PublisherProgress:
    """Counts each number once: below its publisher's position, only numbers that never came are taken."""

    def __init__(self, work: BatchWork, order: PublisherOrder, messages: Iterable[CommandMessage]) -> None:
        self._work = work
        self._rows: dict[str, PublisherPosition | None] = {}
        self._moved: dict[str, PublisherPosition] = {}
        self._refused: set[str] = set()
        named = {message.publisher: None for message in messages if message.publisher_seq is not None}
        names = [name for name in named if name is not None]
        for name in names:
            if order.knows(name):
                work.adopt(PublisherPosition, name, order.position(name))
        self.refs = [PublisherPosition.at(name) for name in names if not order.knows(name)]
        """The rows that are to be read."""

    def is_counted(self, message: CommandMessage) -> bool:
        """Whether the number of this command was counted before, whatever its id."""
        if message.publisher is None or message.publisher_seq is None:
            return False
        row = self._row(message.publisher)
        number = message.publisher_seq
        if row is None or number > row.sequence:
            return number < 1
        return not any(first <= number <= last for first, last in _gaps(row))

    def leaves_too_many_gaps(self, message: CommandMessage) -> bool:
        """Whether counting the number of this command would give its publisher more gaps than are kept."""
        name, number = message.publisher, message.publisher_seq
        if name is None or number is None or number < 1:
            return False
        row = self._row(name)
        sequence, gaps = (0, []) if row is None else (row.sequence, _gaps(row))
        return _are_too_many(_gaps_after(sequence, gaps, number), gaps)

    def advance(self, message: CommandMessage) -> None:
        """This command is settled: count its number."""
        name, number = message.publisher, message.publisher_seq
        if name is None or number is None or number < 1:
            return
        row = self._row(name) or PublisherPosition(name=name, sequence=0, seen_at=self._work.now)
        gaps = _gaps(row)
        after = _gaps_after(row.sequence, gaps, number)
        if number <= row.sequence and after == gaps:
            return
        if _are_too_many(after, gaps):
            self._refused.add(name)
            return
        self._moved[name] = self._rows[name] = PublisherPosition(
            name=name,
            sequence=max(number, row.sequence),
            gaps=msgspec.json.encode(after).decode() if after else _NO_GAPS,
            seen_at=self._work.now,
        )

    def refused(self) -> dict[str, int]:
        """How far the publishers are that had a number refused."""
        rows = {name: self._row(name) for name in self._refused}
        return {name: 0 if row is None else row.sequence for name, row in rows.items()}

    def save(self) -> list[PublisherPosition]:
        """Write the positions that have moved."""
        for row in self._moved.values():
            if self._work.get(PublisherPosition, row.name) is None:
                self._work.add(row)
            else:
                self._work.save(row)
        return list(self._moved.values())

    def _row(self, name: str) -> PublisherPosition | None:
        if name not in self._rows:
            self._rows[name] = self._work.get(PublisherPosition, name)
        return self._rows[name]


def _gaps(row: PublisherPosition) -> _Gaps:
    return [] if row.gaps == _NO_GAPS else msgspec.json.decode(row.gaps, type=_Gaps)


def _gaps_after(sequence: int, gaps: _Gaps, number: int) -> _Gaps:
    """The gaps of a publisher that is at a sequence, once this number is counted too."""
    if number > sequence + 1:
        return [*gaps, (sequence + 1, number - 1)]
    return gaps if number > sequence else _without(gaps, number)


def _are_too_many(after: _Gaps, before: _Gaps) -> bool:
    # There may be more already: a number in the middle of a gap leaves two, which earlier releases did not count.
    return len(after) > max(GAPS_MAX, len(before))


def _without(gaps: _Gaps, number: int) -> _Gaps:
    """The ranges without one number."""
    rest: _Gaps = []
    for first, last in gaps:
        if not first <= number <= last:
            rest.append((first, last))
            continue
        rest += [part for part in ((first, number - 1), (number + 1, last)) if part[0] <= part[1]]
    return rest
