"""What may grow in a run that is long, and how far: measured in calm at the start, in the middle and at the end."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

MIB = 1 << 20


class Measure(StrEnum):
    """What is measured; each of several things: processes, lanes, tables, queues."""

    MEMORY = "resident memory, MiB"
    DESCRIPTORS = "open files"
    LATENCY_P50 = "latency p50, ms"
    LATENCY_P99 = "latency p99, ms"
    LOG = "rows of the log whose outcome no client has yet"
    ROWS = "rows"
    QUEUED = "messages in queues"
    QUEUES = "queues"
    SERVERS_MEMORY = "resident memory of servers, MiB"
    LOAD = "processes that want to run"


class Bound(Struct, frozen=True):
    """A figure at the end may be this many times the figure before, and `more` above that."""

    times: float
    more: float
    is_after_middle: bool = False
    """Against the figure in the middle: until then a process fills what it may fill, such as its caches."""

    def limit(self, figures: Sequence[float]) -> float:
        return figures[1 if self.is_after_middle else 0] * self.times + self.more


BOUNDS: Mapping[Measure, Bound | None] = {
    Measure.MEMORY: Bound(1.1, 8, is_after_middle=True),
    Measure.DESCRIPTORS: Bound(1, 8),
    Measure.LATENCY_P50: Bound(1.5, 10),
    Measure.LATENCY_P99: Bound(2, 100),
    Measure.LOG: Bound(1, 500),
    # Of the tables whose rows come and go: they must not stay.
    Measure.ROWS: Bound(1, 50),
    Measure.QUEUED: Bound(1, 100),
    Measure.QUEUES: Bound(1, 0),
    # Theirs: shown, since a server that grows for ever is news too.
    Measure.SERVERS_MEMORY: None,
    # Shown beside the latencies: where the machine was busier with something else, run it again.
    Measure.LOAD: None,
}
Sample = dict[Measure, dict[str, float]]
"""Figures of one moment: of each measure, by what was measured."""


def grown(samples: Sequence[Sample], shown_only: Collection[Measure] = ()) -> Iterator[str]:
    """What has grown beyond its bound, in words. What is not there at the start or the middle counts as 0 there.

    Of what is `shown_only` nothing is judged.
    """
    for measure, bound in BOUNDS.items():
        if measure in shown_only:
            continue
        for name, figures in _figures(samples, measure):
            limit = _limit(bound, figures)
            if limit is not None and figures[-1] > limit:
                yield f"{name}: {measure} grew to {figures[-1]:.6g}; at most {limit:.6g} is allowed"


def table_of(samples: Sequence[Sample]) -> list[str]:
    """For people: each figure at the start, in the middle and at the end, and what it may be at the end."""
    lines = [_row("", "start", "middle", "end", "at most")]
    for measure, bound in BOUNDS.items():
        lines.append(measure)
        for name, figures in _figures(samples, measure):
            limit = _limit(bound, figures)
            over = "  GREW" if limit is not None and figures[-1] > limit else ""
            shown = [f"{figure:.2f}" for figure in figures]
            lines.append(_row(f"  {name}", *shown, "" if limit is None else f"{limit:.2f}") + over)
    return lines


def _limit(bound: Bound | None, figures: Sequence[float]) -> float | None:
    return None if bound is None else bound.limit(figures)


def _figures(samples: Sequence[Sample], measure: Measure) -> Iterator[tuple[str, list[float]]]:
    for name in sorted({name for sample in samples for name in sample.get(measure, {})}):
        yield name, [sample.get(measure, {}).get(name, 0.0) for sample in samples]


def _row(name: str, *cells: str) -> str:
    return f"{name:42}{''.join(f'{cell:>12}' for cell in cells)}".rstrip()
