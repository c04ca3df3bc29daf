"""The plan is the seed's, and has every kind that can be done."""

import pytest

from tests.faults.__main__ import repeating
from tests.faults.plan import (
    CACHED,
    LANES,
    OF_REPLICAS,
    OF_THE_BROKER,
    OF_THE_CACHE,
    OF_THE_FILESYSTEM,
    REPLICATED,
    Choice,
    Kind,
    kind_named,
    name_of,
    plan,
)

COUNT = 60


def test_the_same_seed_is_the_same_plan() -> None:
    assert plan(7, COUNT) == plan(7, COUNT)
    assert plan(7, COUNT) != plan(8, COUNT)


def test_every_kind_strikes_at_least_once() -> None:
    faults = plan(7, COUNT)
    assert len(faults) == COUNT
    assert {fault.kind for fault in faults} == set(Kind)
    for fault in faults:
        assert (fault.lane is None) == (fault.kind in OF_THE_BROKER)
        assert fault.lane is None or fault.lane in LANES


def test_what_cannot_be_done_here_is_left_out_and_others_take_its_place() -> None:
    faults = plan(7, COUNT, OF_THE_FILESYSTEM)
    assert len(faults) == COUNT
    assert {fault.kind for fault in faults} == set(Kind) - OF_THE_FILESYSTEM


def test_a_choice_of_kinds_and_of_a_lane_is_all_that_strikes() -> None:
    chosen = frozenset({Kind.KILL_ACTIVE, Kind.KILL_BROKER})
    faults = plan(7, COUNT, choice=Choice(only=chosen, lane="items", piled_up=1))
    assert {fault.kind for fault in faults} == chosen
    assert {fault.lane for fault in faults if fault.kind is Kind.KILL_ACTIVE} == {"items"}
    assert not any(fault.is_alone for fault in faults)


def test_a_primary_and_its_standby_are_of_the_lane_that_has_them() -> None:
    faults = plan(7, COUNT, choice=Choice(only=OF_REPLICAS, lane="items"))
    assert {fault.kind for fault in faults} == OF_REPLICAS
    assert {fault.lane for fault in faults} == {REPLICATED}


def test_a_cache_is_of_the_lane_that_has_one() -> None:
    faults = plan(7, COUNT, choice=Choice(only=OF_THE_CACHE, lane="users"))
    assert {fault.kind for fault in faults} == OF_THE_CACHE
    assert {fault.lane for fault in faults} == {CACHED}


def test_each_kind_has_a_name_on_the_command_line() -> None:
    assert [kind_named(name_of(kind)) for kind in Kind] == list(Kind)
    assert name_of(Kind.KILL_ACTIVE) == "kill-active"


@pytest.mark.parametrize(
    ("arguments", "with_the_seed"),
    [
        (["--faults", "60"], ["--faults", "60", "--seed", "7"]),
        (["--seed=7", "--transport", "redis"], ["--seed=7", "--transport", "redis"]),
        (["--seed", "7", "--only", "kill-active"], ["--seed", "7", "--only", "kill-active"]),
    ],
)
def test_what_repeats_a_run_has_its_application_its_seed_and_all_that_it_was_told(
    arguments: list[str], with_the_seed: list[str]
) -> None:
    app, program, *rest = repeating(arguments, 7, "shop.app:APP").split()
    assert (app, program) == ("COORDINATOR_APP=shop.app:APP", ".venv/bin/python")
    assert rest == ["-m", "tests.faults", *with_the_seed]
