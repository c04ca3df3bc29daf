"""The report on disk: all as JSON, a page in Markdown with its charts, and one HTML file that needs no other.

The page and its charts are what docs/FIGURES.md and docs/figures are copied from.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.bench import ratios
from tests.bench.markdown import (
    OTHER_HEADINGS,
    RATIO_HEADINGS,
    as_markdown,
    facts_text,
    other_line,
    ratio_line,
    wanted_and_others,
)
from tests.bench.measurement import PERCENTILES, Measurement
from tests.bench.plan import by_section
from tests.bench.results import Results, RowResult
from tests.bench.rows import Row
from tests.bench.table import SECTIONS, Column, cost_columns, lines_of, rate_columns
from tests.bench.verdict import verdict

CHARTS: Final = "figures"
"""The charts' folder, beside the page that shows them."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: 13px } h2 { margin-top: 2.5rem }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child, .text { text-align: left } th { font-weight: 600; vertical-align: bottom }
tr.lane { background: #fdf1ef; font-weight: 600 } .bad { color: #b00 } img { max-width: 100%; margin: 1rem 0 }
"""


def write(results: Results, directory: Path) -> Iterator[Path]:
    """Write the files and yield their places."""
    from tests.bench.charts import draw

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.json"
    path.write_bytes(as_json(results))
    yield path
    charts = list(draw(results, directory / CHARTS))
    yield from (chart for _, chart in charts)
    path = directory / "FIGURES.md"
    path.write_text(as_markdown(results, [(title, f"{CHARTS}/{chart.name}") for title, chart in charts]))
    yield path
    images = [(title, chart.read_bytes()) for title, chart in charts]
    page = directory / "report.html"
    page.write_text(as_html(results, images))
    yield page


def as_json(results: Results) -> bytes:
    """Every measurement as it was, and each row's medians beside them."""
    content = {
        "started_at": results.started_at,
        "took_s": results.took_s,
        "machine": results.machine,
        "settings": results.settings,
        "rows": [
            {
                "row": result.row,
                "median": {
                    "offered_per_s": result.offered(),
                    "achieved_per_s": result.rate(),
                    "rejected_per_s": result.rejected(),
                    **{f"{name}_ms": result.latency_ms(name) for name in PERCENTILES},
                },
                "counted": result.counted,
                "errors": result.errors,
                "lost": result.lost,
                "invariant": result.verdict,
                "measurements": result.measurements,
                "failures": result.failures,
            }
            for result in results.rows
        ],
        "ratios": [{**msgspec.structs.asdict(ratio), "verdict": ratio.verdict} for ratio in results.ratios],
        "problems": results.problems,
        "left_out": results.left_out,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


class _StoredRow(Struct):
    row: Row
    measurements: list[Measurement]
    failures: list[str]


class _Stored(Struct):
    """What is read of the JSON again: all that is not computed from the rest."""

    started_at: datetime
    took_s: float
    machine: dict[str, str]
    settings: dict[str, float]
    rows: list[_StoredRow]
    left_out: list[str] = []


def read(content: bytes) -> Results:
    """The results of which `as_json` has made this. Raises msgspec.ValidationError where it is another thing."""
    stored = msgspec.json.decode(content, type=_Stored)
    results = Results(
        started_at=stored.started_at,
        machine=stored.machine,
        settings=stored.settings,
        rows=[RowResult(one.row, one.measurements, one.failures) for one in stored.rows],
        took_s=stored.took_s,
        left_out=stored.left_out,
    )
    results.ratios.extend(ratios.ratios(results))
    return results


def as_html(results: Results, images: Sequence[tuple[str, bytes]]) -> str:
    """One page; the images are PNG."""
    settings = ", ".join(f"{name} {value:,.10g}" for name, value in results.settings.items())
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Benchmark</title><style>{_STYLE}</style><h1>Benchmark</h1>",
        f"<p>{results.started_at:%Y-%m-%d %H:%M} UTC, {results.took_s / 60:.0f} minutes ({escape(settings)}).</p>",
        f"<p>{escape(facts_text(results))}. Medians of the runs; all processes share the cores.</p>",
        *(f'<p class="bad">{escape(problem)}</p>' for problem in results.problems),
        *(f"<p>Left out: {escape(text)}</p>" for text in results.left_out),
        "<ul>",
        *(f"<li>{_bold(escape(sentence))}</li>" for sentence in verdict(results)),
        "</ul>",
    ]
    for title, image in images:
        data = base64.b64encode(image).decode()
        parts.append(f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">')
    wanted, others = wanted_and_others(results.ratios)
    if wanted:
        parts.append("<h2>Targets</h2>" + _texts(RATIO_HEADINGS, [ratio_line(one) for one in wanted]))
    if others:
        parts.append("<h2>Other comparisons</h2>" + _texts(OTHER_HEADINGS, [other_line(one) for one in others]))
    found = {result.row.key: result for result in results.rows}
    for section, rows in by_section(result.row for result in results.rows).items():
        of_section = [found[row.key] for row in rows]
        parts.append(f"<h2>{escape(SECTIONS.get(section, section))}</h2>")
        parts.append(_table(of_section, rate_columns(of_section)))
        parts.append("<p>CPU time, and what was verified:</p>" + _table(of_section, cost_columns(of_section)))
    return "\n".join(parts)


def _bold(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _table(found: Sequence[RowResult], columns: Sequence[Column]) -> str:
    heading, *lines = lines_of(found, columns)
    parts = ["<table><tr>", *(f"<th>{escape(text)}</th>" for text in heading), "</tr>"]
    for result, line in zip(found, lines, strict=True):
        kinds = [name for name, is_so in (("lane", result.row.is_lane), ("bad", bool(result.problems))) if is_so]
        parts.append(f'<tr class="{" ".join(kinds)}">' + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>")
    return "".join([*parts, "</table>"])


def _texts(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    parts = ["<table><tr>", *(f'<th class="text">{escape(text)}</th>' for text in heading), "</tr>"]
    parts += ["<tr>" + "".join(f'<td class="text">{escape(text)}</td>' for text in line) + "</tr>" for line in lines]
    return "".join([*parts, "</table>"])
