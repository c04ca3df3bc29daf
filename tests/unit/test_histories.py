"""The histories of `simulate`: what goes wrong in them does go wrong, and the lane comes through."""

from datetime import timedelta

import pytest

from coordinator import Command, Continuation, Handler, Id, Row, Service, UnitOfWork
from coordinator.testing.history import FAULTS, BatchPlan, Fault, History, Sent, history_of, smaller
from coordinator.testing.running import Ran, run, run_one_by_one


class Total(Row, table="totals", key="id"):
    id: int
    value: int
    note: str = ""


class Add(Command, type="totals.add"):
    id: Id
    value: int


class Later(Command, type="totals.later"):
    """Emits an Add to its own lane, and hears of it."""

    id: Id


class Added(Continuation, type="totals.added"):
    """What became of it."""


tries: list[str] = []


def add(work: UnitOfWork, command: Add) -> Total:
    tries.append(work.command_id)
    there = work.get(Total, command.id)
    if there is None:
        return work.add(Total(id=command.id, value=command.value))
    return work.save(there.replace(value=there.value + command.value))


def later(work: UnitOfWork, command: Later) -> None:
    work.emit(Add(id=command.id, value=100), continuation=Added)


def added(work: UnitOfWork, command: Added) -> Total:
    return work.add(Total(id=1000 + work.next_id("added"), value=0, note=f"{command.command_type} {command.status}"))


def block(work: UnitOfWork, command: Add) -> Total:
    raise RuntimeError("it stops the lane")


HANDLERS = (Handler(Add, add), Handler(Later, later), Handler(Added, added, is_internal=True))
TOTALS = Service("totals", models=(Total,), handlers=HANDLERS)
BLOCKED = TOTALS.replace(handlers=(Handler(Add, block, on_failure="block"), *HANDLERS[1:]))


def sent(number: int, command: Command) -> Sent:
    return Sent(f"00000000-0000-4000-8000-{number:012d}", command)


def batch(fault: Fault | None, *commands: Sent) -> BatchPlan:
    return BatchPlan(commands, timedelta(seconds=1), fault)


def totals(ran: Ran) -> dict[int, int]:
    return {row.id: row.value for row in ran.rows[Total].values() if isinstance(row, Total)}


@pytest.fixture(autouse=True)
def _no_tries() -> None:
    tries.clear()


@pytest.mark.parametrize(
    ("fault", "runs", "epoch"),
    [
        (None, 1, 1),
        ("conflict", 2, 1),
        ("crash before the commit", 2, 2),
        ("crash after the commit", 1, 2),
        ("no answer to a commit", 1, 2),
        ("no answer, and no commit", 2, 2),
        ("takeover by another process", 2, 2),
    ],
)
def test_a_fault_strikes_and_every_command_takes_effect_once(fault: Fault | None, runs: int, epoch: int) -> None:
    one, two, three, four = (sent(number, Add(id=7, value=number)) for number in (1, 2, 3, 4))
    history = History((batch(None, one), batch(fault, two, three), batch(None, two, four)), 500)
    ran = run(TOTALS, history, ())
    assert tries.count(three.command_id) == runs
    assert totals(ran) == {7: 10}
    assert [ran.entries[each.command_id].sequence for each in (one, two, three, four)] == [1, 2, 3, 4]
    assert ran.entries[four.command_id].epoch == epoch


def test_every_fault_is_among_those_that_are_tried() -> None:
    assert {None, *FAULTS} == {
        planned.fault for seed in range(50) for planned in history_of(seed, lambda _: Add(id=1, value=1)).batches
    }


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_what_a_lane_emits_to_itself_comes_back(fault: Fault | None) -> None:
    ran = run(TOTALS, History((batch(fault, sent(1, Later(id=7))), batch(fault, sent(2, Later(id=8)))), 1), ())
    assert totals(ran) == {7: 100, 8: 100, 1001: 0, 1002: 0}
    types = [(message.type or "").removeprefix("totals.") for message in ran.order]
    assert types == ["later", "add", "later", "added", "add", "added"]
    assert run_one_by_one(TOTALS, ran.course, ()).rows == ran.rows


def test_a_command_that_blocks_its_lane_is_cancelled_and_the_lane_goes_on() -> None:
    history = History((batch(None, sent(1, Later(id=7)), sent(2, Add(id=7, value=1)), sent(3, Later(id=8))),), 500)
    ran = run(BLOCKED, history, ())
    assert {entry.error_code for entry in ran.entries.values() if entry.type == "totals.add"} == {"cancelled"}
    assert [entry.status for entry in ran.entries.values() if entry.type == "totals.later"] == ["applied", "applied"]


def test_one_by_one_each_command_sees_the_time_that_it_saw() -> None:
    seen: list[tuple[str, object]] = []

    def note(work: UnitOfWork, command: Add) -> None:
        seen.append((work.command_id, work.now))

    service = TOTALS.replace(handlers=(Handler(Add, note),))
    ran = run(service, history_of(5, lambda chance: Add(id=1, value=chance.randint(1, 9))), ())
    assert len(ran.entries) > 3
    settled = {entry.command_id: entry.settled_at for entry in ran.entries.values()}
    assert set(settled.items()) <= set(seen)
    seen.clear()
    run_one_by_one(service, ran.course, ())
    assert seen == [(message.command_id, settled[message.command_id or ""]) for message in ran.order]


def test_a_history_is_made_smaller_by_a_batch_a_command_or_a_fault() -> None:
    one, two = (sent(number, Add(id=7, value=1)) for number in (1, 2))
    whole = History((batch("conflict", one, two), batch(None, two)), 500)
    assert [less.batches for less in smaller(whole)] == [
        (batch(None, two),),
        (batch("conflict", one, two),),
        (batch("conflict", two), batch(None, two)),
        (batch("conflict", one), batch(None, two)),
        (batch(None, one, two), batch(None, two)),
    ]
