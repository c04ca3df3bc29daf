"""`simulate`: handlers that depend on their process, and rows that are changed in place; each fault is planted here."""

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator import Command, Handler, Id, Name, Service, UnitOfWork, VersionedRow
from coordinator.testing import SimulationFailed, elsewhere, simulate, simulation
from coordinator.testing.differences import Finding
from coordinator.testing.elsewhere import OtherProcesses
from coordinator.testing.running import Course
from tests.support.seats import seats

pytestmark = pytest.mark.authors


class Stall(VersionedRow, table="stalls", key="id"):
    id: int
    number: int = 0
    tags: list[str] = msgspec.field(default_factory=list)


class Open(Command, type="stalls.open"):
    """Open a stall."""

    id: Id
    owner: Name
    goods: list[str] = msgspec.field(default_factory=list)


class Ring(Command, type="bells.ring"):
    """Nobody here is rung at."""

    text: str


def opened(work: UnitOfWork, command: Open, number: int, tags: list[str] | None = None) -> Stall:
    there = work.get(Stall, command.id)
    if there is None:
        return work.add(Stall(id=command.id, number=number, tags=tags or []))
    return work.save(there.replace(number=number, tags=tags or there.tags))


def by_hash(work: UnitOfWork, command: Open) -> None:
    opened(work, command, hash(command.owner))


def in_order_of_a_set(work: UnitOfWork, command: Open) -> None:
    for text in {"apples", "pears", "plums", *command.goods}:
        work.emit(Ring(text=text))


def by_local_time(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, work.now.astimezone().hour)


HOST = os.environ.get("HOSTNAME", "")


def by_environment_of_import(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, len(HOST))


def sound(work: UnitOfWork, command: Open) -> Stall:
    """A set, in one order."""
    return opened(work, command, work.now.hour, sorted({*command.goods, command.owner}))


def stalls(handle: Callable[[UnitOfWork, Open], Any]) -> Service:
    return Service("stalls", models=(Stall,), handlers=(Handler(Open, handle),))


HASHES, SETS, ZONES, HOSTS, SOUND = map(
    stalls, (by_hash, in_order_of_a_set, by_local_time, by_environment_of_import, sound)
)
COMMANDS = [Open(id=1, owner="ada"), Open(id=2, owner="bob", goods=["figs", "dates"]), Open(id=1, owner="eve")]


def found(service: Service, **options: Any) -> str:
    with pytest.raises(SimulationFailed) as failed:
        simulate(service, COMMANDS, **({"seeds": 5} | options))
    return str(failed.value)


@pytest.mark.parametrize(
    ("service", "handler", "what"),
    [
        (HASHES, "by_hash", r"Stall \d+"),
        (SETS, "in_order_of_a_set", "what it emits"),
        (ZONES, "by_local_time", "its outcome"),
        (HOSTS, "by_environment_of_import", "its outcome"),
    ],
)
def test_a_handler_that_depends_on_its_process_is_found(service: Service, handler: str, what: str) -> None:
    text = found(service)
    where = re.escape(__file__)
    assert re.search(rf"^stalls\.open, handler {handler} \({where}:\d+\): {what} is not always the same:", text), text
    assert re.search(r"in one process: .+\n    in another one: .+\n  command: stalls\.open {", text), text
    assert "It depends on its process: on hash()" in text
    (batch,) = re.findall(r"^    \d+\. (.*)$", text, re.MULTILINE)
    assert batch.count("Open(") == 1


def test_what_differs_between_processes_is_the_same_in_each_run() -> None:
    assert found(HASHES, seeds=[0], elsewhere=True) == found(HASHES, seeds=[0])


def test_handlers_that_are_sound_pass_in_other_processes() -> None:
    simulate(SOUND, COMMANDS, seeds=5, given=[Stall(id=9, tags=["old"])], elsewhere=True)
    simulate(seats, seeds=5, elsewhere=True)


def test_a_service_that_no_other_process_can_import_is_tried_here_alone() -> None:
    simulate(stalls(by_hash), COMMANDS, seeds=2)
    with pytest.raises(ValueError, match="service stalls has no name in a module, by which another process could"):
        simulate(stalls(by_hash), COMMANDS, seeds=2, elsewhere=True)
    simulate(HASHES, COMMANDS, seeds=2, elsewhere=False)


def test_a_module_that_another_process_cannot_import_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_a_test.py").write_text(
        "import sys\n"
        "from coordinator import Service\n"
        "sys.modules['tests.unit.test_simulate_elsewhere']\n"
        "from tests.unit.test_simulate_elsewhere import SOUND as original\n"
        "mine = original.replace()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import needs_a_test  # type: ignore[import-not-found]

    with pytest.raises(RuntimeError, match=r"cannot import needs_a_test:mine: KeyError: .* elsewhere=False"):
        simulate(needs_a_test.mine, COMMANDS, seeds=1)


def test_a_process_that_does_not_answer_ends_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "ANSWER_S_MAX", 0.0)
    with pytest.raises(RuntimeError, match="another process has not answered within 0 s"):
        simulate(SOUND, COMMANDS, seeds=1)


def test_so_many_histories_are_tried_elsewhere_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Course] = []

    def noted(self: OtherProcesses, course: Course) -> Finding | None:
        tried.append(course)
        return None

    monkeypatch.setattr(OtherProcesses, "difference", noted)
    monkeypatch.setattr(simulation, "ELSEWHERE_MAX", 3)
    simulate(SOUND, COMMANDS, seeds=5)
    assert len(tried) == 3


def of_environment(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, len(os.environ.get("HOME", "")))


def of_asking_environment(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, int("HOME" in os.environ))


def of_host(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, len(socket.gethostname()))


def of_folder(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, len(Path.cwd().name))


def of_a_file_that_is_there(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, int(Path("stalls.json").exists()))


def of_local_clock(work: UnitOfWork, command: Open) -> Stall:
    return opened(work, command, time.localtime().tm_year)


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (of_environment, "reads the environment: os.environ"),
        (of_asking_environment, "reads the environment: os.environ"),
        (of_host, "asks for the name of the machine: _socket.gethostname"),
        (of_folder, "asks for the working folder: posix.getcwd"),
        (of_a_file_that_is_there, "looks at a file: posix.stat"),
        (of_local_clock, "looks at the clock: time.localtime"),
    ],
)
def test_a_look_at_the_machine_is_found_where_it_is_taken(handle: Any, says: str) -> None:
    text = found(stalls(handle))
    where = re.escape(__file__)
    assert re.search(rf"^stalls\.open, handler {handle.__name__} \(.*\): it {says}, {where}:\d+\n", text)
    line = int(re.findall(rf"{where}:(\d+)\n", text)[0])
    assert Path(__file__).read_text().splitlines()[line - 1].startswith("    return opened(work, command, ")


def without_a_save(work: UnitOfWork, command: Open) -> None:
    if (there := work.get(Stall, command.id)) is None:
        work.add(Stall(id=command.id))
    else:
        there.tags.append(command.owner)


def after_the_save(work: UnitOfWork, command: Open) -> Stall:
    stall = opened(work, command, 1)
    stall.tags.append(command.owner)
    return stall


def of_a_selection(work: UnitOfWork, command: Open) -> None:
    opened(work, command, 1)
    for stall in work.select(Stall, limit=10):
        stall.tags.append(command.owner)


@pytest.mark.parametrize("handle", [without_a_save, after_the_save, of_a_selection])
def test_a_row_that_is_changed_in_place_and_not_saved_is_found(handle: Any) -> None:
    text = found(stalls(handle))
    says = r"it changes a row in place, and does not save it: Stall \d+\.tags, "
    assert re.search(
        rf"^stalls\.open, handler {handle.__name__} \(.*\): {says}{re.escape(__file__)}:\d+$", text, re.MULTILINE
    )


def with_a_save(work: UnitOfWork, command: Open) -> Stall:
    stall = work.get(Stall, command.id) or work.add(Stall(id=command.id))
    stall.tags.append(command.owner)
    return work.save(stall.replace(number=stall.number + 1))


def test_a_row_that_is_changed_in_place_and_saved_then_is_sound() -> None:
    simulate(stalls(with_a_save), COMMANDS, seeds=5)
