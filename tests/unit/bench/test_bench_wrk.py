"""What is made of wrk's report, and what wrk is told."""

import pytest

from tests.bench.clients.http import Report, report_of, result_of, script_of
from tests.bench.measurement import measured

OUTPUT = """\
Running 60m test @ http://127.0.0.1:8081
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    14.10ms    7.82ms  70.24ms   90.11%
    Req/Sec     4.43k   312.21     4.80k    78.95%
  9000 requests in 2.00s, 3.10MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 17
Requests/sec:   4500.00
Transfer/sec:      1.55MB
report: {"ran_us":2000000,"requests":9000,"statuses":{"200":8980,"202":3,"409":10,"503":5,"500":2},\
"percentiles_us":{"50":13700,"99":70240,"99.9":84800},"errors":{"connect":0,"read":2,"write":0,"timeout":1,"status":17}}
"""
CLEAN = Report(
    ran_us=2_000_000,
    requests=8000,
    statuses={"200": 8000},
    percentiles_us={"50": 10_000, "99": 20_000, "99.9": 30_000},
    errors={"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0},
)


def test_the_report_is_found_in_the_output() -> None:
    report = report_of(OUTPUT)
    assert (report.ran_us, report.requests) == (2_000_000, 9000)
    assert report.statuses == {"200": 8980, "202": 3, "409": 10, "503": 5, "500": 2}
    assert report.percentiles_us == {"50": 13_700, "99": 70_240, "99.9": 84_800}
    assert report.errors == {"connect": 0, "read": 2, "write": 0, "timeout": 1, "status": 17}


def test_an_output_without_a_report_is_an_error_that_shows_it() -> None:
    with pytest.raises(RuntimeError, match="unable to connect to"):
        report_of("unable to connect to 127.0.0.1:8081 Connection refused\n")


def test_only_what_was_applied_counts_as_done() -> None:
    result = result_of(report_of(OUTPUT), 64, 2.0)
    assert (result.offered, result.applied, result.applied_total, result.rejected) == (9000, 8980, 8980, 15)
    # Statuses that no gateway should answer, and sockets; but not 202 and 503, which are answers of its own.
    assert result.errors == 2 + 3
    assert result.error_texts == [
        "3 answers of HTTP 202", "2 answers of HTTP 500", "2 errors of kind 'read'", "1 errors of kind 'timeout'"
    ]  # fmt: skip


def test_what_nobody_was_told_of_is_bounded() -> None:
    # One request on every connection when wrk stops, and whatever was not answered with what became of it.
    assert result_of(CLEAN, 64, 2.0).unknown_total == 64
    assert result_of(report_of(OUTPUT), 64, 2.0).unknown_total == 64 + 3 + 5 + 2 + 3


def test_a_run_that_was_longer_than_the_window_counts_for_as_much_as_fits_into_it() -> None:
    result = result_of(CLEAN, 64, 1.0)
    assert (result.offered, result.applied, result.applied_total) == (4000, 4000, 8000)


def test_its_percentiles_are_those_of_the_row() -> None:
    one = measured([result_of(CLEAN, 64, 2.0)], 2.0, {"clients": 0.08}, ("fine", 0, False))
    assert one.achieved == 4000
    assert one.latency_ms == {"p50": 10.0, "p99": 20.0, "p99.9": 30.0}
    assert one.cpu_s_per_1000 == {"clients": pytest.approx(0.01)}


def test_every_gateway_is_asked() -> None:
    script = script_of(["127.0.0.1:8081", "127.0.0.1:8082"])
    assert 'local gateways = {{"127.0.0.1", "8081"}, {"127.0.0.1", "8082"}}' in script
    assert "ipairs({50, 99, 99.9})" in script
    assert "<" not in script
