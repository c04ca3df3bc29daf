"""The plan, the ratios, the table and the report."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.bench import ratios
from tests.bench.catalogue import rows
from tests.bench.clients.pgbench import SCRIPTS, script_of
from tests.bench.markdown import as_markdown
from tests.bench.measurement import Measurement
from tests.bench.plan import by_section, interleaved, runs_of, selected
from tests.bench.report import as_html, as_json, read
from tests.bench.results import Ratio, Results, RowResult
from tests.bench.rows import Row
from tests.bench.table import SECTIONS, ratio_table, section_table
from tests.bench.wording import number


def measurement(achieved: float = 100.0, **changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "offered": achieved,
        "achieved": achieved,
        "rejected": 0.0,
        "errors": 0,
        "retries": 0,
        "latency_ms": {"p50": 1.0, "p99": 9.0, "p99.9": 99.0},
        "cpu_s_per_1000": {"clients": 0.1, "database": 0.2},
        "applied_total": 100,
        "unknown_total": 0,
        "invariant": "sum of balances is 100 higher, as acknowledged",
        "lost": 0,
        "violated": False,
        "counted": 100,
    }
    return Measurement(**(fields | changes))


def row_named(key: str) -> Row:
    return next(row for row in rows() if row.key == key)


def results_of(**rates: float) -> Results:
    """Keys with `__` for the slash and `_` for the dash."""
    results = Results(started_at=datetime(2026, 1, 1, tzinfo=UTC), machine={"cores": "2"}, settings={"repeats": 1.0})
    for name, rate in rates.items():
        row = row_named(name.replace("__", "/").replace("_", "-"))
        results.rows.append(RowResult(row, [measurement(rate)]))
    return results


def test_keys_are_unique_and_sections_have_titles() -> None:
    every = rows()
    assert len({row.key for row in every}) == len(every)
    assert {row.section for row in every} == set(SECTIONS)


def test_the_short_run_has_what_every_target_needs() -> None:
    short = selected(rows(), is_full=False)
    results = Results(started_at=datetime.now(UTC), machine={}, settings={})
    for row in short:
        results.rows.append(RowResult(row, [measurement(extra={"coordinator_peak_bytes": 1.0})]))
    missing = [ratio.title for ratio in ratios.ratios(results) if ratio.target is not None and ratio.value is None]
    assert missing == []


def test_rows_are_chosen_by_section_key_and_database() -> None:
    every = rows()
    assert {row.section for row in selected(every, is_full=False, only=["http"])} == {"http"}
    assert {row.database for row in selected(every, is_full=True, databases=["mariadb"])} == {"mariadb"}
    assert [row.key for row in selected(every, is_full=False, only=["hot-row/lane"])] == ["hot-row/lane"]
    assert len(selected(every, is_full=False)) < len(selected(every, is_full=True)) == len(every)


def test_repeats_are_interleaved_and_turn_around() -> None:
    chosen = by_section(rows())["growth"][:3]
    order = [(row.key, repeat) for row, repeat in interleaved(chosen, 3)]
    assert len(order) == runs_of(chosen, 3) == 8
    assert order[:3] == [(row.key, 0) for row in chosen]
    assert order[3:6] == [(row.key, 1) for row in reversed(chosen)]
    assert ("growth/backlog", 2) not in order


def test_a_ratio_is_reached_or_not_or_not_measured() -> None:
    assert Ratio(title="t", value=20.0, target=20.0).verdict == "reached"
    assert Ratio(title="t", value=19.9, target=20.0).verdict == "missed"
    assert Ratio(title="t", value=2.6, target=2.5, at_most=True).verdict == "missed"
    assert Ratio(title="t", value=None, target=2.5).verdict == "not measured"
    assert Ratio(title="t", value=1.0, target=None).verdict == ""


def test_ratios_are_of_medians_and_leave_out_what_loses_updates() -> None:
    results = results_of(hot_row__lane=2000.0, hot_row__for_update_32=100.0, hot_row__naive_32=5000.0)
    found = {ratio.title: ratio for ratio in ratios.ratios(results)}
    first = found["One hot row: the lane over SELECT … FOR UPDATE, 32 clients"]
    assert (first.value, first.verdict) == (20.0, "reached")
    assert first.detail == "2,000 to 100 writes/s (SELECT … FOR UPDATE, 32 clients)"
    assert found["One hot row: the lane over the fastest alternative in Python"].value == 20.0
    assert found["One hot row: the lane over the same in C (pgbench), 32 clients"].verdict == "not measured"
    assert "not measured" in ratio_table(list(found.values()))


def test_only_the_naive_row_may_lose_something() -> None:
    lossy = measurement(violated=True, lost=7, invariant="7 of 100 acknowledged writes are lost")
    naive = RowResult(row_named("hot-row/naive-32"), [lossy])
    other = RowResult(row_named("hot-row/atomic-32"), [lossy])
    results = Results(started_at=datetime.now(UTC), machine={}, settings={}, rows=[naive, other])
    assert results.problems == ["hot-row/atomic-32: 7 of 100 acknowledged writes are lost"]
    table = section_table("hot-row", results.rows)
    assert "loses updates, as expected" in table
    assert "✗ VIOLATED" in table


def test_a_run_that_failed_is_shown_and_is_a_problem() -> None:
    failed = RowResult(row_named("hot-row/lane"), [], ["the client ended with status -9"])
    results = Results(started_at=datetime.now(UTC), machine={}, settings={}, rows=[failed])
    assert "FAILED: the client ended" in section_table("hot-row", results.rows)
    assert any("status -9" in problem for problem in results.problems)
    assert results.find("hot-row/lane") is None


def test_errors_are_a_problem_though_there_is_a_measurement() -> None:
    row = RowResult(row_named("hot-row/lane"), [measurement(errors=2, error_texts=["boom"])])
    assert row.problems == ["hot-row/lane: 2 errors: boom"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (0.0123, "0.012"), (1.5, "1.50"), (12.345, "12.3"), (1234.5, "1,234"), (98765.4, "98,765")],
)
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_the_report_has_everything_in_one_file() -> None:
    results = results_of(hot_row__lane=2000.0, hot_row__for_update_32=100.0)
    results.ratios.extend(ratios.ratios(results))
    content = json.loads(as_json(results))
    assert content["rows"][0]["median"]["achieved_per_s"] == {"median": 2000.0, "low": 2000.0, "high": 2000.0}
    assert content["ratios"][0]["verdict"] == "reached"
    page = as_html(results, [("A chart", b"png")])
    assert "data:image/png;base64," in page
    assert "SELECT … FOR UPDATE, 32 clients" in page
    assert "src=" not in page.replace('src="data:', "")


def test_a_report_is_read_again_as_it_was() -> None:
    results = results_of(hot_row__lane=2000.0, hot_row__for_update_32=100.0)
    results.left_out.append("Restate: npm is not installed")
    results.ratios.extend(ratios.ratios(results))
    again = read(as_json(results))
    assert as_json(again) == as_json(results)
    assert as_markdown(again) == as_markdown(results)


def test_pgbench_draws_as_the_other_clients_do() -> None:
    skewed = script_of("atomic", "transfer", 1.0)
    assert "random_zipfian(1, 100000, 1.001)" in skewed
    assert "random_zipfian(1, 99999, 1.001)" in skewed
    assert "random(1, 100000)" in script_of("for-update", "transfer", 0.0)
    assert all("{" not in script_of(name, kind, 2.0) for name, kind in SCRIPTS)
