"""A value of a class derived from a column's type is kept, and found, as a value of the plain type.

What a command finds must not depend on whether its predecessor was in the same batch.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest

from coordinator import Command, Handler, Row, Service, UnitOfWork
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.outcome import Outcome
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.row_checks import InvalidRow, RowChecks
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.store_contract import NOW


class Colour(str, Enum):  # noqa: UP042  # one of Python 3.10, with another hash
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Letter(str, Enum):  # noqa: UP042
    A = "a"


class Numbered(Row, table="numbered", key="id"):
    id: int


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Number(int):
    pass


class Data(bytes):
    pass


class Moment(datetime):
    pass


class Day(date):
    pass


class Hour(time):
    pass


class Span(timedelta):
    pass


class Token(UUID):
    pass


class Thing(Row, table="things", key="code", unique=("number", "token"), index=("mood",)):
    code: str
    number: int | None = None
    token: UUID | None = None
    mood: Literal["red", "blue"] | None = None
    data: bytes | None = None
    moment: datetime | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None


class Step(Command, type="things.step"):
    what: str


DERIVED: dict[str, Any] = {
    "code": Colour.RED,
    "number": Size.SMALL,
    "token": Token(int=5),
    "mood": Colour.RED,
    "data": Data(b"x"),
    "moment": Moment(2026, 1, 2, tzinfo=UTC),
    "day": Day(2026, 1, 2),
    "hour": Hour(3, 4, 5),
    "span": Span(days=1, seconds=2),
}
PLAIN = Thing(
    code="red",
    number=1,
    token=UUID(int=5),
    mood="red",
    data=b"x",
    moment=datetime(2026, 1, 2, tzinfo=UTC),
    day=date(2026, 1, 2),
    hour=time(3, 4, 5),
    span=timedelta(days=1, seconds=2),
)


def types_of(row: Row) -> list[type]:
    return [type(getattr(row, name)) for name in row.__struct_fields__]


@pytest.mark.parametrize("text", [Text("red"), Colour.RED])
def test_a_row_has_values_of_exactly_the_types_of_its_columns(text: str) -> None:
    kept = RowChecks(SERVICE).of(Thing).new(Thing(**DERIVED | {"code": text, "number": Number(1)}))
    assert kept == PLAIN
    assert types_of(kept) == types_of(PLAIN)
    changed = RowChecks(SERVICE).of(Thing).change(kept.replace(code=text), kept)
    assert types_of(changed) == types_of(PLAIN)


STEPS: dict[str, Callable[[UnitOfWork], Any]] = {
    "add": lambda work: work.add(Thing(**DERIVED)),
    "get": lambda work: work.get(Thing, "red"),
    "get member": lambda work: work.get(Thing, Colour.RED),
    "get text": lambda work: work.get(Thing, Text("red")),
    "find": lambda work: work.find(Thing, "number", 1),
    "find member": lambda work: work.find(Thing, "number", Size.SMALL),
    "find token": lambda work: work.find(Thing, "token", Token(int=5)),
    "select": lambda work: work.select(Thing, mood="red", limit=9)[0],
    "select member": lambda work: work.select(Thing, mood=Colour.RED, limit=9)[0],
    "save": lambda work: work.save(Thing(**DERIVED)),
    "remove": lambda work: work.remove(Thing(**DERIVED)),
    # What is equal to a key, and is none.
    "get true": lambda work: work.get(Thing, True),
    "find true": lambda work: work.find(Thing, "number", True),
    "find float": lambda work: work.find(Thing, "number", 1.0),  # type: ignore[arg-type]
    "find none": lambda work: work.find(Thing, "number", None),  # type: ignore[arg-type]
    "find no token": lambda work: work.find(Thing, "token", None),  # type: ignore[arg-type]
    "add bare": lambda work: work.add(Thing(code="bare")),
    "get bare": lambda work: work.get(Thing, "bare"),
}
NO_KEYS = {"get true", "find true", "find float", "find none", "find no token"}


def step(work: UnitOfWork, command: Step) -> Any:
    done = STEPS[command.what](work)
    assert done is None or types_of(done) in (types_of(PLAIN), types_of(Thing(code="bare")))
    return done


def read_first(command: Step) -> Any:
    refs = {"get member": Thing.at(code=Colour.RED), "find member": Thing.at(number=Size.SMALL)}
    return [refs[command.what]] if command.what in refs else []


SERVICE = Service("things", models=(Thing,), handlers=(Handler(Step, step),))
READING = Service("things", models=(Thing,), handlers=(Handler(Step, step, reads=read_first),))


@pytest.fixture
def open_lane(tmp_path: Path) -> Iterator[Callable[[Service], LaneUnderTest]]:
    opened: list[closing[SqliteStore]] = []

    def open_lane(service: Service) -> LaneUnderTest:
        path = str(tmp_path / f"things{len(opened)}.db")
        create_schema(path, service)
        store = SqliteStore(path, service)
        opened.append(closing(store))
        return LaneUnderTest(store, "test", service)

    yield open_lane
    for each in opened:
        with each:
            pass


def shown(outcomes: list[Outcome]) -> list[Any]:
    return [(each.status, bytes(each.result), each.error and each.error.code) for each in outcomes]


@pytest.mark.parametrize("service", [SERVICE, READING], ids=["asks", "reads"])
@pytest.mark.parametrize(
    "names",
    [
        ["add", "get", "get member", "get text", "find", "find member", "find token", "select", "select member"],
        ["add", "get member", "save", "get", "remove", "get", "get member", "find member", "add", "select member"],
        ["add", "save", "remove", "get", "add", "remove"],
        ["add bare", "get bare", "find none", "find no token"],
        ["add", "find", "find true", "find float", "find none", "get true"],
    ],
    ids=["read", "change", "write", "none", "equal"],
)
def test_what_is_done_does_not_depend_on_batches(
    open_lane: Callable[[Service], LaneUnderTest], service: Service, names: list[str]
) -> None:
    sent = [delivery(number, Step(what=name)) for number, name in enumerate(names, 1)]
    alone, together = open_lane(service), open_lane(service)
    one_by_one = [outcome for each in sent for outcome in alone.outcomes(each)]
    at_once = together.outcomes(*sent)
    assert shown(at_once) == shown(one_by_one)
    assert alone.rows(Thing) == together.rows(Thing)
    refused = {name for name, outcome in zip(names, at_once, strict=True) if outcome.status != "applied"}
    assert refused == NO_KEYS.intersection(names)


def test_none_is_never_in_an_index() -> None:
    work = BatchWork(MemoryStore(MemoryDatabase()).begin(), NOW, checks=RowChecks(SERVICE))
    work.add(Thing(code="a"))
    wrong: tuple[Any, ...] = (None, True, 1.0)
    for value in wrong:
        with pytest.raises(InvalidRow):
            work.find(Thing, "number", value)
    assert None not in work.kinds[Thing].unique["number"]


class Line(Row, table="lines", key=("order", "number")):
    order: int
    number: int


class Third(Row, table="thirds", key=("order", "code", "number")):
    order: int
    code: str
    number: int


class Fourth(Row, table="fourths", key=("order", "code", "number", "place")):
    order: int
    code: str
    number: int
    place: int


KEYS: dict[type[Row], tuple[Any, ...]] = {
    Line: (1, 1),
    Third: (1, "a", 1),
    Fourth: (1, "a", 1, 1),
}

WRONG: tuple[Any, ...] = (True, 1.0, None, Decimal(1), b"a")


@pytest.mark.parametrize("model", KEYS)
@pytest.mark.parametrize("is_there", [True, False])
def test_each_part_of_a_key_is_of_exactly_its_type(model: type[Row], is_there: bool) -> None:
    work, key = BatchWork(MemoryStore(MemoryDatabase()).begin(), NOW), KEYS[model]
    row = work.add(model(**dict(zip(model.key, key, strict=True)))) if is_there else None
    assert work.get(model, key) is row
    for place, part in enumerate(key):
        start, end = key[:place], key[place + 1 :]
        for derived in (Size.SMALL, Number(1)) if part == 1 else (Letter.A, Text("a")):
            assert work.get(model, (*start, derived, *end)) is row
        for wrong in WRONG:
            with pytest.raises(InvalidRow):
                work.get(model, (*start, wrong, *end))
            with pytest.raises(InvalidRow):
                work.find(model, model.key, (*start, wrong, *end))
    no_keys: list[Any] = [key[:-1], (*key, 1), 1, [*key]]
    for no_key in no_keys:
        with pytest.raises(InvalidRow):
            work.get(model, no_key)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_equal_to_a_key_is_none(is_there: bool) -> None:
    work = BatchWork(MemoryStore(MemoryDatabase()).begin(), NOW)
    row = work.add(Numbered(id=1)) if is_there else None
    assert work.get(Numbered, 1) is work.get(Numbered, Size.SMALL) is row
    for wrong in (*WRONG, [1], (1,)):
        with pytest.raises(InvalidRow):
            work.get(Numbered, wrong)
    with pytest.raises(InvalidRow):
        work.save(Numbered(id=True))


def test_a_row_may_be_removed_by_another() -> None:
    work = BatchWork(MemoryStore(MemoryDatabase()).begin(), NOW)
    work.add(Line(order=1, number=2))
    work.remove(Line(order=Size.SMALL, number=Number(2)))
    assert work.get(Line, (1, 2)) is None
