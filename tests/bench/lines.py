"""The charts with lines: by skew, and by offered load. Each line has its name at its end, in plain words."""

from collections.abc import Sequence
from math import log10
from typing import Any, Final

from tests.bench.ratios import COUNTED_MIN, alternatives, best, latency, throughput
from tests.bench.results import Results, RowResult
from tests.bench.wording import number

POINTS_MIN: Final = 4
"""A line through fewer points would be a guess."""
KEEPS_UP: Final = 0.95
"""The share of what is offered that must be carried out for its latencies to mean something."""

LANE: Final = "#c0392b"
MUTED: Final = "#666666"
_PYTHON, _IN_C, _OTHER, _LOSSY = "#2c6fa6", "#3f8f5f", "#8e7cc3", "#bdc3c7"
_LABEL_GAP: Final = 0.055
"""Between the names of two lines, as a share of the axis."""

Line = list[tuple[float, float]]


def colour_of(result: RowResult) -> str:
    row = result.row
    if row.is_lane:
        return LANE
    if row.may_lose:
        return _LOSSY
    if row.is_batching:
        return _OTHER
    return _PYTHON if row.is_python else _IN_C


def lines_by_skew(results: Results) -> dict[str, tuple[RowResult, Line]]:
    """Transfers a second by skew, of the rows with the same title; a row with too few writes is no point."""
    found: dict[str, tuple[RowResult, Line]] = {}
    for result in results.rows:
        rate = throughput(result)
        if result.row.section.startswith("transfer-") and rate and result.counted >= COUNTED_MIN:
            found.setdefault(result.row.title, (result, []))[1].append((result.row.workload.skew, rate))
    return {title: (of, sorted(line)) for title, (of, line) in found.items() if len(line) >= POINTS_MIN}


def by_skew(results: Results, figure: Any) -> tuple[str, str] | None:
    """Draws; returns title and subtitle, or None where there is no curve."""
    lines = lines_by_skew(results)
    lane = next((line for of, line in lines.values() if of.row.is_lane), None)
    if lane is None:
        return None
    shown = {
        title: found
        for title, found in lines.items()
        if (found[0].row.method, found[0].row.concurrency) in _SHOWN_BY_SKEW
    }
    figure.set_figheight(5.2)
    axes = figure.add_subplot()
    axes.set_yscale("log")
    named = []
    for title, (of, line) in shown.items():
        style = "--" if of.row.is_batching else "-"
        width = 2.8 if of.row.is_lane else 1.6
        axes.plot(*zip(*line, strict=True), style, color=colour_of(of), linewidth=width, marker="o", markersize=4)
        name = f"{title} (another thing)" if of.row.is_batching else title
        named.append((line[-1], f"{name}: {number(line[-1][1])}", colour_of(of)))
    axes.set_xlabel(
        "Zipf skew: 0 draws all accounts alike; the higher it is, the more transfers meet on a few", fontsize=9
    )
    _finish(axes, "transfers a second")
    _name_at_ends(axes, named)
    first, last = lane[0], lane[-1]
    rest = ""
    ends = [best(alternatives(results, f"transfer-{skew:g}", is_python=True)) for skew in (first[0], last[0])]
    if all(ends):
        rates = [number(throughput(one)) for one in ends if one is not None]
        rest = f", the fastest alternative in Python from {rates[0]} to {rates[1]}"
    span = f"from {number(first[1])} to {number(last[1])} transfers a second"
    title = f"The more the writes compete: the lane goes {span}{rest}"
    return title, "Transfers between two of 100,000 accounts; medians of the runs. PostgreSQL, every commit synced."


_SHOWN_BY_SKEW: Final = {
    ("lane", 2000), ("pg-batching", 2000), ("pg-atomic", 32), ("pg-for-update", 32), ("pgbench:atomic", 8)
}  # fmt: skip
"""Methods and how many are under way: each alternative at its best where there is any skew."""


def kept_up(result: RowResult) -> bool:
    """Whether nearly all was carried out that was offered."""
    rate, offered = result.rate(), result.offered()
    return rate is not None and offered is not None and rate.median >= KEEPS_UP * offered.median


def by_load(results: Results, figure: Any) -> tuple[str, str] | None:
    """Two panels, p50 and p99. A line ends at the last load that its method keeps up with."""
    lines: dict[str, list[RowResult]] = {}
    for result in results.rows:
        if result.row.section == "load" and result.counted >= COUNTED_MIN:
            lines.setdefault(result.row.method, []).append(result)
    ordered = {name: sorted(found, key=lambda one: one.row.rate or 0.0) for name, found in lines.items()}
    if len(ordered.get("lane", [])) < POINTS_MIN:
        return None
    figure.set_figheight(4.9)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (name, what) in zip(panels, (("p50", "the median"), ("p99", "one in a hundred is slower")), strict=True):
        named = []
        for method, found in ordered.items():
            kept = [result for result in found if kept_up(result)]
            values = [(result.row.rate or 0.0, latency(name).of(result)) for result in kept]
            line = [(load, value) for load, value in values if value is not None]
            if not line:
                continue
            colour = _COLOURS_BY_LOAD.get(method, MUTED)
            panel.plot(*zip(*line, strict=True), marker="o", markersize=4, color=colour, linewidth=2.2)
            if len(kept) < len(found):
                panel.plot(*line[-1], marker="|", markersize=18, color=colour, markeredgewidth=2.2)
            named.append((line[-1], _NAMES_BY_LOAD.get(method, method), colour))
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(f"{name}: {what}", fontsize=10, loc="left")
        panel.set_xlabel("writes a second that are offered", fontsize=9)
        panel.xaxis.set_major_formatter(lambda one, _: f"{one:,.10g}")
        _finish(panel, "ms from arrival to outcome" if name == "p50" else "")
        _name_at_ends(panel, named)
    limits = [
        f"{_NAMES_BY_LOAD.get(method, method)} {'beyond' if kept_up(found[-1]) else 'up to'} {_limit(found):,.0f}"
        for method, found in ordered.items()
        if _limit(found)
    ]
    title = f"One hot row, writes a second that each keeps up with: {'; '.join(limits)}"
    note = (
        "Poisson arrivals. A bar across the end of a line: at the next load that was measured, "
        "arrivals gather faster than they are carried out."
    )
    return title, note


_NAMES_BY_LOAD: Final = {"lane": "the lane", "pg-for-update": "SELECT … FOR UPDATE", "pg-atomic": "atomic UPDATE"}
_COLOURS_BY_LOAD: Final = {"lane": LANE, "pg-for-update": _PYTHON, "pg-atomic": _IN_C}


def _limit(found: Sequence[RowResult]) -> float:
    return max((result.row.rate or 0.0 for result in found if kept_up(result)), default=0.0)


def _finish(axes: Any, y: str) -> None:
    axes.set_ylabel(y, fontsize=9)
    axes.yaxis.set_major_formatter(lambda one, _: f"{one:,.10g}")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _name_at_ends(axes: Any, named: Sequence[tuple[tuple[float, float], str, str]]) -> None:
    """Write the name of each line beside its last point, each above the one below it."""
    low, high = (log10(edge) for edge in axes.get_ylim())
    free = low
    for (x, y), text, colour in sorted(named, key=lambda one: one[0][1]):
        height = max(log10(y), free)
        free = height + _LABEL_GAP * (high - low)
        place: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.annotate(text, (x, 10**height), fontsize=9, color=colour, bbox=box, **place)
