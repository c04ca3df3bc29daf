"""Publisher sessions: the commands of a `publisher` are applied by `publisher-seq`, whatever the broker does.

A delivery that arrives ahead of its predecessor is early: it waits for the predecessor, unacknowledged.
"""

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery
from coordinator.protocol.wire import CommandMessage
from coordinator.stores.lane_tables import PublisherPosition

KNOWN_MAX: Final = 10_000
"""How many publishers' positions are remembered; others are read again. Anybody can make up names."""
SESSION_GAP: Final = "for an earlier command of its publisher session"
"""For what an early delivery waits, in words."""


class _Span(Struct, frozen=True):
    """The publisher of a delivery, and the first and last of its numbers."""

    publisher: str
    first: int
    last: int


class _Early(Struct, frozen=True):
    """A delivery that came too early, or a part of one (`Runs`)."""

    delivery: Delivery
    span: _Span
    since_s: float


class PublisherOrder:
    """Decides which deliveries may be applied now. Its knowledge ends with the lease: a successor reads it again.

    Strangers choose the names and the numbers, so the memory is bounded, and n deliveries cost O(n log n).
    """

    def __init__(self, early_max: int, gap_timeout_s: float) -> None:
        self._early_max = early_max
        self._gap_timeout_s = gap_timeout_s
        # The publisher seen last is the last one.
        self._next: OrderedDict[str, int] = OrderedDict()
        self._rows: dict[str, PublisherPosition | None] = {}
        self._gone_back: set[str] = set()
        """Publishers whose position may be less than what is known of it, since the database has lost commits."""
        # By arrival, so that the oldest is the first one.
        self._early: OrderedDict[int, _Early] = OrderedDict()
        # By publisher a heap of numbers, each with its arrival: the same command may arrive several times, and each
        # arrival is acknowledged.
        self._waiting: dict[str, list[tuple[int, int]]] = {}
        # The system's markers that came behind early deliveries, each with its arrival.
        self._markers: deque[tuple[int, Delivery]] = deque()
        self._arrivals = itertools.count()
        self.gaps = 0
        self._waits_since_s: float | None = None

    def forget(self) -> None:
        """Begin again: the broker delivers unacknowledged messages again."""
        self._next.clear()
        self._rows.clear()
        self._gone_back.clear()
        self._early.clear()
        self._waiting.clear()
        self._markers.clear()
        self._waits_since_s = None

    @property
    def early(self) -> int:
        """How many deliveries and parts of deliveries wait for a predecessor."""
        return len(self._early)

    @property
    def known(self) -> int:
        """How many publishers' positions are remembered."""
        return len(self._next)

    def unknown(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Publishers whose position is not known."""
        found: dict[str, None] = {}
        for delivery in deliveries:
            span = _span(delivery)
            if span is not None and (span.publisher not in self._next or span.publisher in self._gone_back):
                found[span.publisher] = None
        return list(found)

    def learn(self, publishers: Iterable[str], rows: Iterable[PublisherPosition]) -> None:
        """Take in the positions of some publishers; those without a row have published nothing yet."""
        for publisher in publishers:
            self._rows[publisher] = None
            self._next[publisher] = 1
            self._gone_back.discard(publisher)
        for row in rows:
            self._rows[row.name] = row
            self._next[row.name] = row.sequence + 1

    def admit(self, deliveries: Sequence[Delivery], now_s: float) -> list[Delivery]:
        """The deliveries to apply now, in their order; the others are early, and wait, and so do markers behind them.

        A predecessor that does not come within the timeout, or before too many wait, is given up: `gaps` counts it,
        and it is applied if it comes after all.
        """
        ready: list[Delivery] = []
        for delivery in deliveries:
            span = _span(delivery)
            if span is None:
                if self._early and _is_marker(delivery):
                    self._markers.append((next(self._arrivals), delivery))
                else:
                    ready.append(delivery)
                continue
            self._next.move_to_end(span.publisher)
            if span.first <= self._next[span.publisher]:
                self._take(delivery, span, ready)
            else:
                arrival = next(self._arrivals)
                self._early[arrival] = _Early(delivery, span, now_s)
                heapq.heappush(self._waiting.setdefault(span.publisher, []), (span.first, arrival))
        while (oldest := self._oldest()) is not None and now_s - oldest.since_s >= self._gap_timeout_s:
            self._give_up(oldest.span.publisher, ready)
        if len(self._early) > self._early_max:
            self._relieve(ready)
        self._let_markers_go(ready)
        self._forget_some()
        self._waits_since_s = None if (first := self._oldest()) is None else first.since_s
        return ready

    def waited_s(self, now_s: float) -> float:
        """How long the first early delivery has waited; 0: none does. For any thread."""
        since_s = self._waits_since_s
        return 0.0 if since_s is None else max(0.0, now_s - since_s)

    def due_in_s(self, now_s: float) -> float | None:
        """When the next gap is given up; None: nothing is early."""
        oldest = self._oldest()
        return None if oldest is None else max(0.0, oldest.since_s + self._gap_timeout_s - now_s)

    def doubt(self) -> None:
        """A commit may have happened or not, or rows were deleted: the positions must be read again."""
        self._rows.clear()

    def lose(self) -> None:
        """The database has lost commits: what publishers send again has its order as if it were new."""
        self._rows.clear()
        self._gone_back.update(self._next)

    def knows(self, publisher: str) -> bool:
        """Whether the row of a publisher, or its absence, is known for certain."""
        return publisher in self._rows

    def position(self, publisher: str) -> PublisherPosition | None:
        """The row of a publisher, as committed."""
        return self._rows.get(publisher)

    def advanced(self, rows: Iterable[PublisherPosition], refused: Mapping[str, int]) -> None:
        """These rows are committed. Publishers of whom a number was refused are still at the positions given."""
        for row in rows:
            if row.name in self._next:
                self._rows[row.name] = row
                self._next[row.name] = max(self._next[row.name], row.sequence + 1)
        for publisher, number in refused.items():
            if publisher in self._next:
                self._next[publisher] = number + 1

    def _take(self, delivery: Delivery, span: _Span, ready: list[Delivery]) -> None:
        """Admit this delivery, and then all that waited for it."""
        ready.append(delivery)
        publisher = span.publisher
        self._next[publisher] = max(self._next[publisher], span.last + 1)
        waiting = self._waiting.get(publisher)
        if waiting is None:
            return
        while waiting and waiting[0][0] <= self._next[publisher]:
            early = self._early.pop(heapq.heappop(waiting)[1])
            ready.append(early.delivery)
            self._next[publisher] = max(self._next[publisher], early.span.last + 1)
        if not waiting:
            del self._waiting[publisher]

    def _give_up(self, publisher: str, ready: list[Delivery]) -> None:
        """Give up the predecessor of a publisher's first early delivery."""
        self.gaps += 1
        first = self._early.pop(heapq.heappop(self._waiting[publisher])[1])
        self._take(first.delivery, first.span, ready)

    def _relieve(self, ready: list[Delivery]) -> None:
        """Let no more deliveries wait than the limit.

        The publisher that has the most waiting gives up first, and among equals the one that came last. So strangers
        that come later, or that fill the room, cannot cost a publisher the order of its commands.
        """
        crowd = [(-len(waiting), -min(at for _, at in waiting), name) for name, waiting in self._waiting.items()]
        heapq.heapify(crowd)
        while len(self._early) > self._early_max:
            _, since, publisher = crowd[0]
            self._give_up(publisher, ready)
            waiting = self._waiting.get(publisher)
            if waiting is None:
                heapq.heappop(crowd)
            else:
                heapq.heapreplace(crowd, (-len(waiting), since, publisher))

    def _let_markers_go(self, ready: list[Delivery]) -> None:
        """Admit the markers that nothing early is before: a marker is settled behind all that was published before."""
        while self._markers:
            first = next(iter(self._early), None)
            are_too_many = len(self._early) + len(self._markers) > self._early_max
            if first is not None and first < self._markers[0][0] and not are_too_many:
                break
            ready.append(self._markers.popleft()[1])

    def _forget_some(self) -> None:
        """Remember as many publishers as the limit, and those that have something early."""
        for _ in range(len(self._next) - KNOWN_MAX):
            publisher = next(iter(self._next))
            if publisher in self._waiting:
                self._next.move_to_end(publisher)
            else:
                del self._next[publisher]
                self._rows.pop(publisher, None)
                self._gone_back.discard(publisher)

    def _oldest(self) -> _Early | None:
        return next(iter(self._early.values())) if self._early else None


def _is_marker(delivery: Delivery) -> bool:
    commands = delivery.commands
    return len(commands) == 1 and commands[0].type == Marker.type and commands[0].origin == "system"


def _span(delivery: Delivery) -> _Span | None:
    """Its numbers are one publisher's, one after the other (`Runs`)."""
    first: CommandMessage | None = None
    last = 0
    for message in delivery.commands:
        if message.publisher_seq is not None and message.publisher is not None:
            first = first or message
            last = message.publisher_seq
    if first is None or first.publisher is None or first.publisher_seq is None:
        return None
    return _Span(first.publisher, first.publisher_seq, last)
