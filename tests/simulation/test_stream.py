"""The simulation by Redis's rules: the first seeds, and bugs to be caught. `make simulate BROKER=redis` has more."""

import pytest

from tests.simulation.__main__ import report_of
from tests.simulation.catalogue_stream import STREAM_MUTANTS
from tests.simulation.mutant import Mutant
from tests.simulation.mutants import caught_by
from tests.simulation.stream import StreamWorld


def test_the_promises_hold_on_streams() -> None:
    report = report_of(range(1, 101), StreamWorld)
    assert report.failed == {}
    assert report.commands > 1000


@pytest.mark.parametrize("mutant", STREAM_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_of_a_transport_on_streams_is_caught(mutant: Mutant) -> None:
    caught = caught_by(mutant, StreamWorld)
    assert caught is not None, f"{mutant.name} survives {mutant.seeds_max} seeds: {mutant.why}"
    assert "Error" not in caught[1], "it breaks a promise, and not the code"
