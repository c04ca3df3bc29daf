"""The tables of a section, for the terminal, the page and the documentation. None is wider than the page."""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from tests.bench.measurement import GROUPS, Spread
from tests.bench.results import Ratio, RowResult
from tests.bench.wording import NOTHING, number

COLUMNS_MAX: Final = 8
"""With more of them a table does not fit a page of documentation."""

SECTIONS = {
    "hot-row": "One hot account, PostgreSQL",
    "transfer-0": "Transfers among 100,000 accounts, Zipf skew 0 (uniform), PostgreSQL",
    "transfer-0.5": "Transfers among 100,000 accounts, Zipf skew 0.5, PostgreSQL",
    "transfer-0.75": "Transfers among 100,000 accounts, Zipf skew 0.75, PostgreSQL",
    "transfer-1": "Transfers among 100,000 accounts, Zipf skew 1.0 (pgbench: 1.001, it takes no 1.0), PostgreSQL",
    "transfer-1.25": "Transfers among 100,000 accounts, Zipf skew 1.25, PostgreSQL",
    "transfer-1.5": "Transfers among 100,000 accounts, Zipf skew 1.5, PostgreSQL",
    "transfer-2": "Transfers among 100,000 accounts, Zipf skew 2.0, PostgreSQL",
    "create": "Creates with a unique key and a gapless number, PostgreSQL",
    "reserve": "Reservations of 1,000 items with limited stock, Zipf skew 1.0, PostgreSQL",
    "mariadb-hot-row": "One hot account, MariaDB",
    "mariadb-transfer": "Transfers, Zipf skew 1.0, MariaDB",
    "mariadb-create": "Creates, MariaDB",
    "mariadb-reserve": "Reservations, MariaDB",
    "mongodb-hot-row": "One hot account, MongoDB's stand-in",
    "mongodb-transfer": "Transfers, Zipf skew 1.0, MongoDB's stand-in",
    "mongodb-create": "Creates, MongoDB's stand-in",
    "mongodb-reserve": "Reservations, MongoDB's stand-in",
    "one-client": "One client alone, accounts drawn at random, PostgreSQL",
    "http": "Through HTTP, one hot account, PostgreSQL",
    "access": "What it costs to ask who asks, and whether he may: through HTTP, one hot account, PostgreSQL",
    "traces": "What traces cost: through HTTP, one hot account, PostgreSQL",
    "lane-alone": "The lane without a queue, and what one connection can do at most (one hot account, PostgreSQL)",
    "load": "Latency by offered load (Poisson arrivals), one hot account, PostgreSQL",
    "growth": "What grows: log, backlog, batches, publishers (one hot account, PostgreSQL)",
}


class Column(Struct, frozen=True):
    """`heading` says what it has and in which unit; `cell` is of a row."""

    heading: str
    cell: Callable[[RowResult], str]


def _median(value: Spread | None) -> float | None:
    return None if value is None else value.median


def _range(result: RowResult) -> str:
    rate = result.rate()
    return NOTHING if rate is None else f"{number(rate.low)} to {number(rate.high)}"


def _latency(name: str) -> Column:
    return Column(f"{name}, ms", lambda result: number(_median(result.latency_ms(name))))


def _cpu(group: str) -> Column:
    return Column(f"{group}, µs/write", lambda result: number(_median(result.cpu_us(group)), 2))


_OFFERED: Final = Column("offered, writes/s", lambda result: number(_median(result.offered())))
_DONE: Final = Column("done, writes/s", lambda result: number(_median(result.rate())))
_RANGE: Final = Column("lowest to highest, writes/s", _range)
_REFUSED: Final = Column("refused, writes/s", lambda result: number(_median(result.rejected())))
_COUNTED: Final = Column("writes counted", lambda result: f"{result.counted:,}" if result.measurements else NOTHING)


def rate_columns(results: Sequence[RowResult]) -> list[Column]:
    """Throughput and latency. What was offered and refused has a column where it says something."""
    columns = [_DONE, _RANGE, *map(_latency, ("p50", "p99", "p99.9"))]
    if any(result.row.rate is not None for result in results):
        columns.insert(0, _OFFERED)
    if any(_median(result.rejected()) for result in results):
        columns.insert(columns.index(_RANGE) + 1, _REFUSED)
    return columns


def cost_columns(results: Sequence[RowResult]) -> list[Column]:
    """On how many writes a row stands, the CPU time that each took, and what was verified."""
    groups = [group for group in GROUPS if any(result.cpu_us(group) is not None for result in results)]
    return [_COUNTED, *map(_cpu, groups), Column("after each run", check_text)]


def lines_of(results: Sequence[RowResult], columns: Sequence[Column]) -> list[list[str]]:
    """A heading and a line a row; the first cell is the row's title."""
    return [
        ["", *(column.heading for column in columns)],
        *([result.row.title, *(column.cell(result) for column in columns)] for result in results),
    ]


def section_table(section: str, results: Sequence[RowResult]) -> str:
    """One section, to be printed."""
    lines = lines_of(results, rate_columns(results))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [SECTIONS.get(section, section)]
    for index, line in enumerate(lines):
        padded = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in
                  enumerate(zip(line, widths, strict=True))]  # fmt: skip
        shown.append("  " + "  ".join(padded))
        if index:
            shown += [
                f"      {text}" for text in (check_text(results[index - 1]), cpu_text(results[index - 1])) if text
            ]
    return "\n".join(shown)


def check_text(result: RowResult) -> str:
    note = f" ({result.row.note})" if result.row.note else ""
    if not result.measurements:
        return f"✗ FAILED: {'; '.join(result.failures)}{note}"
    failed = f"; {len(result.failures)} runs failed: {result.failures[0]}" if result.failures else ""
    if result.is_violated:
        how = "loses updates, as expected" if result.row.may_lose else "✗ VIOLATED"
        return f"{how}: {result.verdict}{failed}{note}"
    return f"✓ {result.verdict}{failed}{note}"


def cpu_text(result: RowResult) -> str:
    """The CPU time of a write, where it was measured."""
    known = [(group, _median(result.cpu_us(group))) for group in GROUPS]
    shown = [f"{group} {number(value, 2)}" for group, value in known if value is not None]
    return f"CPU time in µs a write: {', '.join(shown)}" if shown else ""


def ratio_table(ratios: Sequence[Ratio]) -> str:
    """All comparisons, to be printed."""
    lines = ["Ratios of medians"]
    width = max((len(ratio.title) for ratio in ratios), default=0)
    for ratio in ratios:
        value, target = ratio_texts(ratio)
        target = f"wanted {target}" if target else ""
        lines.append(f"  {ratio.title.ljust(width)}  {value:>12}  {target:<24}  {ratio.verdict:<12}  {ratio.detail}")
    return "\n".join(lines)


def ratio_texts(ratio: Ratio) -> tuple[str, str]:
    """Its value and its target."""
    value = NOTHING if ratio.value is None else f"{number(ratio.value)} {ratio.unit}"
    bound = "at most" if ratio.at_most else "at least"
    target = "" if ratio.target is None else f"{bound} {ratio.target:g} {ratio.unit}"
    return value, target
