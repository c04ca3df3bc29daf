"""The report on disk: everything as JSON, the tables in Markdown, the charts, and one HTML file that needs no other."""

import base64
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import msgspec

from tests.bench.markdown import as_markdown
from tests.bench.measurement import PERCENTILES
from tests.bench.plan import by_section
from tests.bench.results import Results, RowResult
from tests.bench.table import HEADINGS, SECTIONS, cells, check_text, number, ratio_texts

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 2rem } th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd }
td { text-align: right; font-variant-numeric: tabular-nums } td:first-child, td.text { text-align: left }
tr.lane { background: #fdf1ef; font-weight: 600 } .bad { color: #b00 } .good { color: #070 } img { max-width: 100% }
"""


def write(results: Results, directory: Path) -> Iterator[Path]:
    """Write the files and yield their places."""
    from tests.bench.charts import draw

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.json"
    path.write_bytes(as_json(results))
    yield path
    path = directory / "FIGURES.md"
    path.write_text(as_markdown(results))
    yield path
    charts = list(draw(results, directory))
    yield from (chart for _, chart in charts)
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
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def as_html(results: Results, images: Sequence[tuple[str, bytes]]) -> str:
    """One page; the images are PNG."""
    facts = {**results.machine, **{name: number(value) for name, value in results.settings.items()}}
    parts = [
        "<!doctype html><meta charset=utf-8><title>Benchmark</title>",
        f"<style>{_STYLE}</style><h1>Benchmark</h1>",
        f"<p>{results.started_at:%Y-%m-%d %H:%M} UTC, {results.took_s:.0f} s. "
        + escape("; ".join(f"{name}: {value}" for name, value in facts.items()))
        + ". Medians of the repeats; all processes share the cores.</p>",
        *(f'<p class="bad">{escape(problem)}</p>' for problem in results.problems),
        "<h2>Ratios of medians</h2>",
        _ratios(results),
    ]
    for title, image in images:
        data = base64.b64encode(image).decode()
        parts.append(f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{data}">')
    found = {result.row.key: result for result in results.rows}
    for section, rows in by_section(result.row for result in results.rows).items():
        parts.append(f"<h2>{escape(SECTIONS.get(section, section))}</h2>")
        parts.append(_table([found[row.key] for row in rows]))
    return "\n".join(parts)


def _table(found: Sequence[RowResult]) -> str:
    lines = ["<table><tr><th></th>", *(f"<th>{escape(heading)}</th>" for heading in HEADINGS), "<th>verified</th></tr>"]
    for result in found:
        kind = "bad" if result.problems else "good"
        lines.append(f'<tr class="{"lane" if result.row.is_lane else ""}"><td>{escape(result.row.title)}</td>')
        lines += [f"<td>{escape(cell)}</td>" for cell in cells(result)]
        lines.append(f'<td class="text {kind}">{escape(check_text(result))}</td></tr>')
    return "".join([*lines, "</table>"])


def _ratios(results: Results) -> str:
    lines = ["<table><tr><th>ratio</th><th></th><th>target</th><th></th><th></th></tr>"]
    for ratio in results.ratios:
        value, target = ratio_texts(ratio)
        kind = {"reached": "good", "not reached": "bad"}.get(ratio.verdict, "")
        lines.append(
            f"<tr><td>{escape(ratio.title)}</td><td>{value}</td><td>{target}</td>"
            f'<td class="{kind}">{ratio.verdict}</td><td class="text">{escape(ratio.detail)}</td></tr>'
        )
    return "".join([*lines, "</table>"])
