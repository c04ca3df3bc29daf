"""Every planted bug is caught."""

import pytest

from tests.simulation.catalogue import MUTANTS
from tests.simulation.mutant import Mutant
from tests.simulation.mutants import caught_by


def test_there_are_at_least_25_mutants() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    assert caught_by(mutant) is not None, f"{mutant.name} survives {mutant.seeds_max} seeds: {mutant.why}"
