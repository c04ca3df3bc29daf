"""The terminal, while the benchmark runs: the plan, and a line for each run."""

from collections.abc import Sequence

from tests.bench.measurement import Measurement
from tests.bench.plan import runs_of
from tests.bench.rows import Row
from tests.bench.table import SECTIONS
from tests.bench.wording import number


def plan_text(rows: Sequence[Row], repeats: int, run_s: float, setup_s: float) -> str:
    """What is going to be run, and for how long."""
    sections: dict[str, int] = {}
    for row in rows:
        sections[row.section] = sections.get(row.section, 0) + 1
    lines = [f"  {SECTIONS.get(section, section)}: {count} rows" for section, count in sections.items()]
    runs = runs_of(rows, repeats)
    minutes = (runs * run_s + setup_s) / 60
    return "\n".join(
        [*lines, f"  {len(rows)} rows, {repeats} repeats: {runs} runs of about {run_s:.1f} s: {minutes:.0f} minutes"]
    )


def progress(done: int, runs: int, row: Row, found: Measurement | str) -> str:
    """One line a run."""
    head = f"  [{done}/{runs}] {row.key}: "
    if isinstance(found, str):
        return f"{head}FAILED: {found}"
    p99 = number(found.latency_ms["p99"])
    errors = f", {found.errors} errors" if found.errors else ""
    violated = f", {found.invariant}" if found.violated else ""
    return f"{head}{number(found.achieved)}/s, p99 {p99} ms{errors}{violated}"
