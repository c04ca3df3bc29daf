"""Publisher sessions: commands that carry `publisher` and `publisher-seq` are applied in that order, whatever the
broker does. A delivery that arrives ahead of its predecessor is held, unacknowledged, until that one arrives.
"""

import itertools
from collections.abc import Iterable, Sequence

from msgspec import Struct

from coordinator.lane.delivery import Delivery
from shared.lane_tables import PublisherPosition
from shared.messaging.wire import CommandMessage


class _Span(Struct, frozen=True):
    """The publisher of a delivery, and the first and last of its numbers."""

    publisher: str
    first: int
    last: int


class _Held(Struct, frozen=True):
    """A delivery that came too early."""

    delivery: Delivery
    span: _Span
    since_s: float


class PublisherOrder:
    """Decides which deliveries may be applied now. What it knows ends with the lease: a successor reads it anew."""

    def __init__(self, held_max: int, gap_timeout_s: float) -> None:
        self._held_max = held_max
        self._gap_timeout_s = gap_timeout_s
        self._next: dict[str, int] = {}
        self._rows: dict[str, PublisherPosition | None] = {}
        # By number and then arrival: the same command may arrive several times, and each is acknowledged.
        self._held: dict[str, dict[tuple[int, int], _Held]] = {}
        self._arrivals = itertools.count()
        self.gaps = 0

    def forget(self) -> None:
        """Start anew: the broker delivers again what was not acknowledged."""
        self._next.clear()
        self._rows.clear()
        self._held.clear()

    @property
    def held(self) -> int:
        """How many deliveries wait for a predecessor, with all of their parts or some."""
        if not self._held:
            return 0
        return len({held.delivery.tag for waiting in self._held.values() for held in waiting.values()})

    def unknown(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Publishers whose position has not been read yet."""
        found: dict[str, None] = {}
        for delivery in deliveries:
            span = _span(delivery)
            if span is not None and span.publisher not in self._next:
                found[span.publisher] = None
        return list(found)

    def learn(self, publishers: Iterable[str], rows: Iterable[PublisherPosition]) -> None:
        """The positions of some publishers; those without a row have published nothing yet."""
        for publisher in publishers:
            self._rows[publisher] = None
            self._next[publisher] = 1
        for row in rows:
            self._rows[row.name] = row
            self._next[row.name] = row.sequence + 1

    def admit(self, deliveries: Sequence[Delivery], now_s: float) -> list[Delivery]:
        """The deliveries whose turn it is, in the order in which to apply them; the others are held.

        A predecessor that does not come within the timeout, or before too many deliveries wait, is given up: `gaps`
        counts it, and it is applied when it comes after all.
        """
        ready: list[Delivery] = []
        for delivery in deliveries:
            span = _span(delivery)
            if span is None:
                ready.append(delivery)
            elif span.first <= self._next[span.publisher]:
                self._take(delivery, span, ready)
            else:
                slot = (span.first, next(self._arrivals))
                self._held.setdefault(span.publisher, {})[slot] = _Held(delivery, span, now_s)
        while (oldest := self._oldest()) is not None and (
            self.held > self._held_max or now_s - oldest.since_s >= self._gap_timeout_s
        ):
            self.gaps += 1
            waiting = self._held[oldest.span.publisher]
            first = waiting.pop(min(waiting))
            self._take(first.delivery, first.span, ready)
        return ready

    def due_in_s(self, now_s: float) -> float | None:
        """When the next gap is given up; None: nothing is held."""
        oldest = self._oldest()
        return None if oldest is None else max(0.0, oldest.since_s + self._gap_timeout_s - now_s)

    def doubt(self) -> None:
        """A commit may have happened or not: the rows must be read again."""
        self._rows.clear()

    def knows(self, publisher: str) -> bool:
        """Whether the row of a publisher, or its absence, is known for certain."""
        return publisher in self._rows

    def position(self, publisher: str) -> PublisherPosition | None:
        """The row of a publisher, as committed."""
        return self._rows.get(publisher)

    def advanced(self, rows: Iterable[PublisherPosition]) -> None:
        """These rows are committed."""
        for row in rows:
            self._rows[row.name] = row

    def _take(self, delivery: Delivery, span: _Span, ready: list[Delivery]) -> None:
        """This one's turn, and then that of all who waited for it."""
        ready.append(delivery)
        publisher = span.publisher
        self._next[publisher] = max(self._next[publisher], span.last + 1)
        waiting = self._held.get(publisher, {})
        while waiting and (slot := min(waiting))[0] <= self._next[publisher]:
            held = waiting.pop(slot)
            ready.append(held.delivery)
            self._next[publisher] = max(self._next[publisher], held.span.last + 1)
        if not waiting:
            self._held.pop(publisher, None)

    def _oldest(self) -> _Held | None:
        if not self._held:
            return None
        waiting = [held for by_first in self._held.values() for held in by_first.values()]
        return min(waiting, key=lambda held: held.since_s, default=None)


def _span(delivery: Delivery) -> _Span | None:
    """Its numbers are one publisher's, one after the other (`Parts`)."""
    first: CommandMessage | None = None
    last = 0
    for message in delivery.commands:
        if message.publisher_seq is not None and message.publisher is not None:
            first = first or message
            last = message.publisher_seq
    if first is None or first.publisher is None or first.publisher_seq is None:
        return None
    return _Span(first.publisher, first.publisher_seq, last)
