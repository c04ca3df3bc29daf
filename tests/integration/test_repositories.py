"""Rows by their keys, from each kind of database: what is asked for is found, and nothing else."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest

from coordinator.client.database import close_database, open_database
from coordinator.client.repository import Repository, open_repository
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Digits, Row, VersionedRow
from coordinator.service.service import Service
from coordinator.stores.kinds import Database
from coordinator.stores.open import open_store
from coordinator.stores.row_checks import InvalidRow
from tests.support.databases import FreshDatabases
from tests.support.store_contract import NOW, changes, commit

CINEMA = Service("cinema")


@CINEMA.row
class Film(Row, table="films", key="title"):
    title: str
    minutes: int | None = None


@CINEMA.row
class Hall(VersionedRow, table="halls", key="id"):
    id: int
    name: str


class Colour(Enum):
    RED = "red"
    RED2 = "RED"


class Level(IntEnum):
    LOW = -1
    HIGH = 2**53 - 1


@CINEMA.row
class Odd(
    Row,
    table="odds",
    key="id",
    unique=("code",),
    index=("name", "state", "day", "price", "seen", "is_open", "colour", "level", "count", "maybe"),
):
    """Of each type by which rows are asked for."""

    id: int
    code: UUID
    name: str
    state: Literal["open", "shut", "open "]
    day: date
    price: Annotated[Decimal, Digits(12, 2)]
    seen: datetime
    is_open: bool
    colour: Colour
    level: Level
    count: int
    maybe: str | None


def odd(number: int, **changes: Any) -> Odd:
    """The first one and the second one differ in each column."""
    first = number == 1
    row = Odd(
        id=number,
        code=UUID(int=number),
        name="a" if first else "a b",
        state="open" if first else "shut",
        day=date(1000, 1, 1) if first else date(9999, 12, 31),
        price=Decimal("-0.01") if first else Decimal("9999999999.99"),
        seen=datetime(1000, 1, 1, tzinfo=UTC) if first else datetime(2026, 11, 27, 1, 2, 3, 456_000, tzinfo=UTC),
        is_open=first,
        colour=Colour.RED if first else Colour.RED2,
        level=Level.LOW if first else Level.HIGH,
        count=-(2**63) if first else 2**63 - 1,
        maybe=None if first else "A",
    )
    return row.replace(**changes)


IDS = (-(2**63), -1, 0, 1, 2**53, 2**63 - 1)
PRINTED = ("", "%41", "A", "a", "a b", "a/b", "é", "e\u0301", "\U0001f3ac", "10", "9", "{}", "'; --", "\\")
TITLES = (*PRINTED, "\n")


@pytest.fixture(
    params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL", ""],
    ids=["PostgreSQL", "MySQL", "MongoDB", "SQLite"],
)
async def database(
    request: pytest.FixtureRequest, databases: FreshDatabases, tmp_path: Path
) -> AsyncIterator[Database]:
    url = databases.new(request.param) if request.param else f"sqlite:///{tmp_path}/cinema.sqlite"
    migrate(CINEMA, DatabaseSettings(database_url=url))
    with closing(open_store(url, CINEMA)) as store:
        rows = (
            [Film(title=title) for title in TITLES],
            [Hall(id=number, name="hall") for number in IDS],
            [odd(1), odd(2)],
        )
        commit(store, store.take_over("holder", NOW), changes(inserts=[row for each in rows for row in each]))
    opened = open_database(url)
    yield opened
    await close_database(opened)


async def walked(repository: Repository[Any], limit: int) -> list[Any]:
    """The keys of all pages."""
    keys: list[Any] = []
    after = None
    while True:
        page = await repository.page(after, limit)
        keys += [getattr(row, row.key) for row in page.items]
        if page.next is None:
            return keys
        after = page.next


async def found(repository: Repository[Any], keys: Iterable[Any]) -> list[Any]:
    return [row for key in keys if (row := await repository.get(key)) is not None]


async def test_every_row_is_found_by_its_key_alone(database: Database) -> None:
    films, halls = open_repository(database, CINEMA, Film), open_repository(database, CINEMA, Hall)
    assert await found(films, TITLES) == [Film(title=title) for title in TITLES]
    assert await found(halls, IDS) == [Hall(id=number, name="hall") for number in IDS], [odd(1), odd(2)]
    other = ("a ", " ", "E\u0301", "Á", "A" * 100_000, "a\0", "\ud800", "\U0001f3ad", "%", "_", b"a", 9, None, True)
    assert await found(films, other) == []
    assert await found(halls, (2, 2**63, -(2**63) - 1, 10**30, "1", 1.0, True, None, {"$gt": 0})) == []


@pytest.mark.parametrize("limit", [1, 4, 200])
async def test_pages_have_every_row_once_and_in_the_order_of_python(database: Database, limit: int) -> None:
    titles = await walked(open_repository(database, CINEMA, Film), limit)
    # MySQL and MariaDB put a control character before the end of a text.
    titles.remove("\n")
    assert titles == sorted(PRINTED)
    assert await walked(open_repository(database, CINEMA, Hall), limit) == list(IDS)


async def test_a_page_begins_behind_a_key_that_need_not_be_there(database: Database) -> None:
    films = open_repository(database, CINEMA, Film)
    page = await films.page("a c", 2)
    assert [row.title for row in page.items] == ["a/b", "e\u0301"]
    for before, after in pairwise(sorted(PRINTED)[1:]):
        assert [row.title for row in (await films.page(before, 1)).items] == [after]


async def test_a_page_behind_a_key_that_no_row_can_have_is_refused(database: Database) -> None:
    films, halls = open_repository(database, CINEMA, Film), open_repository(database, CINEMA, Hall)
    for repository, after in ((films, "a\0"), (films, "\ud800"), (films, 7), (halls, 2**63), (halls, "1")):
        with pytest.raises(InvalidRow):
            await repository.page(after, 1)


COLUMNS = [name for name in Odd.__struct_fields__ if name != "id"]


@pytest.mark.parametrize("column", COLUMNS)
async def test_rows_are_found_by_the_value_of_a_column(database: Database, column: str) -> None:
    odds = open_repository(database, CINEMA, Odd)
    for number in (1, 2):
        page = await odds.page(None, 9, {column: getattr(odd(number), column)})
        assert (page.items, page.next) == ([odd(number)], None)
    assert (await odds.page(1, 9, {column: getattr(odd(1), column)})).items == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("name", name) for name in ("a ", "A", "", "a\0", "\ud800", "á")),
        *(("maybe", maybe) for maybe in ("a", "A ", "null")),
        ("price", Decimal("0.001")),
        ("price", Decimal(10) ** 40),
        ("count", 2**63),
        ("count", 0),
        ("state", "open "),
        ("seen", datetime(2026, 11, 27, 1, 2, 3, 456_001, tzinfo=UTC)),
    ],
)
async def test_a_value_that_no_row_has_finds_none(database: Database, column: str, value: Any) -> None:
    page = await open_repository(database, CINEMA, Odd).page(None, 9, {column: value})
    assert (page.items, page.next) == ([], None)


async def test_rows_meet_every_condition(database: Database) -> None:
    odds = open_repository(database, CINEMA, Odd)

    async def ids(*where: Mapping[str, Any]) -> list[int]:
        return [row.id for row in (await odds.page(None, 9, *where)).items]

    assert await ids({}, {}) == [1, 2]
    assert await ids({"name": "a"}, {"state": "open"}) == [1]
    assert await ids({"name": "a"}, {"state": "shut"}) == []
    assert await ids({"name": "a"}, {"name": "a"}) == [1]
    assert await ids({"name": "a"}, {"name": "a b"}) == []
    assert await ids({}, {"id": 2}, {"code": UUID(int=2)}) == [2]
    assert (await odds.page(1, 9, {"name": "a"}, {"id": 1})).items == []


@pytest.mark.parametrize(
    ("column", "value"),
    [("state", "other"), ("count", "0"), ("name", 7), ("colour", "red"), ("seen", datetime(2026, 11, 27))],  # noqa: DTZ001
)
async def test_what_is_no_value_of_a_column_is_refused(database: Database, column: str, value: Any) -> None:
    with pytest.raises(InvalidRow, match=f"odds.{column}: "):
        await open_repository(database, CINEMA, Odd).page(None, 9, {column: value})


async def test_a_column_without_an_index_is_refused(database: Database) -> None:
    with pytest.raises(TypeError, match="no index that begins with minutes"):
        await open_repository(database, CINEMA, Film).page(None, 9, {"minutes": 7})
