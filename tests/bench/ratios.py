"""The questions that the benchmark answers with a number, and what was hoped for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from tests.bench.results import Ratio, Results, RowResult
from tests.bench.wording import number

MEBIBYTE: Final = 2**20
COUNTED_MIN: Final = 100
"""Fewer writes than that, in the shortest of a row's runs, are compared with nothing."""


class Quantity(Struct, frozen=True):
    """What is compared of two rows. `of` is None of a row that has no such value."""

    unit: str
    of: Callable[[RowResult], float | None]


def throughput(result: RowResult) -> float | None:
    """Of the load that was carried out: what was refused for a reason of the business counts."""
    rate, rejected = result.rate(), result.rejected()
    return None if rate is None else rate.median + (rejected.median if rejected else 0.0)


WRITES: Final = Quantity("writes/s", throughput)


def latency(name: str) -> Quantity:
    def value(result: RowResult) -> float | None:
        found = result.latency_ms(name)
        return None if found is None else found.median

    return Quantity("ms", value)


def cpu_time(group: str) -> Quantity:
    def value(result: RowResult) -> float | None:
        found = result.cpu_us(group)
        return None if found is None else found.median

    return Quantity("µs/write", value)


def best(results: Sequence[RowResult]) -> RowResult | None:
    """The one with the highest throughput."""
    return max(
        (result for result in results if throughput(result)), key=lambda result: throughput(result) or 0, default=None
    )


def alternatives(results: Results, section: str, *, is_python: bool) -> list[RowResult]:
    """What competes with the lane in a section, on the same terms.

    So nothing that loses updates, and nothing that merges writes in the memory of one process, which is another thing.
    """
    return [
        result
        for result in results.rows
        if result.row.section == section
        and not result.row.is_lane
        and not result.row.may_lose
        and not result.row.is_batching
        and result.measurements
        and result.row.is_python == is_python
    ]


def quotient(
    title: str,
    above: RowResult | None,
    below: RowResult | None,
    quantity: Quantity = WRITES,
    *,
    target: float | None = None,
    scale: float = 1.0,
    **fields: Any,
) -> Ratio:
    """One row's value over another's; none where one of them has fewer counted writes than COUNTED_MIN."""
    known: float | None = None
    detail = ""
    if above is not None and below is not None:
        top, bottom = quantity.of(above), quantity.of(below)
        few = next((row for row in (above, below) if row.counted < COUNTED_MIN), None)
        if few is not None:
            detail = f"too few writes to compare: {few.counted} in a run of {few.row.title}"
        elif top is not None and bottom:
            known = scale * top / bottom
            detail = f"{number(top)} to {number(bottom)} {quantity.unit} ({below.row.title})"
    return Ratio(title=title, value=known, target=target, detail=detail, **fields)


def ratios(results: Results) -> list[Ratio]:
    """All comparisons of which a row was measured."""
    every = [
        *_hot_row(results),
        *_other_databases(results),
        *_transfers(results),
        *_lane_alone(results),
        *_http(results),
        *_access(results),
        *_traces(results),
        *_one_client(results),
        *_growth(results),
    ]
    sections = {result.row.section for result in results.rows}
    return [ratio for section, ratio in every if section in sections]


def _hot_row(results: Results) -> Iterator[tuple[str, Ratio]]:
    section, find, lane = "hot-row", results.find, results.find("hot-row/lane")
    title = "One hot row: the lane over"
    for name, other, target in (
        ("SELECT … FOR UPDATE, 32 clients", find(f"{section}/for-update-32"), 20),
        ("the same in C (pgbench), 32 clients", find(f"{section}/pgbench-for-update-32"), 10),
        ("the fastest alternative in Python", best(alternatives(results, section, is_python=True)), None),
        ("the fastest in C (pgbench)", best(alternatives(results, section, is_python=False)), None),
        ("merging in one process's memory, with idempotency keys", find(f"{section}/batching-keyed-2000"), None),
        ("merging in one process's memory, without", find(f"{section}/batching-2000"), None),
    ):
        yield section, quotient(f"{title} {name}", lane, other, target=target)


def _other_databases(results: Results) -> Iterator[tuple[str, Ratio]]:
    for database, name in (("mariadb", "MariaDB"), ("mongodb", "MongoDB's stand-in")):
        section, title = f"{database}-hot-row", f"One hot row, {name}: the lane over"
        lane, find = results.find(f"{section}/lane"), results.find
        yield section, quotient(f"{title} transactions with retry", lane, find(f"{section}/transaction"), target=10)
        yield section, quotient(f"{title} an atomic update", lane, find(f"{section}/atomic"))


def _transfers(results: Results) -> Iterator[tuple[str, Ratio]]:
    python_targets, c_targets = {"1": 4.0, "2": 10.0}, {"1": 1.5, "2": 5.0}
    for section in dict.fromkeys(result.row.section for result in results.rows):
        kind, _, skew = section.partition("-")
        if kind != "transfer":
            continue
        lane, title = results.find(f"{section}/lane"), f"Transfers, Zipf {skew}: the lane over"
        python, in_c = (best(alternatives(results, section, is_python=is_python)) for is_python in (True, False))
        yield (
            section,
            quotient(f"{title} the fastest in Python", lane, python, target=python_targets.get(skew)),
        )
        yield section, quotient(f"{title} the fastest in C (pgbench)", lane, in_c, target=c_targets.get(skew))
        batching = results.find(f"{section}/batching-2000")
        yield section, quotient(f"{title} merging in one process's memory", lane, batching)


def _lane_alone(results: Results) -> Iterator[tuple[str, Ratio]]:
    section = "lane-alone"
    every = [result for result in results.rows if result.row.section == section]
    lane = best([result for result in every if result.row.method == "lane-alone"])
    ceiling = best([result for result in every if result.row.method != "lane-alone"])
    title = "The lane without a queue, of what one connection can do at most"
    yield section, quotient(title, lane, ceiling, target=50, scale=100, unit="%")


def _http(results: Results) -> Iterator[tuple[str, Ratio]]:
    section, find = "http", results.find
    lane, other = find("http/lane"), find("http/for-update")
    title, p99 = "Through HTTP: a gateway with the lane over", latency("p99")
    yield section, quotient(f"{title} one with FOR UPDATE", lane, other, target=5)
    yield section, quotient(f"{title} one with FOR UPDATE: p99", lane, other, p99, target=1, at_most=True)
    yield section, quotient(f"{title} Restate", lane, find("http/restate"))
    yield section, quotient(f"{title} DBOS", lane, find("http/dbos"))
    two, two_others = find("http/lane-2-gateways"), find("http/for-update-2-gateways")
    yield section, quotient("Through HTTP: two gateways with the lane over two with FOR UPDATE", two, two_others)


def _access(results: Results) -> Iterator[tuple[str, Ratio]]:
    section = "access"
    open_to_all, asked = results.find("access/open"), results.find("access/tokens")
    title = "HTTP with tokens and a rule, of without"
    share: dict[str, Any] = {"scale": 100.0, "unit": "%"}
    yield section, quotient(f"{title}: throughput", asked, open_to_all, target=95, **share)
    for group, name in (("gateway", "a gateway's CPU time"), ("coordinator", "a coordinator's CPU time")):
        yield section, quotient(f"{title}: {name}", asked, open_to_all, cpu_time(group), **share)


def _traces(results: Results) -> Iterator[tuple[str, Ratio]]:
    section, off = "traces", results.find("traces/off")
    share: dict[str, Any] = {"scale": 100.0, "unit": "%"}
    for key, of in (("tenth", "a tenth of the requests"), ("all", "every request")):
        title, traced = f"HTTP with spans about {of}, of without", results.find(f"traces/{key}")
        yield section, quotient(f"{title}: throughput", traced, off, target=90, **share)
        for group, name in (("gateway", "a gateway's CPU time"), ("coordinator", "a coordinator's CPU time")):
            yield section, quotient(f"{title}: {name}", traced, off, cpu_time(group), **share)


def _one_client(results: Results) -> Iterator[tuple[str, Ratio]]:
    section, find, lane, p50 = "one-client", results.find, results.find("one-client/lane"), latency("p50")
    title = "One client alone: p50 of the lane over that of"
    locking, atomic = find("one-client/for-update-1"), find("one-client/atomic-1")
    yield section, quotient(f"{title} SELECT … FOR UPDATE", lane, locking, p50, target=2.5, at_most=True)
    yield section, quotient(f"{title} an atomic UPDATE", lane, atomic, p50)


def _growth(results: Results) -> Iterator[tuple[str, Ratio]]:
    section, empty = "growth", results.find("growth/log-empty")
    backlog = results.find("growth/backlog")
    peak = backlog.extra("coordinator_peak_bytes") if backlog is not None else None
    waiting = f"{results.settings.get('backlog', 0):,.0f} commands waiting"
    entries = f"{results.settings.get('log_entries', 0):,.0f} entries"
    share: dict[str, Any] = {"target": 90, "scale": 100, "unit": "%"}
    log = results.find("growth/log-big")
    yield section, quotient(f"Throughput with a log of {entries}, of that with a short one", log, empty, **share)
    yield section, quotient(f"Throughput with {waiting}, of that with none", backlog, empty, **share)
    yield (
        section,
        Ratio(
            title=f"A coordinator's memory with {waiting}",
            value=None if peak is None else peak.high / MEBIBYTE,
            target=150,
            at_most=True,
            unit="MiB",
        ),
    )
