"""The terminal: the plan, the progress, the tables."""

from collections.abc import Sequence

from tests.bench.measurement import GROUPS, Measurement, Spread
from tests.bench.plan import runs_of
from tests.bench.results import Ratio, RowResult
from tests.bench.rows import Row

SECTIONS = {
    "hot-row": "One hot account, PostgreSQL",
    "transfer-0": "Transfers among 100,000 accounts, Zipf skew 0 (uniform), PostgreSQL",
    "transfer-1": "Transfers among 100,000 accounts, Zipf skew 1.0 (pgbench: 1.001, it takes no 1.0), PostgreSQL",
    "transfer-1.5": "Transfers among 100,000 accounts, Zipf skew 1.5, PostgreSQL",
    "transfer-2": "Transfers among 100,000 accounts, Zipf skew 2.0, PostgreSQL",
    "create": "Creates with a unique key and a gapless number, PostgreSQL",
    "reserve": "Reservations of 1,000 items with limited stock, Zipf skew 1.0, PostgreSQL",
    "mariadb-hot-row": "One hot account, MariaDB",
    "mariadb-transfer": "Transfers, Zipf skew 1.0, MariaDB",
    "mariadb-create": "Creates, MariaDB",
    "mariadb-reserve": "Reservations, MariaDB",
    "mongodb-hot-row": "One hot account, MongoDB protocol",
    "mongodb-transfer": "Transfers, Zipf skew 1.0, MongoDB protocol",
    "mongodb-create": "Creates, MongoDB protocol",
    "mongodb-reserve": "Reservations, MongoDB protocol",
    "one-client": "One client alone, accounts drawn at random, PostgreSQL",
    "http": "Through HTTP, one hot account, PostgreSQL",
    "access": "What it costs to ask who asks, and whether he may: through HTTP, one hot account, PostgreSQL",
    "traces": "What traces cost: through HTTP, one hot account, PostgreSQL",
    "lane-alone": "The lane without a queue, and what one connection can do at most (one hot account, PostgreSQL)",
    "load": "Latency by offered load (Poisson arrivals), one hot account, PostgreSQL",
    "growth": "What grows: log, backlog, batches, publishers (one hot account, PostgreSQL)",
}
NOTHING = "-"
HEADINGS = (
    "offered/s", "done/s", "min to max", "rejected/s", "errors", "p50 ms", "p99 ms", "p99.9 ms",
    *(f"cpu {group}" for group in ("clients", "broker", "db", "coord", "gatew")),
)  # fmt: skip


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits, thousands grouped."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    decimals = max(0, digits - len(str(int(abs(value))))) if abs(value) >= 1 else digits
    return f"{value:,.{min(decimals, 2) if abs(value) >= 1 else decimals}f}"


def cells(result: RowResult) -> list[str]:
    """The cells of a row's line, in the order of HEADINGS."""
    rate = result.rate()
    return [
        number(_median(result.offered())),
        number(_median(rate)),
        NOTHING if rate is None else f"{number(rate.low)} to {number(rate.high)}",
        number(_median(result.rejected())),
        str(result.errors),
        *(number(_median(result.latency_ms(name))) for name in ("p50", "p99", "p99.9")),
        *(number(_median(result.cpu(group))) for group in GROUPS),
    ]


def section_table(section: str, results: Sequence[RowResult]) -> str:
    """One section, to be printed."""
    body = [[result.row.title, *cells(result)] for result in results]
    lines = [["", *HEADINGS], *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [SECTIONS.get(section, section)]
    for index, line in enumerate(lines):
        padded = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in
                  enumerate(zip(line, widths, strict=True))]  # fmt: skip
        shown.append("  " + "  ".join(padded))
        if index:
            shown.append(f"      {check_text(results[index - 1])}")
    return "\n".join(shown)


def check_text(result: RowResult) -> str:
    note = f" ({result.row.note})" if result.row.note else ""
    if not result.measurements:
        return f"✗ FAILED: {'; '.join(result.failures)}{note}"
    failed = f"; {len(result.failures)} runs failed: {result.failures[0]}" if result.failures else ""
    if result.is_violated:
        how = "LOSES UPDATES, as expected" if result.row.may_lose else "VIOLATED"
        return f"✗ {how}: {result.verdict}{failed}{note}"
    return f"✓ {result.verdict}{failed}{note}"


def ratio_table(ratios: Sequence[Ratio]) -> str:
    lines = ["Ratios of medians"]
    width = max((len(ratio.title) for ratio in ratios), default=0)
    for ratio in ratios:
        value, target = ratio_texts(ratio)
        target = f"target {target}" if target else ""
        lines.append(f"  {ratio.title.ljust(width)}  {value:>12}  {target:<20}  {ratio.verdict:<12}  {ratio.detail}")
    return "\n".join(lines)


def ratio_texts(ratio: Ratio) -> tuple[str, str]:
    """Its value and its target."""
    value = NOTHING if ratio.value is None else f"{number(ratio.value)} {ratio.unit}"
    target = "" if ratio.target is None else f"{'≤' if ratio.at_most else '≥'} {number(ratio.target)} {ratio.unit}"
    return value, target


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


def _median(value: Spread | None) -> float | None:
    return None if value is None else value.median
