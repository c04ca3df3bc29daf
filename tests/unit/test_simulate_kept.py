"""`simulate`: handlers that keep something in their module, each in its own way; the commands are made up."""

import re
from typing import Any

import pytest

from coordinator import Command, Id, Rejected, Service, UnitOfWork, VersionedRow
from coordinator.testing import SimulationFailed, simulate

pytestmark = pytest.mark.authors


class Bin(VersionedRow, table="bins", key="id"):
    id: int
    count: int = 0


class Fill(Command, type="bins.fill"):
    """Put a bottle into a bin."""

    id: Id


def bin_of(work: UnitOfWork, command: Fill) -> Bin:
    found = work.get(Bin, command.id)
    if found is None:
        raise Rejected("no_bin", f"there is no bin {command.id}")
    return found


GROWING, CACHING, LIMITING, REMEMBERING, SOUND = services = [Service("bins") for _ in range(5)]
for each in services:
    each.row(Bin)

SEEN: set[int] = set()
CACHED: dict[int, Bin] = {}
TIMES: list[int] = []
FIRST: dict[int, int] = {}


@GROWING.handles(Fill)
def grows_a_set(work: UnitOfWork, command: Fill) -> Bin:
    there = bin_of(work, command)
    SEEN.add(command.id)
    return work.save(there.replace(count=len(SEEN)))


@CACHING.handles(Fill)
def caches_a_row(work: UnitOfWork, command: Fill) -> Bin:
    there = CACHED.get(command.id) or bin_of(work, command)
    CACHED[command.id] = saved = work.save(there.replace(count=there.count + 1))
    return saved


@LIMITING.handles(Fill)
def counts_globally(work: UnitOfWork, command: Fill) -> Bin:
    there = bin_of(work, command)
    TIMES.append(command.id)
    if len(TIMES) > 3:
        raise Rejected("limit", "only three")
    return work.save(there.replace(count=there.count + 1))


@REMEMBERING.handles(Fill)
def remembers_the_first(work: UnitOfWork, command: Fill) -> Bin:
    there = bin_of(work, command)
    return work.save(there.replace(count=FIRST.setdefault(command.id, there.count) + 1))


@SOUND.handles(Fill)
def keeps_nothing(work: UnitOfWork, command: Fill) -> Bin:
    there = bin_of(work, command)
    return work.save(there.replace(count=there.count + 1))


@pytest.fixture(autouse=True)
def _as_imported() -> None:
    for kept in (SEEN, CACHED, TIMES, FIRST):
        kept.clear()


GIVEN = [Bin(id=number) for number in (1, 2, 3)]
COMMANDS = [Fill(id=number) for number in (1, 2, 3)]


def found(service: Service, commands: Any = None, seeds: Any = 30) -> str:
    with pytest.raises(SimulationFailed) as failed:
        simulate(service, commands, given=GIVEN, seeds=seeds)
    return str(failed.value)


@pytest.mark.filterwarnings("ignore::coordinator.testing.NeverApplied")
@pytest.mark.parametrize(
    ("service", "handle"),
    [(GROWING, grows_a_set), (LIMITING, counts_globally), (REMEMBERING, remembers_the_first)],
)
def test_what_a_handler_keeps_is_missing_after_a_takeover(service: Service, handle: Any) -> None:
    text = found(service)
    assert re.match(rf"bins\.fill, handler {handle.__name__} \(.*\): .+ is not always the same:\n", text), text
    assert re.search(r"    in one process: .+\n    with a takeover in the middle: ", text), text
    assert "It keeps something between commands that is in no row" in text
    assert 2 <= text.count("Fill(") <= 6, text


def test_a_row_that_a_handler_keeps_is_found() -> None:
    assert found(CACHING).startswith("bins.fill, handler caches_a_row (")


def test_the_seed_that_is_told_shows_what_is_kept_alone() -> None:
    text = found(REMEMBERING, COMMANDS)
    (seed,) = re.findall(r"seeds=\[(\d+)\]", text)
    assert found(REMEMBERING, COMMANDS, seeds=[int(seed)]) == text


def test_a_handler_that_keeps_nothing_passes() -> None:
    simulate(SOUND, given=GIVEN, seeds=10, elsewhere=True)
