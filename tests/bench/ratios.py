"""The questions that the benchmark answers with a number, and what was hoped for."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.bench.results import Ratio, Results, RowResult
from tests.bench.table import number

MEBIBYTE = 2**20

Value = Callable[[RowResult], float | None]


def throughput(result: RowResult) -> float | None:
    """Of the load that was carried out: what was refused for a reason of the business counts."""
    rate, rejected = result.rate(), result.rejected()
    return None if rate is None else rate.median + (rejected.median if rejected else 0.0)


def latency(name: str) -> Value:
    def value(result: RowResult) -> float | None:
        found = result.latency_ms(name)
        return None if found is None else found.median

    return value


def cpu_time(group: str) -> Value:
    def value(result: RowResult) -> float | None:
        found = result.cpu(group)
        return None if found is None else found.median

    return value


def best(results: Sequence[RowResult]) -> RowResult | None:
    """The one with the highest throughput."""
    return max(
        (result for result in results if throughput(result)), key=lambda result: throughput(result) or 0, default=None
    )


def alternatives(results: Results, section: str, *, is_python: bool, with_batching: bool = True) -> list[RowResult]:
    """What competes with the lane in a section, on the same terms: nothing that loses updates."""
    return [
        result
        for result in results.rows
        if result.row.section == section
        and not result.row.is_lane
        and not result.row.may_lose
        and result.measurements
        and result.row.is_python == is_python
        and (with_batching or "batching" not in result.row.method)
    ]


def quotient(
    title: str,
    above: RowResult | None,
    below: RowResult | None,
    value: Value = throughput,
    *,
    target: float | None = None,
    scale: float = 1.0,
    **fields: Any,
) -> Ratio:
    """One row's value over another's."""
    top = value(above) if above is not None else None
    bottom = value(below) if below is not None else None
    known = None if top is None or not bottom else scale * top / bottom
    detail = "" if known is None or below is None else f"{number(top)} to {number(bottom)} ({below.row.title})"
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


def _hot_row(results: Results) -> list[tuple[str, Ratio]]:
    find, lane = results.find, results.find("hot-row/lane")
    plain = alternatives(results, "hot-row", is_python=True, with_batching=False)
    batching = find("hot-row/batching-keyed-2000")
    return [
        ("hot-row", ratio)
        for ratio in (
            quotient("hot row: lane / FOR UPDATE, 32 clients", lane, find("hot-row/for-update-32"), target=20),
            quotient(
                "hot row: lane / pgbench FOR UPDATE, 32 clients", lane, find("hot-row/pgbench-for-update-32"), target=10
            ),
            quotient("hot row: lane / best alternative but batching", lane, best(plain)),
            quotient("hot row: lane / batching with idempotency keys", lane, batching),
            quotient("hot row: lane / batching without", lane, find("hot-row/batching-2000")),
        )
    ]


def _other_databases(results: Results) -> list[tuple[str, Ratio]]:
    found = []
    for database, name in (("mariadb", "MariaDB"), ("mongodb", "MongoDB")):
        section = f"{database}-hot-row"
        lane, other = results.find(f"{section}/lane"), results.find(f"{section}/transaction")
        found.append((section, quotient(f"hot row, {name}: lane / transactions with retry", lane, other, target=10)))
        atomic = results.find(f"{section}/atomic")
        found.append((section, quotient(f"hot row, {name}: lane / atomic update", lane, atomic)))
    return found


def _transfers(results: Results) -> list[tuple[str, Ratio]]:
    found = []
    python_targets, c_targets = {"1": 4.0, "2": 10.0}, {"1": 1.5, "2": 5.0}
    for skew in ("0", "1", "1.5", "2"):
        section, name = f"transfer-{skew}", f"transfers, Zipf {skew}: lane"
        lane = results.find(f"{section}/lane")
        python = alternatives(results, section, is_python=True)
        plain = alternatives(results, section, is_python=True, with_batching=False)
        pgbench = alternatives(results, section, is_python=False)
        python_target, c_target = python_targets.get(skew), c_targets.get(skew)
        found += [
            (section, quotient(f"{name} / best with Python clients", lane, best(python), target=python_target)),
            (section, quotient(f"{name} / best of them but batching", lane, best(plain))),
            (section, quotient(f"{name} / best pgbench", lane, best(pgbench), target=c_target)),
        ]
    return found


def _lane_alone(results: Results) -> list[tuple[str, Ratio]]:
    every = [result for result in results.rows if result.row.section == "lane-alone"]
    lane = best([result for result in every if result.row.method == "lane-alone"])
    ceiling = best([result for result in every if result.row.method != "lane-alone"])
    ratio = quotient("lane without a queue / ceiling of one connection", lane, ceiling, target=50, scale=100, unit="%")
    return [("lane-alone", ratio)]


def _http(results: Results) -> list[tuple[str, Ratio]]:
    lane, other = results.find("http/lane"), results.find("http/for-update")
    two, two_others = results.find("http/lane-2-gateways"), results.find("http/for-update-2-gateways")
    p99 = latency("p99")
    return [
        ("http", quotient("HTTP: gateway with lane / with FOR UPDATE", lane, other, target=5)),
        ("http", quotient("HTTP: p99 with lane / with FOR UPDATE", lane, other, p99, target=1, at_most=True)),
        ("http", quotient("HTTP: 2 gateways with lane / with FOR UPDATE", two, two_others)),
    ]


def _access(results: Results) -> list[tuple[str, Ratio]]:
    open_to_all, asked = results.find("access/open"), results.find("access/tokens")
    title = "HTTP with tokens and a rule / with neither"
    share: dict[str, Any] = {"scale": 100.0, "unit": "%"}
    found = [("access", quotient(f"{title}: throughput", asked, open_to_all, target=95, **share))]
    for group, name in (("gateway", "a gateway's CPU time"), ("coordinator", "a coordinator's CPU time")):
        found.append(("access", quotient(f"{title}: {name}", asked, open_to_all, cpu_time(group), **share)))
    return found


def _traces(results: Results) -> list[tuple[str, Ratio]]:
    off = results.find("traces/off")
    share: dict[str, Any] = {"scale": 100.0, "unit": "%"}
    found = []
    for key, of in (("tenth", "a tenth of the requests"), ("all", "every request")):
        title, traced = f"HTTP with spans about {of} / with none", results.find(f"traces/{key}")
        found.append(("traces", quotient(f"{title}: throughput", traced, off, target=90, **share)))
        for group, name in (("gateway", "a gateway's CPU time"), ("coordinator", "a coordinator's CPU time")):
            found.append(("traces", quotient(f"{title}: {name}", traced, off, cpu_time(group), **share)))
    return found


def _one_client(results: Results) -> list[tuple[str, Ratio]]:
    lane, p50 = results.find("one-client/lane"), latency("p50")
    title = "one client alone: p50 through the queue /"
    return [
        (
            "one-client",
            quotient(
                f"{title} FOR UPDATE", lane, results.find("one-client/for-update-1"), p50, target=2.5, at_most=True
            ),
        ),
        ("one-client", quotient(f"{title} atomic UPDATE", lane, results.find("one-client/atomic-1"), p50)),
    ]


def _growth(results: Results) -> list[tuple[str, Ratio]]:
    empty = results.find("growth/log-empty")
    backlog = results.find("growth/backlog")
    peak = backlog.extra("coordinator_peak_bytes") if backlog is not None else None
    waiting = f"{results.settings.get('backlog', 0):,.0f} waiting"
    entries = f"{results.settings.get('log_entries', 0):,.0f} entries"
    memory = Ratio(
        title=f"coordinator's memory with {waiting}",
        value=None if peak is None else peak.high / MEBIBYTE,
        target=150,
        at_most=True,
        unit="MiB",
    )
    share: dict[str, Any] = {"target": 90, "scale": 100, "unit": "%"}
    return [
        (
            "growth",
            quotient(
                f"throughput with a log of {entries} / with a short one", results.find("growth/log-big"), empty, **share
            ),
        ),
        ("growth", quotient(f"throughput with {waiting} / with none", backlog, empty, **share)),
        ("growth", memory),
    ]
