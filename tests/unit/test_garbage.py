"""What a process keeps is not looked through again and again."""

import gc
from collections.abc import Iterator

import pytest

from coordinator.runtime.garbage import YOUNG_OBJECTS_MAX, spare_the_long_lived


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds, are_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    if are_frozen:
        gc.freeze()


def test_what_is_there_is_not_looked_at_any_more() -> None:
    kept = [[number] for number in range(1000)]
    spare_the_long_lived()
    assert gc.get_freeze_count() > len(kept)
    assert not any(known is kept for known in gc.get_objects())


def test_garbage_that_comes_later_is_found() -> None:
    spare_the_long_lived()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == YOUNG_OBJECTS_MAX
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() > 0
