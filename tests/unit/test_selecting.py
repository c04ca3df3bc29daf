"""What a handler sees when it asks, what that costs, and what is refused: on a lane in memory."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest

from coordinator import SELECTED_MAX, Command, ConfigurationError, Id, Rejected, Row, RowSelection, Service, UnitOfWork
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.defects import defects_of
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.port import Changes, Lease, Read
from coordinator.testing import LaneInMemory, SimulationFailed, simulate
from tests.support.store_contract import NOW

ORDERS = Service("orders")


@ORDERS.row
class Line(Row, table="lines", key="id", unique=("code",), index=("order_id", ("status", "day"))):
    id: int
    order_id: int
    code: str | None = None
    status: Literal["open", "packed"] = "open"
    day: datetime | None = None


@ORDERS.row
class Named(Row, table="named", key="name"):
    name: str


@ORDERS.row
class Tagged(Row, table="tagged", key="name", index=("tag",)):
    name: str
    tag: str | None = None


class Take(Command, type="orders.take"):
    """Takes the first open line of an order out of it. Rejected: `none_left`, `unlucky`."""

    order_id: Id
    is_lucky: bool = True


class Ask(Command, type="orders.ask"):
    """Asks as `ASKED` says."""

    what: str


def take(work: UnitOfWork, command: Take) -> Line:
    found = work.select(Line, order_id=command.order_id, limit=1)
    if not found:
        raise Rejected("none_left", f"order {command.order_id} has no line")
    line = work.save(found[0].replace(order_id=1000 + command.order_id))
    if not command.is_lucky:
        raise Rejected("unlucky", "bad luck")
    return line


ASKED: dict[str, Callable[[UnitOfWork], Any]] = {}


def ask(work: UnitOfWork, command: Ask) -> None:
    ASKED[command.what](work)


ORDERS.handles(Take, reads=lambda command: [Line.where(order_id=command.order_id, limit=1)])(take)
ORDERS.handles(Ask)(ask)


class _Counted(MemoryTransaction):
    """Notes what is read."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.loads: list[Sequence[Read | RowSelection[Row]]] = []

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        self.loads.append(reads)
        return super().load(reads)


def batch(*rows: Row) -> tuple[BatchWork, _Counted]:
    database = MemoryDatabase()
    MemoryStore(database).begin().commit(Lease(0, 0), 0, Changes([], [], [[row] for row in rows]))
    transaction = _Counted(database)
    return BatchWork(transaction, NOW), transaction


def lines(*numbers: int, order_id: int = 1) -> list[Line]:
    return [Line(id=number, order_id=order_id) for number in numbers]


def test_a_command_sees_what_the_ones_before_it_took() -> None:
    lane = LaneInMemory(ORDERS)
    lane.given(*lines(3, 1, 2))
    assert [lane.apply(Take(order_id=1)).result(Line).id for _ in range(2)] == [1, 2]
    assert lane.apply(Take(order_id=1, is_lucky=False)).rejected_with("unlucky")
    assert lane.apply(Take(order_id=1)).result(Line).id == 3
    assert lane.apply(Take(order_id=1)).rejected_with("none_left")


def test_selecting_handlers_do_the_same_in_every_history() -> None:
    service = ORDERS.replace(handlers=[handler for handler in ORDERS.handlers if handler.command is Take])
    simulate(
        service,
        lambda chance: Take(order_id=chance.randint(1, 2), is_lucky=chance.random() < 0.7),
        given=[Line(id=number, order_id=1 + number % 2) for number in range(40)],
        seeds=60,
    )


def test_a_selection_that_reads_declares_costs_no_round_trip_of_its_own() -> None:
    work, transaction = batch(*lines(1, 2), Named(name="a"))
    work.prefetch([Line.at(1), Named.at("a"), Line.where(order_id=1, limit=9), Line.where(order_id=1, limit=2)])
    assert [len(reads) for reads in transaction.loads] == [3]
    assert work.select(Line, order_id=1, limit=9) == lines(1, 2)
    assert work.get(Line, 2) is work.select(Line, order_id=1, after=1, limit=1)[0]
    assert work.exists(Line, order_id=1)
    assert len(transaction.loads) == 1


def test_a_hot_selection_costs_a_few_queries_a_batch_and_not_one_a_command() -> None:
    work, transaction = batch(*lines(*range(1000)))
    for number in range(200):
        work.begin_command(str(number), "orders.take")
        (line,) = work.select(Line, order_id=1, limit=1)
        assert line.id == number
        work.remove(line)
    assert len(transaction.loads) <= 6
    for _ in range(100):
        assert not work.exists(Line, order_id=2)
    assert len(transaction.loads) <= 7


def test_a_rejected_command_that_asked_first_leaves_nothing() -> None:
    """It changes rows before anybody has asked for them, asks, and is undone."""
    work, _ = batch(*lines(1, 2, 3))
    work.begin_command("1", "orders.take")
    work.save(Line(id=2, order_id=7))
    work.remove(Line(id=3, order_id=1))
    work.add(Line(id=4, order_id=1))
    assert [row.id for row in work.select(Line, order_id=1, limit=9)] == [1, 4]
    assert [row.id for row in work.select(Line, order_id=7, limit=9)] == [2]
    work.undo()
    work.begin_command("2", "orders.take")
    assert work.select(Line, order_id=1, limit=9) == lines(1, 2, 3)
    assert work.select(Line, order_id=7, limit=9) == []


def test_a_row_that_was_added_in_the_place_of_another_does_not_hide_it_once_it_is_undone() -> None:
    work, _ = batch(Line(id=2, order_id=1, code="old"))
    work.begin_command("1", "orders.take")
    work.add(Line(id=2, order_id=1, code="new"))
    assert [row.code for row in work.select(Line, order_id=1, limit=9)] == ["new"]
    work.undo()
    work.begin_command("2", "orders.take")
    assert [row.code for row in work.select(Line, order_id=1, limit=9)] == ["old"]
    assert [row.code for row in work.select(Line, limit=9)] == ["old"]
    assert (work.find(Line, "code", "new"), work.find(Line, "code", "old")) == (None, work.get(Line, 2))
    assert work.get(Line, 2) is not None


def test_pages_that_are_asked_for_in_any_order_are_read_once() -> None:
    chance = random.Random(1)
    rows = lines(*range(0, 300, 3))
    work, transaction = batch(*rows)
    for _ in range(300):
        after, limit = chance.randrange(-1, 301), chance.randint(1, 20)
        assert (
            work.select(Line, order_id=1, after=after, limit=limit) == [row for row in rows if row.id > after][:limit]
        )
    assert len(transaction.loads) < 60


WRONG: dict[str, tuple[Callable[[UnitOfWork], Any], str]] = {
    "column": (lambda work: work.select(Line, colour=1, limit=1), "Line has no field colour"),
    "index": (
        lambda work: work.exists(Line, order_id=1, status="open"),
        "Line has no index that begins with order_id, status",
    ),
    "not the first": (lambda work: work.exists(Line, day=None), "Line has no index that begins with day"),
    "limit": (lambda work: work.select(Line, limit=0), "Line: limit=0: a selection has from 1 to 1000 rows"),
    "above": (lambda work: work.select(Line, limit=SELECTED_MAX + 1), "Line: limit=1001: a selection has"),
    "no number": (lambda work: work.select(Line, limit="1"), "Line: limit='1' is no number of rows"),  # type: ignore[arg-type]
    "truth": (lambda work: work.select(Line, limit=True), "Line: limit=True is no number"),
    "type": (lambda work: work.exists(Line, order_id="1"), "lines.order_id: a str where an integer belongs"),
    "naive": (
        lambda work: work.exists(Line, status="open", day=datetime(2026, 1, 1)),  # noqa: DTZ001
        "lines.day: a time without its zone",
    ),
    "no choice": (
        lambda work: work.select(Line, status="opne", limit=1),
        "lines.status: 'opne' is none of",
    ),
    "range": (lambda work: work.exists(Line, order_id=2**64), "lines.order_id: an integer out of range"),
    "after": (lambda work: work.select(Line, limit=1, after="1"), "lines.id: a str where an integer belongs"),
    "no value": (lambda work: work.exists(Line, code=None), "Line: rows without a code are selected by an index only"),
    "text key": (lambda work: work.select(Named, limit=1), "Named: its key is a text"),
    "the lane's": (lambda work: work.exists(LogEntry, command_id="1"), "command_log is the lane's own table"),
    "no row": (lambda work: work.exists(int), "int is no class of rows"),  # type: ignore[type-var]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_question_that_has_no_answer_fails_its_command_and_the_lane_goes_on(name: str) -> None:
    asked, text = WRONG[name]
    ASKED[name] = asked
    lane = LaneInMemory(ORDERS)
    lane.given(*lines(1))
    tried = lane.apply(Ask(what=name))
    assert tried.outcome.status == "failed"
    assert text in (tried.reason or "")
    assert lane.apply(Take(order_id=1)).applied
    service = ORDERS.replace(handlers=[handler for handler in ORDERS.handlers if handler.command is Ask])
    with pytest.raises(SimulationFailed, match=re.escape(text)):
        simulate(service, [Ask(what=name)], given=lines(1), seeds=1)


def test_what_serves_a_selection() -> None:
    work, _ = batch(Line(id=1, order_id=1, code="a"), Tagged(name="b"), Tagged(name="a"))
    assert work.exists(Line, status="open")
    assert work.exists(Line, day=None, status="open")
    assert work.exists(Line, code="a")
    assert work.exists(Line, id=1)
    assert work.exists(Line)
    assert [row.name for row in work.select(Tagged, tag=None, limit=5)] == ["a", "b"]
    assert not work.exists(Named, name="a")


def test_keys_that_have_no_order_of_their_own_are_not_taken() -> None:
    ASKED["tab"] = lambda work: work.add(Tagged(name="a\tb"))
    ASKED["free"] = lambda work: work.add(Named(name="a\tb"))
    lane = LaneInMemory(ORDERS)
    tried = lane.apply(Ask(what="tab"))
    assert tried.failed_with("invalid_row")
    assert "tagged.name: text with a control character" in (tried.reason or "")
    assert lane.apply(Ask(what="free")).applied


class _Elsewise(MemoryTransaction):
    """Puts keys into another order."""

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        return [found[::-1] for found in super().load(reads)]


def test_a_database_with_another_order_is_found_out() -> None:
    database = MemoryDatabase()
    MemoryStore(database).begin().commit(Lease(0, 0), 0, Changes([], [], [lines(1, 2)]))
    work = BatchWork(_Elsewise(database), NOW)
    work.prefetch([Line.where(order_id=1, limit=5)])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"lines: the database puts keys into another order than Python: 2, 1"):
            work.select(Line, order_id=1, limit=5)
    assert work.interruption is None


class Bytes(Row, table="bytes", key="id", index=("data", "ratio", "limit", "id", "gone", ("a", "a"))):
    id: int
    data: bytes
    ratio: float
    limit: int
    a: UUID | None


class Colour(Enum):
    RED = "red"


class Comma(Row, table="comma", key="id", index="colour"):
    id: int
    colour: Colour


class Where(Row, table="wheres", key="id", index=("colour",)):
    id: int
    colour: Colour | None
    where: str  # type: ignore[assignment]


DEFECTS = {
    Bytes: [
        "Bytes: an index over a, a names an index, or a column, twice",
        "Bytes.data: an index cannot have a bytes",
        "Bytes.ratio: an index cannot have a float",
        "Bytes.limit: a selection has that name for something else",
        "Bytes: its key, id, ends each index by itself",
        "Bytes has no field gone, of which there is to be an index",
    ],
    Comma: ["Comma: index='colour' is no tuple of columns"],
    Where: ["Where.where: a row has that name for something else"],
}


@pytest.mark.parametrize("model", DEFECTS)
def test_an_index_that_cannot_be_is_a_defect(model: type[Row]) -> None:
    found = defects_of(Service("odd", models=(model,)))
    assert len(found) == len(DEFECTS[model])
    for line in DEFECTS[model]:
        assert any(each.startswith(line) for each in found), found


READS: dict[str, tuple[Callable[[Any], Iterable[Any]], str | None]] = {
    "no index": (lambda command: [Line.where(order_id=command.order_id, status="open", limit=1)], "Line has no index"),
    "in a loop": (lambda command: (Line.where(colour=each, limit=1) for each in command.order_id), "Line has no field"),
    "limit": (lambda command: [Line.where(order_id=command.order_id, limit=5000)], "Line: limit=5000"),
    "sound": (lambda command: [Line.at(command.order_id), Line.where(order_id=command.order_id, limit=1)], None),
    "its limit": (lambda command: [Line.where(order_id=command.order_id, limit=command.order_id)], None),
    "needs a command": (lambda command: [Line.where(colour=command.order_id + 1, limit=1)], None),
    "asks": (lambda command: [Line.where(colour=1, limit=1)] if command.is_lucky else [], None),
}


@pytest.mark.parametrize("name", READS)
def test_reads_without_an_index_are_found_at_start(name: str) -> None:
    reads, fault = READS[name]
    service = Service("orders", models=(Line,))
    service.handles(Take, reads=reads)(take)
    found = defects_of(service)
    assert [line.startswith(f"Take: its reads: {fault}") for line in found] == ([] if fault is None else [True])
    if fault is not None:
        with pytest.raises(ConfigurationError, match=fault):
            simulate(service, [Take(order_id=1)], seeds=1)


def test_reads_that_only_a_command_shows_to_be_wrong_fail_it() -> None:
    service = Service("orders", models=(Line,))
    service.handles(Take, reads=READS["needs a command"][0])(take)
    lane = LaneInMemory(service)
    assert "`reads` of Take: WrongSelection: Line has no field colour" in (lane.apply(Take(order_id=1)).reason or "")


def test_the_rows_that_a_settled_command_selects_are_announced_again() -> None:
    database = MemoryDatabase()
    MemoryStore(database).begin().commit(Lease(0, 0), 0, Changes([], [], [lines(1, 2)]))
    message = CommandMessage("00000000-0000-7000-8000-000000000001", Take.type, b'{"order_id":1}')

    def settled() -> Settlement:
        lane = Lane(ORDERS, MemoryStore(database), lambda: NOW, "test", LaneSettings(), lambda: 0.0)
        decision = lane.apply([Delivery(tag=1, commands=(message,), reply_to="test")], 1)
        assert isinstance(decision, Settlement)
        return decision

    assert settled().saved == [Line(id=1, order_id=1001)]
    again = settled()
    assert again.outcomes[0].replayed
    assert again.saved == lines(2)
