"""The report as a page of the documentation."""

from collections.abc import Iterable, Sequence

from tests.bench.plan import by_section
from tests.bench.ratios import COUNTED_MIN
from tests.bench.results import Ratio, Results, RowResult
from tests.bench.table import SECTIONS, Column, cost_columns, lines_of, rate_columns, ratio_texts
from tests.bench.verdict import verdict

RATIO_HEADINGS = ("comparison", "measured", "wanted", "verdict", "medians")
OTHER_HEADINGS = ("comparison", "measured", "medians")


def as_markdown(results: Results, charts: Sequence[tuple[str, str]] = ()) -> str:
    """Everything that the terminal has shown. Charts are titles and places, relative to the page."""
    parts = [
        "# Figures",
        _of_the_run(results),
        f"**The machine**: {facts_text(results)}. All processes, clients and servers included, share its cores.",
        "[What is measured and what it means](PERFORMANCE.md).",
        *(f"**Failed**: {problem}" for problem in results.problems),
        *(f"**Left out**: {text}" for text in results.left_out),
        "## What this run shows",
        "\n".join(f"- {sentence}" for sentence in verdict(results)),
        *(f"![{title}]({place})" for title, place in charts),
    ]
    wanted, others = wanted_and_others(results.ratios)
    if wanted:
        is_missed = any(one.verdict == "missed" for one in wanted)
        why = "Why some are missed: [Performance](PERFORMANCE.md#where-the-targets-are-missed)."
        parts += ["## Targets", *([why] if is_missed else []), _table(RATIO_HEADINGS, map(ratio_line, wanted))]
    if others:
        parts += ["## Other comparisons", _table(OTHER_HEADINGS, map(other_line, others))]
    found = {result.row.key: result for result in results.rows}
    for section, rows in by_section(result.row for result in results.rows).items():
        of_section = [found[row.key] for row in rows]
        parts.append(f"## {SECTIONS.get(section, section)}")
        parts.append(_section(of_section, rate_columns(of_section)))
        parts.append("CPU time, and what was verified:")
        parts.append(_section(of_section, cost_columns(of_section)))
    return "\n\n".join(parts) + "\n"


def _of_the_run(results: Results) -> str:
    repeats, window_s, warm_s = (results.settings.get(name, 0.0) for name in ("repeats", "duration_s", "warm_s"))
    return (
        f"From one run of {results.took_s / 60:.0f} minutes on {results.started_at:%Y-%m-%d}. Each row: {repeats:g} "
        f"runs, interleaved with those of its section, each of {window_s:g} s (longer where fewer than {COUNTED_MIN} "
        f"writes were counted) after {warm_s:g} s to warm up. Figures are medians of the runs."
    )


def facts_text(results: Results) -> str:
    return "; ".join(f"{name}: {value}" for name, value in results.machine.items())


def wanted_and_others(ratios: Sequence[Ratio]) -> tuple[list[Ratio], list[Ratio]]:
    """Those with a target, and those without; of the latter only those for whose rows something was measured."""
    others = [one for one in ratios if one.target is None and (one.value is not None or one.detail)]
    return [one for one in ratios if one.target is not None], others


def ratio_line(ratio: Ratio) -> list[str]:
    return [ratio.title, *ratio_texts(ratio), ratio.verdict, ratio.detail]


def other_line(ratio: Ratio) -> list[str]:
    return [ratio.title, ratio_texts(ratio)[0], ratio.detail]


def _section(results: Sequence[RowResult], columns: Sequence[Column]) -> str:
    heading, *lines = lines_of(results, columns)
    marked = (
        [f"**{line[0]}**" if result.row.is_lane else line[0], *line[1:]]
        for result, line in zip(results, lines, strict=True)
    )
    return _table(heading, marked)


def _table(heading: Sequence[str], lines: Iterable[list[str]]) -> str:
    rows = [list(heading), ["---"] * len(heading), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
