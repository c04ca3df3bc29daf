"""What a run has shown, in sentences: what comes first in the report."""

from collections.abc import Iterator
from typing import Final

from tests.bench.ratios import COUNTED_MIN, alternatives, best, latency, quotient, throughput
from tests.bench.results import Ratio, Results, RowResult
from tests.bench.table import ratio_texts
from tests.bench.wording import as_fast_as, factor, number


def verdict(results: Results) -> list[str]:
    """The sentences, each with its figures. Those for which nothing was measured are left out."""
    return [
        sentence
        for part in (_hot_row, _without_contention, _http, _one_client, _batching, _verified, _targets)
        for sentence in part(results)
    ]


def rate(result: RowResult) -> str:
    return number(throughput(result))


def compared(lane: RowResult | None, other: RowResult | None) -> float | None:
    """How many times as fast the lane is; None where that cannot be said."""
    return quotient("", lane, other).value


def _hot_row(results: Results) -> Iterator[str]:
    lane, locking = results.find("hot-row/lane"), results.find("hot-row/for-update-32")
    ratio = compared(lane, locking)
    if lane is None or locking is None or ratio is None:
        return
    text = (
        f"**Many writers on one row: the lane is {as_fast_as(ratio, 'SELECT … FOR UPDATE')}.** "
        f"With {lane.row.concurrency:,} commands under way the lane applies {rate(lane)} a second "
        f"on PostgreSQL; {locking.row.title}: {rate(locking)}."
    )
    for is_python, where in ((True, "in Python"), (False, "in C")):
        fastest = best(alternatives(results, "hot-row", is_python=is_python))
        over_fastest = compared(lane, fastest)
        if fastest is not None and over_fastest is not None:
            text += f" The fastest alternative {where}, {fastest.row.title}: {rate(fastest)}, "
            text += f"a factor of {factor(over_fastest)}."
    yield text


def _without_contention(results: Results) -> Iterator[str]:
    section = "transfer-0"
    lane = results.find(f"{section}/lane")
    python, in_c = (best(alternatives(results, section, is_python=is_python)) for is_python in (True, False))
    ratio = compared(lane, python)
    if lane is None or python is None or ratio is None:
        return
    text = (
        f"**Without contention: the lane is {as_fast_as(ratio, 'the fastest alternative in Python')}.** "
        f"{rate(lane)} transfers a second among 100,000 accounts drawn alike; {python.row.title}: {rate(python)}"
    )
    over_c = compared(lane, in_c)
    if in_c is not None and over_c is not None:
        text += f". It is {as_fast_as(over_c, 'the fastest in C')}, {in_c.row.title}: {rate(in_c)}"
    yield f"{text}."


THROUGH_HTTP: Final = {
    "http/for-update": "the same gateway with FOR UPDATE",
    "http/restate": "Restate",
    "http/dbos": "DBOS",
}


def _http(results: Results) -> Iterator[str]:
    lane = results.find("http/lane")
    others = [
        (name, found, ratio)
        for key, name in THROUGH_HTTP.items()
        if (found := results.find(key)) is not None and (ratio := compared(lane, found)) is not None
    ]
    if lane is None or not others:
        return
    ratios = ", ".join(as_fast_as(ratio, name) for name, _, ratio in others)
    shown = "; ".join(f"{name}: {rate(found)}, {_p99(found)}" for name, found, _ in others)
    yield (
        f"**Through HTTP, one row, {lane.row.concurrency} connections: a gateway with the lane is {ratios}.** "
        f"It answers {rate(lane)} writes a second, {_p99(lane)}; {shown}."
    )


def _p99(result: RowResult) -> str:
    return f"p99 {number(latency('p99').of(result))} ms"


def _one_client(results: Results) -> Iterator[str]:
    lane, locking, p50 = results.find("one-client/lane"), results.find("one-client/for-update-1"), latency("p50")
    ratio = quotient("", lane, locking, p50).value
    if lane is None or locking is None or ratio is None:
        return
    what = "pays for the queue" if ratio > 1 else "pays nothing for the queue"
    yield (
        f"**One client that waits for each write {what}:** {number(p50.of(lane))} ms at the median, and "
        f"{number(p50.of(locking))} ms by SELECT … FOR UPDATE."
    )


def _batching(results: Results) -> Iterator[str]:
    lane, batching = results.find("hot-row/lane"), results.find("hot-row/batching-2000")
    ratio = compared(batching, lane)
    if batching is None or ratio is None:
        return
    yield (
        f"**Who may merge writes in the memory of one process is at {rate(batching)}**, "
        f"{as_fast_as(ratio, 'the lane')}. "
        "That is another thing: no order between processes, no log, no refusal by the state that another has left."
    )


def _verified(results: Results) -> Iterator[str]:
    measured = [result for result in results.rows if result.measurements]
    kept = [result for result in measured if not result.is_violated]
    lossy = [result for result in measured if result.is_violated and result.row.may_lose]
    if not measured:
        return
    runs = sum(len(result.measurements) for result in measured)
    text = f"**Verified after each of {runs} runs:** {len(kept)} of {len(measured)} rows hold what was acknowledged."
    for result in lossy:
        text += f" The other one is there to show that a loss is seen ({result.row.title}): {result.verdict}."
    yield text


def _missed(ratio: Ratio) -> str:
    value, target = ratio_texts(ratio)
    return f"{ratio.title} ({value}, {target} wanted)"


def _targets(results: Results) -> Iterator[str]:
    wanted = [ratio for ratio in results.ratios if ratio.target is not None and ratio.value is not None]
    missed = [ratio for ratio in wanted if ratio.verdict == "missed"]
    if wanted:
        text = f"**Targets:** {len(wanted) - len(missed)} of {len(wanted)} are reached"
        yield f"{text}; missed: {'; '.join(map(_missed, missed))}." if missed else f"{text}."
    few = [ratio for ratio in results.ratios if ratio.value is None and ratio.detail]
    if few:
        what = "comparison has" if len(few) == 1 else "comparisons have"
        yield f"{len(few)} {what} no figure: a run counted fewer than {COUNTED_MIN} writes."
