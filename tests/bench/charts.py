"""Charts, with matplotlib, which only the benchmark installs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.ratios import throughput
from tests.bench.results import Results, RowResult

_SIZE_INCHES = (9.0, 5.0)
_DOTS_PER_INCH = 110
_LANE_COLOUR = "#c0392b"


def draw(results: Results, directory: Path) -> Iterator[tuple[str, Path]]:
    """Draw what there is data for; yield titles and files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for name, title, plot in (
        ("throughput-by-skew", "Transfers per second by skew (PostgreSQL)", _by_skew),
        ("latency-by-load", "Latency by offered load (one hot account, PostgreSQL)", _by_load),
        ("crossover", "The lane over each alternative, by skew: above 1 the lane wins", _crossover),
        ("hot-row", "One hot account, PostgreSQL: writes per second", _bars),
    ):
        figure, axes = plt.subplots(figsize=_SIZE_INCHES)
        if plot(results, axes):
            axes.set_title(title)
            axes.grid(visible=True, alpha=0.3)
            path = directory / f"{name}.png"
            figure.savefig(path, dpi=_DOTS_PER_INCH, bbox_inches="tight")
            yield title, path
        plt.close(figure)


def by_skew(results: Results) -> dict[str, list[tuple[float, RowResult]]]:
    """The rows of transfers with the same method, in order of skew."""
    lines: dict[str, list[tuple[float, RowResult]]] = {}
    for result in results.rows:
        if result.row.section.startswith("transfer-") and result.measurements:
            lines.setdefault(result.row.title, []).append((result.row.workload.skew, result))
    return {title: sorted(points, key=lambda point: point[0]) for title, points in lines.items()}


def _by_skew(results: Results, axes: Any) -> bool:
    for title, points in by_skew(results).items():
        rates = [result.rate() for _, result in points]
        known = [(skew, rate) for (skew, _), rate in zip(points, rates, strict=True) if rate is not None]
        middle = [rate.median for _, rate in known]
        spans = ([rate.median - rate.low for _, rate in known], [rate.high - rate.median for _, rate in known])
        axes.errorbar([skew for skew, _ in known], middle, yerr=spans, label=title, **_style(points[0][1]))
    return _finish(axes, "Zipf skew", "transfers per second", logarithmic="y")


def _crossover(results: Results, axes: Any) -> bool:
    lines = by_skew(results)
    lane = next((dict(points) for points in lines.values() if points[0][1].row.is_lane), None)
    if lane is None:
        return False
    for title, points in lines.items():
        if points[0][1].row.is_lane:
            continue
        shared = [(skew, throughput(lane[skew]), throughput(result)) for skew, result in points if skew in lane]
        ratios = [(skew, above / below) for skew, above, below in shared if above and below]
        axes.plot(*zip(*ratios, strict=True), marker="o", label=title)
    axes.axhline(1.0, color="black", linewidth=1)
    return _finish(axes, "Zipf skew", "lane / alternative", logarithmic="y")


def _by_load(results: Results, axes: Any) -> bool:
    lines: dict[str, list[RowResult]] = {}
    for result in results.rows:
        if result.row.section == "load" and result.measurements:
            lines.setdefault(result.row.method, []).append(result)
    for (method, points), colour in zip(lines.items(), ("#c0392b", "#2980b9", "#27ae60"), strict=False):
        ordered = sorted(points, key=lambda result: result.row.rate or 0.0)
        for name, dashes in (("p50", "-"), ("p99", "--"), ("p99.9", ":")):
            values = [(result.row.rate, result.latency_ms(name)) for result in ordered]
            known = [(rate, value.median) for rate, value in values if value is not None]
            if known:
                axes.plot(*zip(*known, strict=True), dashes, marker="o", color=colour, label=f"{method} {name}")
    axes.set_xscale("log")
    return _finish(axes, "offered writes per second", "latency in ms", logarithmic="y")


def _bars(results: Results, axes: Any) -> bool:
    found = [result for result in results.rows if result.row.section == "hot-row" and result.measurements]
    ordered = sorted(found, key=lambda result: throughput(result) or 0.0)
    colours = [
        _LANE_COLOUR if result.row.is_lane else "#bdc3c7" if result.row.may_lose else "#2980b9" for result in ordered
    ]
    axes.barh(
        [result.row.title for result in ordered], [throughput(result) or 0.0 for result in ordered], color=colours
    )
    axes.set_xscale("log")
    axes.set_xlabel("writes per second")
    return bool(ordered)


def _style(result: RowResult) -> dict[str, Any]:
    style: dict[str, Any] = {"marker": "o", "capsize": 3}
    return style | ({"color": _LANE_COLOUR, "linewidth": 2.5} if result.row.is_lane else {})


def _finish(axes: Any, x: str, y: str, *, logarithmic: str) -> bool:
    """Label the axes; False when nothing was drawn."""
    if not axes.get_legend_handles_labels()[0]:
        return False
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if "y" in logarithmic:
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    return True
