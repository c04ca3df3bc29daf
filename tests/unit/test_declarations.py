"""Services that are declared by classes and decorators, and what is wrong with a declaration."""

import re
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from msgspec import Meta
from sqlalchemy import Column, MetaData, String, Table, create_engine, inspect, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateTable

from coordinator import (
    Command,
    ConfigurationError,
    Digits,
    Handler,
    InvalidCommand,
    Row,
    Service,
    UnitOfWork,
    VersionedRow,
)
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry, use
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.commands import parse
from coordinator.service.defects import defects_of
from coordinator.service.rows import text_columns
from coordinator.stores.sql.declared_tables import tables_of
from coordinator.stores.sqlite.store import SqliteStore
from coordinator.testing import LaneInMemory
from tests.support.seats import AddSeat, BookSeat, Seat, book, seats


def test_a_declared_service_applies_its_commands() -> None:
    lane = LaneInMemory(seats)
    lane.given(Seat(id=7, code="A7"))
    assert lane.apply(BookSeat(id=7, holder="ada")).result(Seat) == Seat(id=7, code="A7", holder="ada", version=2)
    assert lane.apply(BookSeat(id=7, holder="bob")).code == "taken"
    assert lane.apply(AddSeat(id=8, code="A7")).code == "seat_exists"
    assert lane.apply(BookSeat(id=9, holder="bob")).code == "seat_not_found"


def test_a_handler_stays_the_function_that_it_is() -> None:
    assert book.__name__ == "book"
    commands: list[type[Command]] = [AddSeat, BookSeat]
    assert [handler.command for handler in seats.handlers] == commands
    assert seats.models == (Seat,)


def test_rows_are_public_if_their_declaration_says_so() -> None:
    service = Service("odd")
    assert service.row(Odd) is Odd
    assert service.row(is_public=True)(Seat) is Seat
    assert (service.models, service.public_models) == ((Odd, Seat), (Seat,))
    assert service.replace(name="other").public_models == (Seat,)
    assert "Seat is public, and no row of this service" in defects_of(service.replace(models=(Odd,)))


def test_a_row_names_others_by_key_and_by_unique_column() -> None:
    assert (Seat.at(7).column, Seat.at(7).value) == ("id", 7)
    assert (Seat.at(code="A7").column, Seat.at(code="A7").value) == ("code", "A7")
    for wrong in ((), (None,)):
        with pytest.raises(TypeError, match=r"Seat\.at takes a key, or one unique column by its name"):
            Seat.at(*wrong)
    with pytest.raises(TypeError, match="takes a key, or one"):
        Seat.at(7, code="A7")


def test_rows_and_commands_are_frozen_and_take_names_only() -> None:
    seat = Seat(id=7, code="A7")
    with pytest.raises(AttributeError):
        seat.holder = "ada"  # type: ignore[misc]
    with pytest.raises(TypeError):
        BookSeat(7, "ada")  # type: ignore[call-arg]
    assert seat.replace(holder="ada") == Seat(id=7, code="A7", holder="ada")
    with pytest.raises(TypeError):
        seat.replace(owner="ada")


class Nothing(Row):
    id: int


class NoKey(Row, table="no_key"):
    id: int


class Elsewhere(Row, table="elsewhere", key="number", unique=("name", "tag", "size")):
    id: int
    tag: bytes
    size: int | None


class Optional(Row, table="optional", key="id"):
    id: int | None
    replace: str  # type: ignore[assignment]


class Same(Row, table="seats", key="id"):
    id: int


class Untyped(Command):
    pass


class OfAnother(Command, type="shop.order"):
    pass


class BookAgain(Command, type="seats.book"):
    pass


def nothing(work: UnitOfWork, command: Any) -> None:
    """Does nothing."""


DEFECTS: dict[str, dict[str, Any]] = {
    "Nothing names no table": {"models": (Nothing,)},
    "Nothing names no key": {"models": (Nothing,)},
    "NoKey names no key": {"models": (NoKey,)},
    "Elsewhere has no field number, which is to be its key": {"models": (Elsewhere,)},
    "Elsewhere has no field name, which is to be its unique column": {"models": (Elsewhere,)},
    "Elsewhere.tag: a unique column is an int, a str or a UUID": {"models": (Elsewhere,)},
    "Optional.id: a key is never None": {"models": (Optional,)},
    "Optional.replace: a row has that name for something else": {"models": (Optional,)},
    "Same and Seat are rows of one table, seats": {"models": (Seat, Same)},
    "Seat is declared as a row 2 times": {"models": (Seat, Seat)},
    "<class 'int'> is no class of rows": {"models": (int,)},
    "nothing handles <class 'int'>, which is no class of commands": {"handlers": (Handler(int, nothing),)},  # type: ignore[type-var]
    "Untyped has no type": {"handlers": (Handler(Untyped, nothing),)},
    "OfAnother: its type is 'shop.order', and must begin with seats.": {"handlers": (Handler(OfAnother, nothing),)},
    "seats.book has two handlers, book and nothing: BookSeat and BookAgain have the same type, give one": {
        "handlers": (Handler(BookSeat, book), Handler(BookAgain, nothing))
    },
    "the name 'Seats!' is not lower-case": {"name": "Seats!"},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named(defect: str) -> None:
    assert any(line.startswith(defect) for line in defects_of(seats.replace(**DEFECTS[defect])))


def test_a_sound_declaration_has_no_defect() -> None:
    assert defects_of(seats) == []


BROKEN = seats.replace(models=(Nothing, Elsewhere), handlers=(Handler(Untyped, nothing), Handler(OfAnother, nothing)))


def test_a_start_names_all_defects_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", f"{__name__}:BROKEN")
    with pytest.raises(ConfigurationError) as caught:
        registry().service("seats")
    lines = str(caught.value).splitlines()
    assert lines[0] == "service seats is declared wrongly:"
    assert len(lines) == 1 + len(defects_of(BROKEN)) >= 7


def test_what_cannot_be_imported_is_said_to_come_from_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "elsewhere.app:APP")
    with pytest.raises(ConfigurationError, match=r"^COORDINATOR_APP: 'elsewhere\.app:APP' is no module:NAME"):
        registry()
    use("nowhere.app:APP")
    with pytest.raises(ConfigurationError, match=r"^'nowhere\.app:APP' is no module:NAME"):
        registry()


def test_a_service_is_an_application_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "")
    use("tests.support.seats:seats")
    assert registry().names == ("seats",)
    assert registry().service("seats") is seats
    use("tests.support.seats:Seat")
    with pytest.raises(ConfigurationError, match="is the class Seat, and must be an App or a Service"):
        registry()


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 1


class Every(VersionedRow, table="every", key="id", unique=("code", "number")):
    id: str
    code: Annotated[str, Meta(max_length=10)] | None
    number: int | None
    text: str
    wide: Annotated[str, Meta(max_length=100_000)]
    kind: Literal["a", "b"]
    data: bytes | None
    at_time: datetime
    flag: bool
    ratio: float
    price: Annotated[Decimal, Digits(12, 2)]
    amount: Decimal | None
    day: date
    hour: time | None
    span: timedelta
    reference: UUID
    colour: Colour
    size: Size | None
    document: dict[str, Any]
    tags: list[str] | None


EVERY = Service("every", models=(Every,))


@pytest.mark.parametrize(
    ("dialect", "columns"),
    [
        (
            postgresql.dialect(),  # type: ignore[no-untyped-call]
            [
                "version BIGINT NOT NULL",
                'id VARCHAR(255) COLLATE "C" NOT NULL',
                'code VARCHAR(10) COLLATE "C"',
                "number BIGINT",
                "text TEXT NOT NULL",
                "wide TEXT NOT NULL",
                'kind VARCHAR(255) COLLATE "C" NOT NULL',
                "data BYTEA",
                "at_time TIMESTAMP WITH TIME ZONE NOT NULL",
                "flag BOOLEAN NOT NULL",
                "ratio DOUBLE PRECISION NOT NULL",
                "price NUMERIC(12, 2) NOT NULL",
                "amount NUMERIC(34, 10)",
                "day DATE NOT NULL",
                "hour TIME WITHOUT TIME ZONE",
                "span BIGINT NOT NULL",
                "reference UUID NOT NULL",
                'colour VARCHAR(255) COLLATE "C" NOT NULL',
                "size BIGINT",
                "document JSON NOT NULL",
                "tags JSON",
            ],
        ),
        (
            mysql.dialect(),
            [
                "version BIGINT NOT NULL",
                "id VARCHAR(255) COLLATE utf8mb4_bin NOT NULL",
                "code VARCHAR(10) COLLATE utf8mb4_bin",
                "number BIGINT",
                "text LONGTEXT COLLATE utf8mb4_bin NOT NULL",
                "wide LONGTEXT COLLATE utf8mb4_bin NOT NULL",
                "kind VARCHAR(255) COLLATE utf8mb4_bin NOT NULL",
                "data LONGBLOB",
                "at_time DATETIME(3) NOT NULL",
                "flag BOOL NOT NULL",
                "ratio DOUBLE NOT NULL",
                "price NUMERIC(12, 2) NOT NULL",
                "amount NUMERIC(34, 10)",
                "day DATE NOT NULL",
                "hour TIME(6)",
                "span BIGINT NOT NULL",
                "reference CHAR(32) NOT NULL",
                "colour VARCHAR(255) COLLATE utf8mb4_bin NOT NULL",
                "size BIGINT",
                "document LONGTEXT COLLATE utf8mb4_bin NOT NULL",
                "tags LONGTEXT COLLATE utf8mb4_bin",
            ],
        ),
        (
            sqlite.dialect(),
            [
                "version BIGINT NOT NULL",
                "id VARCHAR(255) NOT NULL",
                "code VARCHAR(10)",
                "number BIGINT",
                "text TEXT NOT NULL",
                "wide TEXT NOT NULL",
                "kind VARCHAR(255) NOT NULL",
                "data BLOB",
                "at_time DATETIME NOT NULL",
                "flag BOOLEAN NOT NULL",
                "ratio DOUBLE NOT NULL",
                "price VARCHAR(15) NOT NULL",
                "amount VARCHAR(37)",
                "day DATE NOT NULL",
                "hour TIME",
                "span BIGINT NOT NULL",
                "reference CHAR(32) NOT NULL",
                "colour VARCHAR(255) NOT NULL",
                "size BIGINT",
                "document TEXT NOT NULL",
                "tags TEXT",
            ],
        ),
    ],
)
def test_a_class_makes_its_table(dialect: Any, columns: list[str]) -> None:
    made = str(CreateTable(tables_of(EVERY).tables["every"]).compile(dialect=dialect))
    plain = re.sub(r'(?<!COLLATE )["`](\w+)["`]', r"\1", made)
    declared = [line.strip().rstrip(",") for line in plain.splitlines()]
    assert [line for line in declared if line.split(" ")[0] in Every.__struct_fields__] == columns
    assert "PRIMARY KEY (id)" in declared
    assert {"CONSTRAINT every_code_unique UNIQUE (code)", "CONSTRAINT every_number_unique UNIQUE (number)"} <= set(
        declared
    )


class Odd(Row, table="odd", key="id"):
    id: int
    parts: complex


def test_a_type_without_a_column_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"Odd\.parts: a row cannot hold complex"):
        tables_of(Service("odd", models=(Odd,)))


def test_a_table_of_its_own_comes_before_the_class() -> None:
    metadata = MetaData()
    Table("seats", metadata, Column("id", String(5), primary_key=True))
    tables = tables_of(seats.replace(metadata=metadata))
    assert list(tables.tables) == ["seats"]
    columns = tables.tables["seats"].columns
    assert isinstance(columns["id"].type, String)
    # What it lacks is declared as the class says.
    assert set(columns.keys()) == set(Seat.__struct_fields__)


def test_migrate_makes_the_declared_tables_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/seats.db"
    for _ in range(2):
        migrate(seats, DatabaseSettings(database_url=url))
    engine = create_engine(url)
    names = {column["name"] for column in inspect(engine).get_columns("seats")}
    assert names == set(Seat.__struct_fields__)
    engine.dispose()


@pytest.mark.parametrize("setting", ["migration_url", "reader_url"])
def test_migrate_refuses_addresses_of_two_databases_of_one_server(setting: str) -> None:
    urls = {"database_url": "mysql://lane:l@127.0.0.1:9/seats", setting: "mysql://other:o@127.0.0.1:9/stalls"}
    text = (
        rf"SEATS_{setting.upper()}: it names the database 'stalls', and SEATS_DATABASE_URL 'seats' of the same server"
    )
    with pytest.raises(ConfigurationError, match=text):
        migrate(seats, DatabaseSettings(**urls))


def test_migrate_refuses_a_table_that_lacks_columns_and_says_how_to_add_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/seats.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE seats (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)"))
    with pytest.raises(ConfigurationError) as caught:
        migrate(seats, DatabaseSettings(database_url=url))
    assert 'ALTER TABLE "seats" ADD COLUMN "code" VARCHAR(10) NOT NULL;' in str(caught.value)
    assert 'ALTER TABLE "seats" ADD COLUMN "holder" TEXT;' in str(caught.value)
    assert f"by hand, in the file {tmp_path}/seats.db: \n" in str(caught.value)
    assert "docs/" not in str(caught.value)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM seats")).scalar() == 0
    engine.dispose()


def test_what_migrate_prints_adds_the_column(tmp_path: Path) -> None:
    class Ticket(VersionedRow, table="Order", key="id"):
        id: int
        price: Annotated[Decimal, Digits(12, 2)] = Decimal("1.50")
        label: str = "it's"
        is_paid: bool = False
        day: date = date(2026, 1, 31)

    url = f"sqlite:///{tmp_path}/seats.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text('CREATE TABLE "Order" (id BIGINT PRIMARY KEY)'))
        connection.execute(text('INSERT INTO "Order" VALUES (7)'))
    service = Service("tickets", models=(Ticket,))
    with pytest.raises(ConfigurationError) as caught:
        migrate(service, DatabaseSettings(database_url=url))
    statements = [line for line in str(caught.value).splitlines() if line.startswith("ALTER")]
    assert len(statements) == 5
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    migrate(service, DatabaseSettings(database_url=url))
    with closing(SqliteStore(f"{tmp_path}/seats.db", service)) as store:
        transaction = store.begin()
        assert transaction.scan(Ticket, 10) == [Ticket(id=7)]
        transaction.rollback()
    engine.dispose()


def test_the_command_line_takes_a_service(tmp_path: Path) -> None:
    environment = {"SEATS_DATABASE_URL": f"sqlite:///{tmp_path}/seats.db", "PATH": "/usr/bin:/bin"}
    program = [sys.executable, "-m", "coordinator", "--app", "tests.support.seats:seats", "migrate", "seats"]
    run = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr


def test_a_description_hides_no_type() -> None:
    class Described(Row, table="described", key="id"):
        id: int
        code: Annotated[str, Meta(max_length=10, description="what it is called")]
        note: Annotated[str, Meta(description="what is said of it")] | None = None

    class Paint(Command, type="seats.paint"):
        colour: Annotated[Literal["red", "blue"], Meta(description="of the seat")]

    assert text_columns(Described) == ("code", "note")
    with pytest.raises(InvalidCommand, match="there are blue, red"):
        parse(Paint, b'{"colour": "green"}')
