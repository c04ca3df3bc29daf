"""What every database promises of a row that somebody else has spoiled: it is a fault of that row, and of no other."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Protocol

import msgspec
import pytest

from coordinator import Command, Digits, Row, Service, UnitOfWork
from coordinator.client.repository import open_repository
from coordinator.reading import UnreadableRow, close_database, open_database
from coordinator.stores.lane_tables import DeadLetter
from coordinator.stores.port import RowFault, Store
from tests.support.lane_contract import LaneUnderTest, codes
from tests.support.store_contract import NOW, changes, commit
from tests.support.value_contract import loaded

ODD = Service("odd")
RAISED = "raised "
"""What follows it in a name is what its row raises where it is read."""
DEEP_JSON = f"""'{{"a": {"[" * 1200}{"]" * 1200}}}'"""
"""JSON with more levels than a decoder takes."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def recurse() -> None:
    recurse()


ERRORS: Mapping[str, type[BaseException]] = {
    each.__name__: each
    for each in (
        ValueError,
        KeyError,
        RecursionError,
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        Unprintable,
    )
}


@ODD.row(is_public=True)
class Thing(Row, table="things", key="id"):
    id: int
    name: str
    number: int
    price: Annotated[Decimal, Digits(12, 2)]
    day: date
    hour: time
    seen: datetime
    ratio: float
    note: dict[str, Any]
    exact: dict[str, Decimal] = {}  # noqa: RUF012  # a row has its own
    remark: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.name.startswith(RAISED):
            error = ERRORS[self.name.removeprefix(RAISED)]
            if error is RecursionError:
                recurse()
            raise error("secret")


class Touch(Command, type="odd.touch"):
    """Names its row before it is applied."""

    id: int


class Find(Command, type="odd.find"):
    """Asks for its row in its handler only."""

    id: int


class Number(Command, type="odd.number"):
    """Adds the next one."""


@ODD.handles(Number)
def number(work: UnitOfWork, command: Number) -> Thing:
    return work.add(thing(work.next_id(Thing)))


@ODD.handles(Touch, target=lambda command: Thing.at(command.id))
def touch(work: UnitOfWork, command: Touch) -> Thing:
    thing = work.get(Thing, command.id)
    assert thing is not None
    return work.save(msgspec.structs.replace(thing, number=thing.number + 1))


@ODD.handles(Find)
def find(work: UnitOfWork, command: Find) -> None:
    work.get(Thing, command.id)


def thing(number: int) -> Thing:
    return Thing(
        id=number,
        name="secret",
        number=7,
        price=Decimal("1.50"),
        day=date(2026, 1, 2),
        hour=time(3, 4),
        seen=datetime(2026, 1, 2, tzinfo=UTC),
        ratio=0.5,
        note={"a": 1},
    )


class Spoiled(Protocol):
    """A database of ODD with things 1, 2 and 3."""

    url: str

    def spoil(self, column: str, value: Any) -> None:
        """Write it into the second row: an SQL expression, or a value of MongoDB's."""

    def open_store(self) -> Store: ...


class UnreadableContract:
    spoils: Sequence[tuple[str, Any]]
    """By column."""
    json_null: Any = "'null'"
    json_texts: Sequence[tuple[str, Any]] = (
        ("note", DEEP_JSON),
        *(
            (column, f"""'{{"a": {number}{more}}}'""")
            for column in ("note", "exact")
            for number in (
                "1",
                "0.10",
                "-0.0",
                "1e2",
                "1e400",
                "NaN",
                "Infinity",
                "9007199254740993.0",
                str(2**70),
                '"0.1"',
            )
            for more in ("", ', "a": 3')
        ),
    )

    @pytest.fixture
    def filled(self, spoiled: Spoiled) -> Spoiled:
        store = spoiled.open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=[thing(number) for number in (1, 2, 3)]))
        return spoiled

    def test_a_command_that_needs_it_fails_and_no_other_does(self, filled: Spoiled) -> None:
        lane = LaneUnderTest(filled.open_store(), "lane", ODD)
        for column, value in self.spoils:
            filled.spoil(column, value)
            outcomes = lane.do(Touch(id=1), Touch(id=2), Find(id=2), Touch(id=3), Find(id=1))
            assert codes(outcomes) == ["applied", "row_unreadable", "row_unreadable", "applied", "applied"], column
            for outcome in outcomes[1:3]:
                assert outcome.error is not None
                assert outcome.error.message.startswith("a row that it needs is none of its class: operators find")
                assert "things" not in outcome.error.message
            (letter, _) = lane.rows(DeadLetter)[-2:]
            assert letter.reason.startswith(f"the row 2 of things cannot be read as its class: column {column} holds")
            assert "secret" not in letter.reason
            self._mend(filled, column)
        assert codes(lane.do(Touch(id=2))) == ["applied"], "once it is mended"

    def test_rows_are_numbered_above_it(self, filled: Spoiled) -> None:
        store = filled.open_store()
        commit(store, store.take_over("next", NOW), changes(deletes=[thing(3)]))
        filled.spoil(*self.spoils[-1])
        lane = LaneUnderTest(store, "lane", ODD)
        assert codes(lane.do(Number(), Number())) == ["applied", "applied"]
        assert [loaded(store, Thing, "id", number)[0].id for number in (3, 4)] == [3, 4]

    def test_a_gateway_reads_the_others_and_names_it(self, filled: Spoiled) -> None:
        for column, value in self.spoils:
            filled.spoil(column, value)
            asyncio.run(self._read(filled, column))
            self._mend(filled, column)

    async def _read(self, filled: Spoiled, column: str | None) -> None:
        database = open_database(filled.url)
        try:
            things: Any = open_repository(database, ODD, Thing)
            assert await things.get(1) is not None
            for limit in (None, 50, 1):
                with pytest.raises(UnreadableRow) as raised:
                    await (things.get(2) if limit is None else things.page(1, limit))
                error = raised.value
                assert (error.table, error.key, error.column) == ("things", 2, column)
                assert "secret" not in str(error)
            assert error.next == 2
            for limit in (1, 50):
                page = await things.page(None, limit)
                assert ([each.id for each in page.items], page.next) == ([1], 1), "up to it"
                rest = await things.page(2, limit)
                assert ([each.id for each in rest.items], rest.next) == ([3], None), "and behind it"
        finally:
            await close_database(database)

    @pytest.mark.parametrize("name", ERRORS)
    def test_whatever_its_class_raises_is_its_fault(self, filled: Spoiled, name: str) -> None:
        filled.spoil("name", self.mended("name", f"'{RAISED}{name}'"))
        lane = LaneUnderTest(filled.open_store(), "lane", ODD)
        for _ in range(2):
            outcomes = lane.do(Touch(id=1), Touch(id=2), Find(id=2), Touch(id=3))
            assert codes(outcomes) == ["applied", "row_unreadable", "row_unreadable", "applied"]
        (letter,) = lane.rows(DeadLetter)[-1:]
        assert letter.reason.startswith("the row 2 of things cannot be read as its class")
        assert "secret" not in letter.reason
        asyncio.run(self._read(filled, None))

    def test_a_long_list_ends_before_it_and_goes_on_behind_it(self, filled: Spoiled) -> None:
        store = filled.open_store()
        more = [thing(number) for number in (*range(-30, 1), *range(4, 42))]
        commit(store, store.take_over("next", NOW), changes(inserts=more))
        filled.spoil(*self.spoils[0])
        database = open_database(filled.url)

        async def read() -> list[tuple[list[int], Any]]:
            things: Any = open_repository(database, ODD, Thing)
            try:
                pages = [await things.page(after, limit) for after, limit in ((None, 200), (2, 20), (2, 200))]
                return [([each.id for each in page.items], page.next) for page in pages]
            finally:
                await close_database(database)

        first, some, rest = asyncio.run(read())
        assert first == ([*range(-30, 2)], 1)
        assert some == ([*range(3, 23)], 22)
        assert rest == ([*range(3, 42)], None)

    def test_json_of_others_is_read_alike_by_lanes_and_gateways(self, filled: Spoiled) -> None:
        store = filled.open_store()
        for column, value in self.json_texts:
            filled.spoil(column, value)
            try:
                of_lane = repr(*loaded(store, Thing, "id", 2))
            except RowFault as error:
                of_lane = str(error)
            assert asyncio.run(self._read_second(filled)) == of_lane, value
            self._mend(filled, column)

    def test_json_null_of_others_is_no_value(self, filled: Spoiled) -> None:
        """SQLAlchemy's JSON writes it for None."""
        store = filled.open_store()
        for column in ("exact", "remark"):
            filled.spoil(column, self.json_null)
        (of_lane,) = loaded(store, Thing, "id", 2)
        assert (of_lane.exact, of_lane.remark) == ({}, None)
        assert asyncio.run(self._read_second(filled)) == repr(of_lane)
        assert codes(LaneUnderTest(store, "lane", ODD).do(Touch(id=2))) == ["applied"]

    def test_json_null_is_none_of_the_values_of_a_field_that_needs_one(self, filled: Spoiled) -> None:
        filled.spoil("remark", self.json_null)
        filled.spoil("note", self.json_null)
        with pytest.raises(RowFault, match="column note holds") as caught:
            loaded(filled.open_store(), Thing, "id", 2)
        assert caught.value.key == 2

    async def _read_second(self, filled: Spoiled) -> str:
        database = open_database(filled.url)
        try:
            things: Any = open_repository(database, ODD, Thing)
            return repr(await things.get(2))
        except UnreadableRow as error:
            return str(error)
        finally:
            await close_database(database)

    def _mend(self, filled: Spoiled, column: str) -> None:
        sound = {
            "name": "'mended'",
            "number": "7",
            "price": "'1.50'",
            "day": "'2026-01-02'",
            "hour": "'03:04:00'",
            "seen": "'2026-01-02 00:00:00'",
            "ratio": "0.5",
            "note": """'{"a": 1}'""",
            "exact": "'{}'",
        }
        filled.spoil(column, self.mended(column, sound[column]))

    def mended(self, column: str, expression: str) -> Any:
        """What `spoil` takes for an SQL expression of a sound value."""
        return expression
