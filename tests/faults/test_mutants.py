"""The planted bugs fit the code as it is; `make chaos-mutants` runs chaos with each."""

import ast
from pathlib import Path

import pytest

from tests.faults.catalogue import MUTANTS, ChaosMutant, Edit
from tests.faults.mutants import TREE, judged, named, planted, turn


def test_each_mutant_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 7


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_bug_can_be_planted_in_the_code_as_it_is(mutant: ChaosMutant, tmp_path: Path) -> None:
    planted(mutant, tmp_path)
    for path in {edit.path for edit in mutant.edits}:
        changed = (tmp_path / path).read_text()
        assert changed != (TREE / path).read_text()
        ast.parse(changed)


def test_a_bug_that_no_longer_fits_the_code_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\na = 1\n")
    with pytest.raises(LookupError, match=r"code\.py has 2 times 'a = 1': bring the mutant up to date"):
        Edit("code.py", "a = 1", "a = 2").plant(tmp_path)


@pytest.mark.parametrize("count", range(1, len(MUTANTS) + 2))
def test_seeds_in_a_row_run_every_bug(count: int) -> None:
    mutants = list(MUTANTS)
    turns = [turn(mutants, count, seed) for seed in range(5, 5 + -(-len(mutants) // count))]
    assert all(len({mutant.name for mutant in each}) == min(count, len(mutants)) for each in turns)
    assert {mutant.name for each in turns for mutant in each} == {mutant.name for mutant in mutants}


def test_only_a_violation_that_names_the_bug_catches_it() -> None:
    mutant = MUTANTS[0]
    violations = f"VIOLATIONS: 2\n  users: 7 {mutant.says[0]}\n  users: another matter\nagain: python -m tests.faults"
    assert named(mutant, f"60 faults\n{violations}") == [f"users: 7 {mutant.says[0]}"]
    assert named(mutant, f"{mutant.says[0]}\nno violation (seed 1)") == []


def test_a_run_that_ends_before_its_verdict_judges_nothing() -> None:
    mutant = MUTANTS[0]
    assert judged(mutant, "Traceback: no services", 1) is None
    assert judged(mutant, "60 faults\nno violation (seed 1)", 0) == []
    assert judged(mutant, f"60 faults\nVIOLATIONS: 1\n  users: {mutant.says[0]}\n", 1) == [f"users: {mutant.says[0]}"]
