"""What a report may not do: compare too few writes, be wider than the page, leave out a unit."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.bench import ratios
from tests.bench.benchmark import WINDOW_MAX_S, longer_window_s
from tests.bench.catalogue import rows
from tests.bench.lines import POINTS_MIN, kept_up, lines_by_skew
from tests.bench.markdown import OTHER_HEADINGS, RATIO_HEADINGS, as_markdown
from tests.bench.ratios import COUNTED_MIN
from tests.bench.report import as_html
from tests.bench.results import Results, RowResult
from tests.bench.rows import Row
from tests.bench.table import COLUMNS_MAX, cost_columns, rate_columns
from tests.bench.verdict import verdict
from tests.bench.wording import as_fast_as
from tests.unit.bench.test_bench_report import measurement, results_of

UNITS = ("writes/s", "ms", "µs/write")
UNITLESS = {"writes counted", "after each run"}


def of_every_row(**changes: Any) -> Results:
    """Each row with a measurement that has everything a measurement can have."""
    fields: dict[str, Any] = {
        "counted": 5000,
        "rejected": 7.0,
        "cpu_s_per_1000": dict.fromkeys(("clients", "broker", "database", "coordinator", "gateway"), 0.1),
        "extra": {"coordinator_peak_bytes": 2.0**27},
    }
    results = Results(started_at=datetime(2026, 1, 1, tzinfo=UTC), machine={"cores": "2"}, settings={"repeats": 3.0})
    results.rows += [RowResult(row, [measurement(1000.0, **(fields | changes))]) for row in rows()]
    results.ratios.extend(ratios.ratios(results))
    return results


def test_what_has_fewer_than_a_hundred_counted_writes_is_compared_with_nothing() -> None:
    results = results_of(mongodb_hot_row__lane=6333.0, mongodb_hot_row__atomic=2.0)
    title = "One hot row, MongoDB's stand-in: the lane over an atomic update"
    results.rows[1].measurements[:] = [measurement(2.0, counted=COUNTED_MIN), measurement(2.0, counted=6)]
    (ratio,) = [one for one in ratios.ratios(results) if one.title == title]
    assert (ratio.value, ratio.verdict) == (None, "not measured")
    assert ratio.detail == "too few writes to compare: 6 in a run of atomic update, 1 client"
    results.ratios.append(ratio)
    assert any(
        "1 comparison has no figure: a run counted fewer than 100 writes." in sentence for sentence in verdict(results)
    )
    results.rows[1].measurements[1:] = [measurement(2.0, counted=COUNTED_MIN)]
    (ratio,) = [one for one in ratios.ratios(results) if one.title == title]
    assert ratio.value == pytest.approx(3166.5)


def test_a_row_with_too_few_writes_is_in_no_sentence_and_is_no_point_of_a_curve() -> None:
    results = of_every_row(counted=COUNTED_MIN - 1)
    assert [one for one in results.ratios if one.value is not None and one.unit != "MiB"] == []
    assert not any("times as fast" in sentence for sentence in verdict(results))
    assert lines_by_skew(results) == {}
    assert len(lines_by_skew(of_every_row())) >= 4


def test_a_slow_row_has_a_window_that_is_long_enough() -> None:
    assert longer_window_s(measurement(counted=COUNTED_MIN), 1.0) is None
    assert longer_window_s(measurement(counted=50), 1.0) == 3.0
    assert longer_window_s(measurement(counted=2), 1.0) == WINDOW_MAX_S
    assert longer_window_s(None, 1.0) == WINDOW_MAX_S
    assert longer_window_s(measurement(counted=2), WINDOW_MAX_S) is None


def test_no_table_has_more_columns_than_a_page_has_room_for() -> None:
    results = of_every_row()
    page = as_markdown(results)
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert max(line.count("|") - 1 for line in tables) <= COLUMNS_MAX
    html = as_html(results, [])
    heads = [head.count("<th") for head in re.findall(r"<table><tr>(.*?)</tr>", html)]
    assert max(heads) <= COLUMNS_MAX
    assert len(heads) == len([line for line in tables if line.startswith("| --- |")])
    assert max(len(RATIO_HEADINGS), len(OTHER_HEADINGS)) <= COLUMNS_MAX


def test_each_column_has_its_unit() -> None:
    results = of_every_row().rows
    headings = {column.heading for column in [*rate_columns(results), *cost_columns(results)]}
    assert {heading for heading in headings if not heading.endswith(UNITS)} == UNITLESS
    assert {"offered, writes/s", "refused, writes/s", "p50, ms", "gateway, µs/write"} <= headings


def test_a_column_in_which_nothing_would_be_said_is_left_out() -> None:
    plain = [RowResult(row_of("hot-row/lane"), [measurement()])]
    assert [column.heading for column in rate_columns(plain)][:2] == ["done, writes/s", "lowest to highest, writes/s"]
    assert not any("gateway" in column.heading for column in cost_columns(plain))


def row_of(key: str) -> Row:
    return next(row for row in rows() if row.key == key)


def test_a_ratio_says_of_what_in_which_unit() -> None:
    for ratio in of_every_row().ratios:
        if ratio.unit != "MiB":
            assert ratio.detail.split(" (")[0].endswith(UNITS), ratio


def test_what_merges_writes_in_memory_is_no_target() -> None:
    """The documents call it another thing, so it may not make a target missed."""
    results = of_every_row()
    merging = [one for one in results.ratios if "memory" in one.title and "process" in one.title]
    assert merging
    assert [one for one in merging if one.target is not None] == []
    for section in ("hot-row", "transfer-2"):
        for is_python in (True, False):
            assert not any(one.row.is_batching for one in ratios.alternatives(results, section, is_python=is_python))


def test_the_verdict_comes_first_with_its_figures_and_says_what_was_left_out() -> None:
    results = results_of(hot_row__lane=52_534.0, hot_row__for_update_32=1853.0, hot_row__batching_2000=348_833.0)
    results.left_out.append("Restate: npm is not installed")
    results.ratios.extend(ratios.ratios(results))
    page = as_markdown(results, [("A chart", "figures/hot-row.png")])
    verdict_at, chart_at, targets_at = (page.index(text) for text in ("## What this run", "![A chart]", "## Targets"))
    assert verdict_at < chart_at < targets_at
    assert "one row: the lane is 28 times as fast as SELECT … FOR UPDATE" in page
    assert "With 2,000 commands under way the lane applies 52,534 a second" in page
    assert "6.6 times as fast as the lane" in page
    assert "**Left out**: Restate: npm is not installed" in page


def test_nothing_is_called_faster_that_is_not() -> None:
    assert as_fast_as(28.4, "x") == "28 times as fast as x"
    assert as_fast_as(2.46, "x") == "2.5 times as fast as x"
    assert as_fast_as(1.04, "x") == "about as fast as x"
    assert as_fast_as(0.42, "x") == "42 % as fast as x"
    beside_c = results_of(transfer_0__lane=1000.0, transfer_0__atomic_32=500.0, transfer_0__pgbench_atomic_8=900.0)
    assert verdict(beside_c)[0].startswith(
        "**Without contention: the lane is 2.0 times as fast as the fastest alternative in Python.**"
    )
    assert (
        "1.1 times as fast as the fastest in C, atomic UPDATE, 8 clients in C (pgbench): 900." in verdict(beside_c)[0]
    )
    slower = results_of(hot_row__lane=500.0, hot_row__for_update_32=1000.0)
    assert "50 % as fast as SELECT … FOR UPDATE" in verdict(slower)[0]


def test_a_curve_has_enough_points_and_ends_where_a_method_no_longer_keeps_up() -> None:
    skews = {row.workload.skew for row in rows() if row.section.startswith("transfer-")}
    assert len(skews) > POINTS_MIN
    few = of_every_row()
    few.rows = [one for one in few.rows if one.row.section in ("transfer-0", "transfer-1", "transfer-2")]
    assert lines_by_skew(few) == {}
    lane = row_of("load/lane-250")
    assert kept_up(RowResult(lane, [measurement(240.0, offered=250.0)]))
    assert not kept_up(RowResult(lane, [measurement(200.0, offered=250.0)]))
