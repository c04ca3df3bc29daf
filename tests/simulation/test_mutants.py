"""The planted bugs fit the code, and some of each catalogue are caught; `make mutants` runs all."""

import pytest

from tests.simulation.catalogue import MUTANTS
from tests.simulation.mutant import Mutant
from tests.simulation.mutants import caught_by
from tests.simulation.patching import Patches

EVERY = 24


def test_there_are_at_least_25_mutants() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


def test_every_bug_can_be_planted_in_the_code_as_it_is() -> None:
    for mutant in MUTANTS:
        with Patches() as patches:
            mutant.plant(patches)


@pytest.mark.parametrize("mutant", MUTANTS[::EVERY], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    assert caught_by(mutant) is not None, f"{mutant.name} survives {mutant.seeds_max} seeds: {mutant.why}"


def test_code_without_a_bug_is_not_caught() -> None:
    assert caught_by(Mutant("none", "nothing is wrong", lambda _: None, seeds_max=20)) is None
