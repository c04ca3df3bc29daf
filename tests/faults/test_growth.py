"""A soak that never fails proves nothing: what grows is named, and what is flat is not."""

import pytest

from tests.faults.growth import BOUNDS, Measure, Sample, grown, table_of


def samples(measure: Measure, *figures: float) -> list[Sample]:
    return [{measure: {"it": figure}, Measure.LOAD: {"machine": 1.0}} for figure in figures]


@pytest.mark.parametrize("measure", [measure for measure, bound in BOUNDS.items() if bound is not None])
def test_a_figure_may_reach_its_bound_and_not_pass_it(measure: Measure) -> None:
    bound = BOUNDS[measure]
    assert bound is not None
    at_most = bound.limit([10, 10])
    assert not [*grown(samples(measure, 10, 10, 10))]
    assert not [*grown(samples(measure, 10, 10, at_most))]
    (said,) = grown(samples(measure, 10, 10, at_most + 1))
    assert said.startswith(f"it: {measure} grew to ")
    assert [line for line in table_of(samples(measure, 10, 10, at_most + 1)) if line.endswith("GREW")]


def test_memory_may_fill_until_the_middle_and_no_longer() -> None:
    assert not [*grown(samples(Measure.MEMORY, 50, 500, 500))]
    assert [*grown(samples(Measure.MEMORY, 50, 100, 150))]


def test_what_only_comes_later_has_grown_from_nothing() -> None:
    later: Sample = {Measure.QUEUES: {"it": 5.0}}
    assert [*grown([{}, later, later])]


def test_a_busier_machine_excuses_nothing() -> None:
    """The system may be what keeps it busy."""
    slower = samples(Measure.LATENCY_P50, 100, 100, 250)
    slower[-1][Measure.LOAD] = {"machine": 4.0}
    assert [*grown(slower)]
