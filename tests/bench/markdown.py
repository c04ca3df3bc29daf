"""The figures as a page of the documentation."""

from collections.abc import Iterable, Sequence

from tests.bench.plan import by_section
from tests.bench.results import Ratio, Results, RowResult
from tests.bench.table import HEADINGS, SECTIONS, cells, check_text, ratio_texts


def as_markdown(results: Results) -> str:
    """Everything that the terminal has shown."""
    facts = "; ".join(f"{name}: {value}" for name, value in results.machine.items())
    settings = ", ".join(f"{name} {value:,.10g}" for name, value in results.settings.items())
    parts = [
        "# Figures",
        f"From one run of {results.took_s:.0f} s on {results.started_at:%Y-%m-%d} ({settings}).",
        f"{facts}. All processes share the cores.",
        "Medians of the repeats; CPU time in seconds per 1,000 writes. [What they mean](PERFORMANCE.md).",
        *(f"**Failed**: {problem}" for problem in results.problems),
        "## Ratios of medians",
        _table(["", "", "target", "", "of"], map(_ratio, results.ratios)),
    ]
    found = {result.row.key: result for result in results.rows}
    for section, rows in by_section(result.row for result in results.rows).items():
        parts.append(f"## {SECTIONS.get(section, section)}")
        parts.append(_table(["", *HEADINGS, "verified"], (_row(found[row.key]) for row in rows)))
    return "\n\n".join(parts) + "\n"


def _ratio(ratio: Ratio) -> list[str]:
    return [ratio.title, *ratio_texts(ratio), ratio.verdict, ratio.detail]


def _row(result: RowResult) -> list[str]:
    title = f"**{result.row.title}**" if result.row.is_lane else result.row.title
    return [title, *cells(result), check_text(result)]


def _table(heading: Sequence[str], lines: Iterable[list[str]]) -> str:
    rows = [list(heading), ["---"] * len(heading), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
