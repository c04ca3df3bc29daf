"""Charts, with matplotlib, which only the benchmark installs. Each title is the chart's point, with its figures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from tests.bench.lines import MUTED, by_load, by_skew, colour_of
from tests.bench.ratios import latency, quotient, throughput
from tests.bench.results import Results, RowResult
from tests.bench.verdict import THROUGH_HTTP
from tests.bench.wording import as_fast_as, number

DOTS_PER_INCH: Final = 120
WIDTH_INCHES: Final = 9.0
_TITLE_CHARACTERS: Final = 84
_BAR_INCHES: Final = 0.34
_HEAD_INCHES: Final = 1.3
_CUT_AT: Final = 1.25
"""How far the axis goes beyond the lane's bar: what is longer is cut off, and says so."""

Plot = Callable[[Results, Any], tuple[str, str] | None]
"""Draws into a figure of matplotlib and returns title and subtitle; None where there is too little to draw."""


def draw(results: Results, directory: Path) -> Iterator[tuple[str, Path]]:
    """Draw what there is data for; yield titles and files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    directory.mkdir(parents=True, exist_ok=True)
    for name, plot in PLOTS.items():
        figure = plt.figure(layout="constrained")
        figure.set_figwidth(WIDTH_INCHES)
        said = plot(results, figure)
        if said is not None:
            title, subtitle = said
            figure.suptitle(
                fill(_unbroken(title), _TITLE_CHARACTERS), x=0.01, ha="left", fontsize=12.5, fontweight="bold"
            )
            figure.text(0.01, -0.01, fill(subtitle, 150), ha="left", va="top", fontsize=8, color=MUTED)
            path = directory / f"{name}.png"
            figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.15)
            yield title, path
        plt.close(figure)


def _unbroken(title: str) -> str:
    """With the names of statements kept on one line."""
    for name in ("SELECT … FOR UPDATE", "FOR UPDATE", "atomic UPDATE"):
        title = title.replace(name, name.replace(" ", "\N{NO-BREAK SPACE}"))
    return title


def _hot_row(results: Results, figure: Any) -> tuple[str, str] | None:
    lane, locking = results.find("hot-row/lane"), results.find("hot-row/for-update-32")
    ratio = quotient("", lane, locking).value
    if lane is None or ratio is None:
        return None
    found = [result for result in results.rows if result.row.section == "hot-row" and result.measurements]
    _bars(figure, found, throughput, cut_at=_CUT_AT * (throughput(lane) or 0.0), unit="writes a second")
    title = f"One hot row: the lane is {as_fast_as(ratio, 'SELECT … FOR UPDATE, 32 clients')}"
    note = (
        "Bars: medians; lines: lowest to highest. Violet merges writes in one process's memory, which is another thing;"
    )
    return title, f"{note} green: clients in C; grey: loses updates. PostgreSQL, every commit synced."


def _http(results: Results, figure: Any) -> tuple[str, str] | None:
    found = [result for result in results.rows if result.row.section == "http" and result.measurements]
    lane = results.find("http/lane")
    said = [
        as_fast_as(ratio, name)
        for key, name in THROUGH_HTTP.items()
        if (ratio := quotient("", lane, results.find(key)).value) is not None
    ]
    if not said:
        return None
    p99 = latency("p99").of
    _bars(figure, found, throughput, unit="writes a second", beside=lambda one: f"p99 {number(p99(one))} ms")
    title = f"Through HTTP, one hot row: a gateway with the lane is {', '.join(said)}"
    return (
        title,
        "Medians of the runs; lines: lowest to highest. One load generator in C for all (wrk); all commits synced.",
    )


def _one_client(results: Results, figure: Any) -> tuple[str, str] | None:
    lane, locking = results.find("one-client/lane"), results.find("one-client/for-update-1")
    p50 = latency("p50").of
    if lane is None or locking is None or quotient("", lane, locking).value is None:
        return None
    found = [result for result in results.rows if result.row.section == "one-client" and result.measurements]
    _bars(figure, found, p50, unit="ms a write, median", is_rate=False)
    more_ms = (p50(lane) or 0.0) - (p50(locking) or 0.0)
    title = f"One client that waits for each write: the queue costs it {number(more_ms, 2)} ms"
    return title, "Accounts drawn at random among 100,000, so nobody waits for a lock. PostgreSQL, every commit synced."


PLOTS: Final[dict[str, Plot]] = {
    "hot-row": _hot_row,
    "through-http": _http,
    "by-skew": by_skew,
    "by-load": by_load,
    "one-client": _one_client,
}


def _bars(
    figure: Any,
    found: Sequence[RowResult],
    value: Callable[[RowResult], float | None],
    *,
    unit: str,
    cut_at: float | None = None,
    is_rate: bool = True,
    beside: Callable[[RowResult], str] | None = None,
) -> None:
    """A bar a row, the longest on top, with its value; one that is longer than `cut_at` ends there, with an arrow."""
    ordered = sorted(found, key=lambda result: value(result) or 0.0)
    values = [value(result) or 0.0 for result in ordered]
    end = min(max(values), cut_at or max(values))
    figure.set_figheight(_HEAD_INCHES + _BAR_INCHES * len(ordered))
    axes = figure.add_subplot()
    bars = axes.barh([result.row.title for result in ordered], [min(one, end) for one in values], height=0.72)
    for place, (result, bar, one) in enumerate(zip(ordered, bars, values, strict=True)):
        bar.set_color(colour_of(result))
        text = number(one) + (f"   {beside(result)}" if beside else "")
        weight = "bold" if result.row.is_lane else "normal"
        if one > end:
            label = {"ha": "right", "color": "black", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5}}
            axes.text(end * 0.99, place, f"{text} →  (bar cut off)", va="center", fontsize=9, **label)
            continue
        spread = result.rate() if is_rate else None
        reach = one if spread is None else max(one, spread.high)
        if spread is not None:
            axes.plot([spread.low, spread.high], [place, place], color="black", linewidth=0.9)
        axes.text(reach + end * 0.01, place, text, va="center", fontsize=9, fontweight=weight)
    for label, result in zip(axes.get_yticklabels(), ordered, strict=True):
        label.set_fontweight("bold" if result.row.is_lane else "normal")
    axes.set_xlim(0, end if max(values) > end else end * (1.3 if beside else 1.12))
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.xaxis.set_major_formatter(lambda one, _: f"{one:,.10g}")
    axes.set_xlabel(unit, fontsize=9)
    axes.tick_params(labelsize=9, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
