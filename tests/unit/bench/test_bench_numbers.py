"""The benchmark's arithmetic: percentiles, spreads, ratios, draws."""

import random
from array import array
from collections import Counter
from itertools import islice

import pytest

from tests.bench.measurement import ClientResult, measured, per_1000, percentile, spread
from tests.bench.workloads import Workload, Zipf, operations, transfer_between


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (0.9991, 1000.0), (1.0, 1000.0)]
)
def test_a_percentile_is_the_smallest_value_that_enough_others_do_not_exceed(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 1001)], share) == expected


def test_of_few_values_a_high_percentile_is_the_largest() -> None:
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3.0
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) is None


def test_a_spread_ignores_runs_without_a_value() -> None:
    found = spread([3.0, None, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert spread([None, None]) is None


def test_clients_of_one_run_are_put_together() -> None:
    first = ClientResult(offered=10, rejected=2, latencies_s=array("d", [0.001] * 8), applied_total=9)
    second = ClientResult(offered=10, errors=1, latencies_s=array("d", [0.1] * 2), error_texts=["x", "x"])
    one = measured([first, second], 2.0, {"database": 0.6}, ("fine", 0, False))
    assert (one.offered, one.achieved, one.rejected, one.errors) == (10.0, 5.0, 1.0, 1)
    assert one.latency_ms == {"p50": 1.0, "p99": 100.0, "p99.9": 100.0}
    # Ten were applied and two refused: refusing is work too.
    assert one.cpu_s_per_1000 == {"database": pytest.approx(50.0)}
    assert one.error_texts == ["x"]


def test_a_batch_counts_its_commands_and_not_its_latencies() -> None:
    one = measured([ClientResult(applied=5000, latencies_s=array("d", [0.1] * 10))], 1.0, {}, ("fine", 0, False))
    assert one.achieved == 5000


def test_cpu_time_of_nothing_is_not_infinite() -> None:
    assert per_1000({"clients": 1.0}, 0) == {}


@pytest.mark.parametrize("skew", [1.0, 1.5, 2.0])
def test_ranks_are_drawn_by_their_weight(skew: float) -> None:
    ranks, draws = 100, 40_000
    zipf = Zipf(ranks, skew, random.Random(7))
    counts = Counter(zipf.draw() for _ in range(draws))
    whole = sum(rank**-skew for rank in range(1, ranks + 1))
    for rank in (1, 2, 5):
        assert counts[rank] / draws == pytest.approx(rank**-skew / whole, rel=0.08)
    assert set(counts) <= set(range(1, ranks + 1))


def test_without_skew_all_are_drawn_alike() -> None:
    zipf = Zipf(10, 0.0, random.Random(7))
    counts = Counter(zipf.draw() for _ in range(20_000))
    assert min(counts.values()) > 1700
    assert sorted(counts) == list(range(1, 11))


def test_a_transfer_is_never_to_its_own_account() -> None:
    drawn = {transfer_between(first, second) for first in range(1, 6) for second in range(1, 5)}
    assert len(drawn) == 20
    assert all(payer != payee and 1 <= payee <= 5 for payer, payee in drawn)


def test_operations_are_the_same_for_the_same_seed() -> None:
    workload = Workload("transfer", 1.5)
    first, again, other = (list(islice(operations(workload, seed, "r"), 50)) for seed in (1, 1, 2))
    assert first == again != other


def test_references_of_creates_are_unique_over_clients_and_runs() -> None:
    clients = [(seed, run) for seed in (1, 2) for run in ("a", "b")]
    drawn = {one for seed, run in clients for one in islice(operations(Workload("create"), seed, run), 20)}
    assert len(drawn) == 80
