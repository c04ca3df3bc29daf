"""What a newcomer declares wrongly is found at start, all of it at once, in the words of his own code."""

import dataclasses
import functools
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID, uuid4

import pytest
from msgspec import Meta, Struct, field
from sqlalchemy import BigInteger, Column, MetaData, String, Table

from coordinator import (
    Command,
    ConfigurationError,
    Digits,
    Handler,
    Name,
    Personal,
    Ref,
    Row,
    Service,
    UnitOfWork,
    VersionedRow,
    any_of,
    has_scope,
)
from coordinator.registry import registry, use
from coordinator.service.defects import defects_of
from coordinator.stores.row_defects import check_declaration
from coordinator.testing import LaneInMemory, simulate
from coordinator.writing import InProcessWrites, open_store
from tests.support.seats import AddSeat, BookSeat, Seat, book, seats


class Place:
    """No type that JSON knows."""


class UniqueText(Row, table="unique_text", key="id", unique="place"):
    id: int
    place: str


class UniquePair(Row, table="unique_pair", key="id", unique=("place", ("hall", "place"))):
    id: int
    hall: str
    place: str


class UniqueNothing(Row, table="unique_nothing", key="id", unique=None):
    id: int


class Personnel(Row, table="personnel", key="id"):
    id: int
    personal_of: str  # type: ignore[assignment]


class Visit(Command, type="seats.visit"):
    guest: Personal[str]


def visit(work: UnitOfWork, command: Visit) -> None: ...


class ReviewText(Row, table="review_text", key="id", review="needs_review"):
    id: int


class ReviewNowhere(Row, table="review_nowhere", key="id", review=("state", "needs_review")):
    id: int


class ReviewNever(Row, table="review_never", key="id", review=("status", "needs_reveiw")):
    id: int
    status: Literal["open", "needs_review"] = "open"


class Stage(Enum):
    REVIEW = "needs_review"


class ReviewEqualToNone(Row, table="review_equal_to_none", key="id", review=("stage", "needs_review")):
    id: int
    stage: Stage


class AuditedYes(Row, table="audited_yes", key="id", audited="yes"):
    id: int


class Typeless(Row, table="typeless", key="id"):
    id: int
    place: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


class Wrong(Row, table="wrong", key="id"):
    id: int
    holder: str = None  # type: ignore[assignment]
    reference: UUID = field(default_factory=uuid4)
    made_at: datetime = field(default_factory=functools.partial(datetime.now, UTC).func)
    chance: float = field(default_factory=random.random)
    place: Place
    price: Annotated[int, Digits(12, 2)]
    amount: Annotated[Decimal | None, Digits(12, 2)] = None
    long: Annotated[int, Meta(max_length=3)]
    Amount: int
    xmin: int
    _id: int


class Noted(Row):
    """A base of rows, which has a field that is none."""

    note = "n"
    kept: ClassVar[int] = 1


class Untyped(Noted, table="untyped", key="id"):
    id: int
    holder = None
    count = 3
    place = Annotated[str, Meta(max_length=9)]
    hall = str
    tags = field(default_factory=lambda: 1)
    # None of these is meant to be a field.
    limit_max: ClassVar[int] = 4
    kept = 2
    _private = 5

    class Within(Struct):
        pass

    @property
    def is_free(self) -> bool:
        return True

    @classmethod
    def made(cls) -> None: ...

    @staticmethod
    def asked() -> None: ...

    def free(self) -> None: ...

    first = functools.partialmethod(free)


class UntypedCommand(Command, type="seats.untyped"):
    id: int
    holder = ""


class Renamed(Row, table="renamed", key="id", rename="camel"):
    seat_id: int
    id: int


class Changeable(Row, table="changeable", key="id", frozen=False):  # type: ignore[misc]
    id: int


class Versioned(VersionedRow, table="versioned", key="id"):
    id: int
    version: str  # type: ignore[assignment]


class Spaced(Row, table="my seats", key="id"):
    id: int


class Upper(Row, table="Seats", key="id"):
    id: int


class Logged(Row, table="command_log", key="id"):
    id: int


class Counted(Row, table="Counters", key="id"):
    id: int


class Paged(Row, table="paged", key="id", index=("limit", ("holder", "after"))):
    id: int
    limit: int
    holder: int
    after: int


class OfSqlite(Row, table="sqlite_seats", key="id"):
    id: int


class LongNamed(Row, table="a" * 40, key="id", unique=("b" * 20,)):
    id: int


LongNamed.__annotations__["b" * 20] = str


class Wide(Row, table="wide", key="id"):
    id: int
    holder: str


class Typed(Command, type="seats.typed"):
    type: str  # type: ignore[misc]
    arguments: str  # type: ignore[assignment]
    place: Place
    name: Name = ""


class Spoken(Command, type="seats.say it"):
    pass


class Listed(Command, type="seats.listed", array_like=True):
    pass


def handles(function: Any, command: Any = BookSeat, **options: Any) -> dict[str, Any]:
    return {"handlers": (Handler(command, function, **options),)}


async def waits(work: UnitOfWork, command: BookSeat) -> None: ...


async def streams(work: UnitOfWork, command: BookSeat) -> AsyncIterator[None]:
    yield


def generates(work: UnitOfWork, command: BookSeat) -> Iterator[Seat]:
    yield Seat(id=1, code="A")


def one(command: BookSeat) -> None: ...


def three(work: UnitOfWork, command: BookSeat, more: int) -> None: ...


def named(work: UnitOfWork, *, command: BookSeat) -> None: ...


def other(work: UnitOfWork, command: AddSeat) -> None: ...


def turned(command: BookSeat, work: UnitOfWork) -> None: ...


def silent(work: UnitOfWork, command: BookSeat):  # type: ignore[no-untyped-def]
    ...


def misspelt(work: UnitOfWork, command: BookSeat) -> "Saet":  # type: ignore[name-defined]  # noqa: F821
    ...


class AsSeat(Struct):
    id: int


def several(work: UnitOfWork, command: BookSeat) -> Seat | AsSeat:
    raise NotImplementedError


class Called:
    async def __call__(self, work: UnitOfWork, command: BookSeat) -> None: ...


metadata = MetaData()
Table("wide", metadata, Column("id", BigInteger, primary_key=True), Column("name", String(9)))

WRONG: dict[str, dict[str, Any]] = {
    "UniqueText: unique is the text 'place', and must be a tuple of names: unique=(\"place\",)": {
        "models": (UniqueText,)
    },
    "UniquePair: unique=('place', ('hall', 'place')) has ('hall', 'place'), and each is the name of one column. Rows "
    "of which no two may have the same hall, place need index=(('hall', 'place'),), and a handler that asks "
    "work.exists(UniquePair, hall=…, place=…) before it adds one": {"models": (UniquePair,)},
    'UniqueNothing: unique=None is no tuple of names: write it as unique=("…",)': {"models": (UniqueNothing,)},
    "AuditedYes: audited='yes' says neither yes nor no: write audited=True": {"models": (AuditedYes,)},
    'ReviewText: review=\'needs_review\' is no column with a value: write it as review=("…", "…")': {
        "models": (ReviewText,)
    },
    "ReviewNowhere has no field state, by which a row is to need a review": {"models": (ReviewNowhere,)},
    "ReviewNever.status is never 'needs_reveiw', at which a row is to need a review": {"models": (ReviewNever,)},
    "ReviewEqualToNone.stage is never 'needs_review', at which a row is to need a review": {
        "models": (ReviewEqualToNone,)
    },
    "Typeless: name 'Nowhere' is not defined; its fields' types must be found in its module": {"models": (Typeless,)},
    "Wrong.place: JSON has no form for tests.unit.test_wrong_declarations.Place": {"models": (Wrong,)},
    "Wrong.price: Digits says how many digits a Decimal has, and this is none": {"models": (Wrong,)},
    "Wrong.long: Can only set `max_length` on a str": {"models": (Wrong,)},
    "Wrong: amount and Amount are one column": {"models": (Wrong,)},
    "Wrong.xmin: PostgreSQL has a column of that name in every table": {"models": (Wrong,)},
    "Wrong._id: MongoDB has a column of that name in every table": {"models": (Wrong,)},
    "Renamed: a row has a column of the same name for each field: leave out rename": {"models": (Renamed,)},
    "Changeable: a row is frozen": {"models": (Changeable,)},
    "Versioned.version: the unit of work counts it, so it is an int": {"models": (Versioned,)},
    "Spaced names no table": {"models": (Spaced,)},
    "tables seats and Seats have one name where the case of letters does not count": {"models": (Seat, Upper)},
    "Logged: command_log is a table of the lane's own": {"models": (Logged,)},
    "Counted: Counters is a table of the lane's own": {"models": (Counted,)},
    "Paged.limit: a selection has that name for something else": {"models": (Paged,)},
    "Paged.after: a selection has that name for something else": {"models": (Paged,)},
    "OfSqlite: SQLite keeps names that begin with sqlite_": {"models": (OfSqlite,)},
    f"LongNamed.{'b' * 20}: the constraint": {"models": (LongNamed,)},
    "Wide.holder has no column: the metadata of seats has a table wide with id, name: add the column": {
        "models": (Wide,),
        "metadata": metadata,
    },
    "Typed.type: a command has that name for something else": handles(book, Typed),
    "Typed.arguments: a command has that name for something else": handles(book, Typed),
    "Typed.place: JSON has no form for tests.unit.test_wrong_declarations.Place": handles(book, Typed),
    "Spoken: its type 'seats.say it' has other signs than letters": handles(book, Spoken),
    "Listed: a command is an object in JSON: leave out array_like": handles(book, Listed),
    "waits, the handler of BookSeat, is async": handles(waits),
    "streams, the handler of BookSeat, is async": handles(streams),
    "generates, the handler of BookSeat, has a yield": handles(generates),
    "one, the handler of BookSeat, is called with (work, command), and takes (command": handles(one),
    "three, the handler of BookSeat, is called with (work, command), and takes (work": handles(three),
    "named, the handler of BookSeat, is called with (work, command), and takes (work": handles(named),
    "other, the handler of BookSeat, takes a AddSeat": handles(other),
    "turned, the handler of BookSeat, takes the command first": handles(turned),
    "silent, the handler of BookSeat, does not say what it returns": handles(silent),
    "misspelt, the handler of BookSeat, has annotations that cannot be read: name 'Saet'": handles(misspelt),
    "several, the handler of BookSeat, returns what JSON does not hold: ": handles(several),
    "7, the handler of BookSeat, is 7, and no function": handles(7),
    "Visit: guest is personal, and nobody knows of whom: give its handler `of`, which names the row of the person": {
        "handlers": (Handler(Visit, visit),)
    },
    "`of` of BookSeat is called with (command), and takes (work, command)": handles(
        book, of=lambda work, command: Seat.at(command.id)
    ),
    "BookSeat: its of: Seat is found by 'id', 'code', and 'holder' is none of them: name it in `unique` of Seat": (
        handles(book, of=lambda command: Seat.at(holder=command.holder))
    ),
    "Personnel.personal_of: a row has that name for something else": {"models": (Personnel,)},
    "`target` of BookSeat is called with (command), and takes (work, command)": handles(
        book, target=lambda work, command: Seat.at(command.id)
    ),
    "`reads` of BookSeat is async": handles(book, reads=waits),
    "BookSeat: its target: Seat is found by 'id', 'code', and 'holder' is none of them: name it in `unique` of Seat": (
        handles(book, target=lambda command: Seat.at(holder=command.holder))
    ),
    "BookSeat: its reads: Seat is found by 'id', 'code', and 'hall' is none of them": handles(
        book, reads=lambda command: [Seat.at(command.id), Seat.at(hall="A")]
    ),
    "BookSeat: its target: Upper is no row of this service: declare it with its `row`": handles(
        book, target=lambda command: Upper.at(command.id)
    ),
    "BookSeat: its reads: Upper is no row of this service: declare it with its `row`": handles(
        book, reads=lambda command: [Seat.at(command.id), Upper.at(1), Upper.at(2)]
    ),
    "BookSeat: its reads returns one reference: return a list, as in [Seat.at(…)]": handles(
        book, reads=lambda command: Seat.at(command.id)
    ),
    "BookSeat: its target names an argument, and no row: write CLASS.at(…) of it": handles(
        book, target=lambda command: command.id
    ),
    "BookSeat: its reads names an argument, and no row: write CLASS.at(…) of it": handles(
        book, reads=lambda command: [Seat.at(command.id), command.id]
    ),
    "BookSeat: on_failure is 'parked', and must be one of park, park-key, block": handles(book, on_failure="parked"),
}


def said_of(service: Service) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        check_declaration(service)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize("defect", WRONG)
def test_a_wrong_declaration_is_named(defect: str) -> None:
    lines = said_of(seats.replace(**WRONG[defect]))
    assert sum(line.startswith(defect) for line in lines) == 1, lines


class MoveSeat(Command, type="seats.move"):
    """Names its rows itself."""

    id: int

    @property
    def seat(self) -> Ref[Seat]:
        return Seat.at(self.id)

    def rows(self) -> list[Ref[Seat]]:
        return [self.seat, Seat.at(self.id + 1)]


def test_a_command_may_name_its_rows_itself() -> None:
    def move(work: UnitOfWork, command: MoveSeat) -> None: ...

    handler = Handler(MoveSeat, move, target=lambda command: command.seat, reads=lambda command: command.rows())
    check_declaration(Service("seats", models=(Seat,), handlers=(handler,)))


def test_a_field_of_dataclasses_is_answered_with_that_of_msgspec() -> None:
    class Tagged(Row, table="tagged", key="id"):
        id: int
        tags: list[str] = dataclasses.field(default_factory=list)

    (line,) = said_of(Service("seats", models=(Tagged,)))
    assert line == "Tagged.tags: its default is a field of dataclasses: write msgspec.field(…)"


def test_a_column_that_no_selection_can_name_is_named_once() -> None:
    lines = said_of(Service("seats", models=(Paged,)))
    assert [line.partition(":")[0] for line in lines] == ["Paged.limit", "Paged.after"]


def test_what_looks_like_a_field_and_has_no_type_is_named_and_nothing_else() -> None:
    handlers = (Handler(UntypedCommand, lambda work, command: None),)
    lines = [line for line in said_of(Service("seats", models=(Untyped,), handlers=handlers)) if "no type" in line]
    assert [line.partition(", or ")[0] for line in lines] == [
        "Untyped.holder: it has no type, so it is no field: write holder: … | None = None",
        "Untyped.count: it has no type, so it is no field: write count: int = 3",
        "Untyped.place: it has no type, so it is no field: write place: Annotated[str, msgspec.Meta(max_length=9)]",
        "Untyped.hall: it has no type, so it is no field: write hall: str",
        "Untyped.tags: it has no type, so it is no field: write tags: … = msgspec.field(…)",
        "Noted.note: it has no type, so it is no field: write note: str = 'n'",
        "UntypedCommand.holder: it has no type, so it is no field: write holder: str = ''",
    ]
    assert lines[0].endswith(", or holder: ClassVar[…] = … for one value of the whole class")


class Defaults(Row, table="defaults", key="id"):
    id: int
    holder: str = None  # type: ignore[assignment]
    reference: UUID = field(default_factory=uuid4)
    made_at: datetime = field(default_factory=datetime.now)
    chance: float = field(default_factory=random.random)
    more: dict[str, int] = field(default_factory=dict)


class Ordered(Command, type="seats.ordered"):
    name: Name = ""


def ordered(work: UnitOfWork, command: Ordered) -> None: ...


def test_defaults_that_are_none_of_their_type_or_differ_each_time_are_named() -> None:
    lines = said_of(Service("seats", models=(Defaults,), handlers=(Handler(Ordered, ordered),)))
    assert [line.partition(":")[0] for line in lines] == [
        *("Defaults.holder", "Defaults.reference", "Defaults.made_at", "Defaults.chance", "Ordered.name")
    ]
    assert lines[0] == "Defaults.holder: its default None is none of its type: Expected `str`, got `null`"


@pytest.mark.parametrize("base", [Row, Command])
@pytest.mark.parametrize("default", [["a"], {"a": 1}, {"a"}])
def test_a_default_that_all_would_share_is_named_with_its_class_and_field(base: Any, default: Any) -> None:
    shown = re.escape(f"Tagged.tags: its default {default!r} would be one object for all of them: write tags = ")
    for given in (default, field(default=default)):
        with pytest.raises(TypeError, match=rf"^{shown}msgspec\.field\(default_factory=lambda: "):
            type(base)("Tagged", (base,), {"__annotations__": {"tags": Any}, "tags": given, "__module__": __name__})


@pytest.mark.parametrize(("base", "own"), [(Row, "table, key, unique, index, audited"), (Command, "type, version")])
def test_a_keyword_that_no_class_takes_is_answered_with_those_that_it_does(base: Any, own: str) -> None:
    with pytest.raises(TypeError, match=rf"^Tagged: it takes no 'indexes': it takes {own}.*, and what a Struct takes$"):
        type(base)("Tagged", (base,), {"__module__": __name__}, indexes=())


def test_a_class_that_cannot_be_made_is_named() -> None:
    meta: Any = type(Row)
    with pytest.raises(TypeError, match=r"^Tagged: .*colour"):
        meta("Tagged", (Row,), {"__annotations__": {"id": int}, "__module__": __name__}, colour="red")


def test_rules_of_rows_and_services_take_who_asks_alone() -> None:
    service = Service("seats", allow=lambda who, command: True)  # type: ignore[misc, arg-type]
    service.row(is_public=True, allow=lambda who, row: True)(Seat)  # type: ignore[misc, arg-type]
    text = "\n".join(defects_of(service))
    assert "`allow` of service seats is called with (who), and takes (who, command)" in text
    assert "`allow` of Seat is called with (who), and takes (who, row)" in text
    unknown = Service("seats", row_rules={Seat: lambda who: True})
    assert "Seat has an `allow`, and is no row of this service" in "\n".join(defects_of(unknown))


@pytest.mark.parametrize("scope", ["", "a b", "a,\u00e9", "a" * 101, ["a", "b"], None])
def test_a_rule_names_a_scope_that_there_can_be(scope: Any) -> None:
    with pytest.raises(ValueError, match="a scope is a text of 1 to 100 visible ASCII characters"):
        has_scope(scope)


@pytest.mark.parametrize(
    ("maker", "given"), [(has_scope, 'its scope, has_scope("staff")'), (any_of, "the rules, any_of(…, …)")]
)
def test_what_makes_a_rule_is_no_rule(maker: Any, given: str) -> None:
    text = f"{maker.__name__} itself, which makes a rule: give it {given}"
    assert defects_of(seats.replace(allow=maker)) == [f"`allow` of service seats is {text}"]
    rules = seats.replace(row_rules={Seat: maker})
    assert defects_of(rules) == [f"`allow` of Seat is {text}"]
    for allow, subject in (
        (maker, "`allow` of BookSeat"),
        (any_of(has_scope("staff"), maker), f"{maker.__name__}, in any_of of `allow` of BookSeat,"),
    ):
        handler = Handler(BookSeat, book, allow=allow)
        assert f"{subject} is {text}" in defects_of(seats.replace(handlers=(handler,)))


def test_what_is_sound_is_not_named() -> None:
    for service in (seats, *registry().services):
        check_declaration(service)


BROKEN = seats.replace(models=(Wrong,), **handles(waits))


@pytest.mark.parametrize("door", ["lane in memory", "simulate", "in process", "start"])
def test_every_door_says_all_of_it(door: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "")
    store = open_store(f"sqlite:///{tmp_path}/seats.db", seats)
    doors: dict[str, Callable[[], object]] = {
        "lane in memory": lambda: LaneInMemory(BROKEN),
        "simulate": lambda: simulate(BROKEN),
        "in process": lambda: InProcessWrites({"seats": store}, [BROKEN]),
        "start": lambda: registry().service("seats"),
    }
    use(f"{__name__}:BROKEN")
    with pytest.raises(ConfigurationError) as caught:
        doors[door]()
    text = str(caught.value)
    assert text.startswith("service seats is declared wrongly:\n  Wrong.")
    assert "Wrong.price: " in text
    assert "waits, the handler of BookSeat, is async" in text


def test_a_name_that_is_no_service_is_said_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "")
    use("tests.support.seats:Seat")
    with pytest.raises(ConfigurationError) as caught:
        registry()
    assert str(caught.value) == "'tests.support.seats:Seat' is the class Seat, and must be an App or a Service"
    use("tests.support.seats:book")
    with pytest.raises(ConfigurationError, match="is a function, and must be an App or a Service"):
        registry()
