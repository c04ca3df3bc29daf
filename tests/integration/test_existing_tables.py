"""Services on tables that they have: what fits is found at the start, on each kind of SQL database."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import new_class
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import pytest
from msgspec import Meta
from sqlalchemy import (
    CHAR,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Time,
    Uuid,
    inspect,
    text,
)
from sqlalchemy import Enum as EnumColumn
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine
from structlog.testing import capture_logs

from coordinator import Command, Digits, Row, Service, UnitOfWork, VersionedRow
from coordinator.client.database import close_database, open_database
from coordinator.client.repository import open_repository
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import kind_of
from coordinator.stores.open import open_store
from coordinator.stores.row_checks import InvalidRow
from coordinator.testing.lane import LaneUnderTest
from tests.support.databases import FreshDatabases, sql_engine

pytestmark = pytest.mark.upgrades

FITTING = {
    "postgresql": """
        CREATE TABLE guests (
            id SERIAL PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE, balance NUMERIC(14, 4), seen_at TIMESTAMPTZ,
            is_member BOOLEAN NOT NULL, data BYTEA, rating DOUBLE PRECISION, notes TEXT,
            mood INTEGER DEFAULT 3 NOT NULL, version BIGINT
        )
    """,
    "mysql": """
        CREATE TABLE guests (
            id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50) NOT NULL UNIQUE, balance DECIMAL(14, 4),
            seen_at DATETIME(6), is_member TINYINT(1) NOT NULL, data LONGBLOB, rating DOUBLE, notes TEXT,
            mood INTEGER DEFAULT 3 NOT NULL, version BIGINT
        ) COLLATE utf8mb4_bin
    """,
    "sqlite": """
        CREATE TABLE guests (
            id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE, balance TEXT, seen_at DATETIME,
            is_member BOOLEAN NOT NULL, data BLOB, rating DOUBLE, notes TEXT, mood INTEGER DEFAULT 3 NOT NULL,
            version BIGINT
        )
    """,
}
WRONG = {
    "postgresql": """
        CREATE TABLE guests (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name VARCHAR(10), balance NUMERIC(9, 1),
            seen_at TIMESTAMP NOT NULL, is_member INTEGER NOT NULL, data TEXT, rating REAL, notes TEXT,
            mood INTEGER NOT NULL, version BIGINT
        )
    """,
    "mysql": """
        CREATE TABLE guests (
            id BIGINT PRIMARY KEY, name VARCHAR(10), balance DECIMAL(9, 1), seen_at DATETIME NOT NULL,
            is_member DATE NOT NULL, data TEXT, rating FLOAT, notes TEXT, mood INTEGER NOT NULL, version BIGINT
        ) COLLATE utf8mb4_bin
    """,
    "sqlite": """
        CREATE TABLE guests (
            id BIGINT PRIMARY KEY, name VARCHAR(10), balance DECIMAL(9, 1), seen_at DATETIME NOT NULL,
            is_member FLOAT NOT NULL, data TEXT, rating FLOAT, notes TEXT, mood INTEGER NOT NULL, version BIGINT
        )
    """,
}
DIFFERENCES = {
    "postgresql": [
        "guests.id is GENERATED ALWAYS",
        "guests.name is VARCHAR(10), with 10 characters, and a row may have 50",
        "guests.name may be NULL",
        "guests.balance is NUMERIC(9, 1), and a row may have 12 digits, 2 of them after the point",
        "guests.seen_at is TIMESTAMP WITHOUT TIME ZONE",
        "guests.seen_at is NOT NULL",
        "guests.is_member is INTEGER",
        "guests.data is TEXT, which has texts, and bytes are kept there",
        "guests.rating is REAL, with 24 bits",
    ],
    "mysql": [
        "guests.name is VARCHAR(10), with 10 characters, and a row may have 50",
        "guests.name may be NULL",
        "guests.balance is DECIMAL(9, 1), and a row may have 12 digits, 2 of them after the point",
        "guests.seen_at is DATETIME, and takes 0 of 3 digits of a second",
        "guests.seen_at is NOT NULL",
        "guests.is_member is DATE",
        "guests.data is TEXT, which has texts, and bytes are kept there",
        "guests.rating is FLOAT, with 24 bits",
    ],
    "sqlite": [
        "guests.name may be NULL",
        "guests.balance is DECIMAL(9, 1), which has decimals, and texts are kept there",
        "guests.seen_at is NOT NULL",
        "guests.is_member is FLOAT",
        "guests.data is TEXT, which has texts, and bytes are kept there",
    ],
}
EVERYWHERE = ["guests.mood is NOT NULL and has no default", "guests.name is not unique: CREATE UNIQUE INDEX"]

guests_metadata = MetaData()
GUESTS = Table(
    "guests",
    guests_metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False, unique=True),
)


class Guest(VersionedRow, table=GUESTS, key="id", unique=("name",)):
    id: int
    name: Annotated[str, Meta(max_length=50)]
    balance: Annotated[Decimal, Digits(12, 2)] | None = None
    seen_at: datetime | None = None
    is_member: bool
    data: bytes | None = None
    rating: float | None = None


class Welcome(Command, type="hotel.welcome"):
    name: str


class Rename(Command, type="hotel.rename"):
    id: int
    name: str


hotel = Service("hotel", models=[Guest])


@hotel.handles(Welcome)
def welcome(work: UnitOfWork, command: Welcome) -> Guest:
    return work.add(Guest(id=work.next_id(Guest), name=command.name, is_member=True, balance=Decimal("1.5")))


@hotel.handles(Rename, target=lambda command: Guest.at(command.id))
def rename(work: UnitOfWork, command: Rename) -> Guest:
    guest = work.get(Guest, command.id)
    assert guest is not None
    return work.save(guest.replace(name=command.name))


Run = Callable[[str], None]


class _Base(DeclarativeBase):
    pass


class State(Enum):
    IN = "in"
    LEFT = "left"


class Money(TypeDecorator[Decimal]):
    """As an application has it that keeps exact decimals on SQLite, too."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return String(20) if dialect.name == "sqlite" else Numeric(10, 2)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class _Stay(_Base):
    __tablename__ = "stays"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[State] = mapped_column(EnumColumn(State, name="state"))
    paid: Mapped[State] = mapped_column(
        EnumColumn(State, name="paid", values_callable=lambda of: [x.value for x in of])
    )
    kind: Mapped[str] = mapped_column(EnumColumn("a", "b", name="kind"))
    price: Mapped[Decimal] = mapped_column(Money)


Digits2 = Annotated[Decimal, Digits(10, 2)]


class Stay(VersionedRow, table=_Stay, key="id"):
    id: int
    state: Literal["IN", "LEFT"]
    """SQLAlchemy keeps the names."""
    paid: State
    kind: Literal["a", "b"]
    price: Digits2


async def _read(url: str, service: Service, key: int) -> list[Row | None]:
    """As a gateway reads a row, and a page."""
    database = open_database(url)
    repository = open_repository(database, service, service.models[0])
    found = [await repository.get(key), *(await repository.page(None, 10)).items]
    await close_database(database)
    return found


class _Gauge(_Base):
    __tablename__ = "gauges"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    remark: Mapped[str] = mapped_column(Text)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    short: Mapped[str] = mapped_column(Text)


class Gauge(Row, table=_Gauge, key="id"):
    id: int
    value: float
    remark: str
    raw: bytes
    short: Annotated[str, Meta(max_length=9)]


class _Extra(_Base):
    __tablename__ = "extras"
    room: Mapped[str] = mapped_column(String(9), primary_key=True)
    what: Mapped[str] = mapped_column(String(9), primary_key=True)
    guest: Mapped[str] = mapped_column(String(9))
    remark: Mapped[str] = mapped_column(String(9))


class Extra(Row, table=_Extra, key=("room", "what"), index=("guest",)):
    room: str
    what: str
    guest: str
    remark: str


class _OnExistingTables:
    kind: ClassVar[str]

    @pytest.fixture
    def run(self, url: str) -> Iterator[Run]:
        engine = sql_engine(url)

        def run(statement: str) -> None:
            with engine.begin() as connection:
                connection.execute(text(statement))

        yield run
        engine.dispose()

    def _migrate(self, url: str, service: Service = hotel) -> None:
        migrate(service, DatabaseSettings(database_url=url))

    def test_a_lane_goes_on_with_the_rows_that_are_there(self, url: str, run: Run) -> None:
        run(FITTING[self.kind])
        insert = "INSERT INTO guests (id, name, balance, is_member, notes)"
        run(f"{insert} VALUES (41, 'ada', 12.5, {'1' if self.kind == 'sqlite' else 'TRUE'}, 'kept')")
        self._migrate(url)
        with closing(open_store(url, hotel)) as store:
            store.check(hotel.models, must_sync=False)
            lane = LaneUnderTest(hotel, store)
            assert lane.apply(Rename(id=41, name="Ada"), expected_version=1).result(Guest).version == 2
            assert lane.apply(Welcome(name="bob")).result(Guest).id == 42
            assert lane.apply(Rename(id=42, name="x" * 51)).failed_with("invalid_row")
            assert [(guest.id, guest.name, guest.balance, guest.version) for guest in lane.rows(Guest)] == [
                (41, "Ada", Decimal("12.50"), 2),
                (42, "bob", Decimal("1.50"), 1),
            ]
        engine = sql_engine(url)
        with engine.connect() as connection:
            found = connection.execute(text("SELECT id, notes, mood FROM guests ORDER BY id")).all()
        engine.dispose()
        assert [tuple(row) for row in found] == [(41, "kept", 3), (42, None, 3)]

    def test_all_differences_are_one_error(self, url: str, run: Run) -> None:
        """Of the migration, and of the lane's start."""
        run(WRONG[self.kind])
        with pytest.raises(ConfigurationError) as migrating:
            self._migrate(url)
        with closing(open_store(url, hotel)) as store, pytest.raises(ConfigurationError) as starting:
            store.check(hotel.models, must_sync=False)
        for caught in (migrating, starting):
            lines = str(caught.value).splitlines()[1:]
            for expected in [*DIFFERENCES[self.kind], *EVERYWHERE]:
                assert [line for line in lines if expected in line], (expected, lines)
            assert len(lines) == len(DIFFERENCES[self.kind]) + len(EVERYWHERE), lines

    def test_a_table_without_the_column_of_the_key_is_told_what_it_lacks(self, url: str, run: Run) -> None:
        run("CREATE TABLE guests (nr INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)")
        with pytest.raises(ConfigurationError, match=r"ADD COLUMN .id. (BIGINT|INTEGER) NOT NULL"):
            self._migrate(url)

    def test_a_column_whose_type_was_changed_is_found_at_the_start(self, url: str, run: Run) -> None:
        class Seat(Row, table="seats", key="id", unique=("code",)):
            id: int
            code: int

        service = Service("hotel", models=[Seat])
        self._migrate(url, service)
        run("DROP TABLE seats")
        run("CREATE TABLE seats (id BIGINT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE)")
        expected = r"seats.code is VARCHAR\(20\), which has texts, and integers"
        with closing(open_store(url, service)) as store, pytest.raises(ConfigurationError, match=expected):
            store.check(service.models, must_sync=False)

    def test_columns_are_added_while_the_lane_runs(self, url: str, run: Run) -> None:
        """The old release goes on, also after a takeover, and the new one finds what it needs."""
        run(FITTING[self.kind])
        self._migrate(url)
        with closing(open_store(url, hotel)) as store:
            lane = LaneUnderTest(hotel, store)
            assert lane.apply(Welcome(name="ada")).result(Guest).id == 1
            run("ALTER TABLE guests ADD COLUMN stars BIGINT DEFAULT 3 NOT NULL")
            run("ALTER TABLE guests ADD COLUMN remark VARCHAR(20)")
            assert lane.apply(Rename(id=1, name="Ada")).applied
            assert lane.apply(Welcome(name="bob")).result(Guest).id == 2
        with closing(open_store(url, hotel)) as store:
            store.check(hotel.models, must_sync=False)

        class Starred(Guest, table=GUESTS):
            stars: Annotated[int, Meta(ge=0)] = 3
            remark: Annotated[str, Meta(max_length=20)] = ""

        following = Service("hotel", models=[Starred])
        with closing(open_store(url, following)) as store:
            store.check(following.models, must_sync=False)
            rows = LaneUnderTest(following, store).rows(Starred)
        assert [(row.name, row.stars, row.remark) for row in rows] == [("Ada", 3, ""), ("bob", 3, "")]

    def test_the_key_of_the_table_is_that_of_the_class(self, url: str, run: Run) -> None:
        class Seat(Row, table="seats", key="code"):
            id: int
            code: Annotated[str, Meta(max_length=20)]

        service = Service("hotel", models=[Seat])
        run("CREATE TABLE seats (id BIGINT PRIMARY KEY, code VARCHAR(20) NOT NULL)")
        with pytest.raises(ConfigurationError, match=r"rows are found by code, and its primary key is \(id\)"):
            self._migrate(url, service)
        run("CREATE UNIQUE INDEX seats_code ON seats (code)")
        if self.kind == "mysql":
            with pytest.raises(ConfigurationError, match="code with the collation") as refused:
                self._migrate(url, service)
            with closing(open_store(url, service)) as store, pytest.raises(ConfigurationError) as lanes:
                store.check(service.models, must_sync=False)
            assert str(refused.value) == str(lanes.value)
            run(str(refused.value).partition("found by them: ")[2])
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)

    def test_what_the_class_says_of_values_counts_for_the_width_of_their_columns(self, url: str, run: Run) -> None:
        class Size(Enum):
            SMALL = "small"
            LARGE = "large"

        class Loan(Row, table="loans", key="id"):
            id: Annotated[int, Meta(ge=1, le=2**31 - 1)]
            state: Literal["out", "overdue", "returned"]
            size: Size | None = None
            days: Annotated[int, Meta(ge=-(2**15), lt=2**15)] | None = None

        service = Service("hotel", models=[Loan])
        text = "loans (id INTEGER PRIMARY KEY, state VARCHAR({}) NOT NULL, size VARCHAR(5), days {})"
        run(f"CREATE TABLE {text.format(8, 'SMALLINT')}")
        self._migrate(url, service)
        if self.kind == "sqlite":
            return
        run("DROP TABLE loans")
        run(f"CREATE TABLE {text.format(7, 'SMALLINT')}")
        with pytest.raises(ConfigurationError, match=r"state is VARCHAR\(7\), with 7 characters, .* may have 8$"):
            self._migrate(url, service)

    def test_a_table_that_says_nothing_of_its_texts_is_made_so_that_a_lane_takes_it(self, url: str) -> None:
        code, door = Column("code", String(12), primary_key=True), Column("door", String(12), unique=True)

        class Room(Row, table=Table("rooms", MetaData(), code, door), key="code", unique=("door",)):
            code: Annotated[str, Meta(max_length=12)]
            door: Annotated[str, Meta(max_length=12)] | None = None

        service = Service("hotel", models=[Room])
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)

    def test_what_sqlalchemy_converts_is_one_thing_for_a_lane_its_readers_and_the_application(self, url: str) -> None:
        service = Service("hotel", models=[Stay])
        self._migrate(url, service)
        stay = Stay(id=1, state="LEFT", paid=State.IN, kind="a", price=Decimal("1.50"))
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)
            lane = LaneUnderTest(service, store)
            lane.given(stay)
            assert lane.rows(Stay) == [stay]
        assert asyncio.run(_read(url, service, 1)) == [stay, stay]
        engine = sql_engine(url)
        with Session(engine) as session:
            found = session.get_one(_Stay, 1)
            shown = (found.state, found.paid, found.kind, found.price)
        engine.dispose()
        assert shown == (State.LEFT, State.IN, "a", Decimal("1.50"))

    def test_an_enum_that_keeps_other_texts_than_its_class_has_is_refused(self, url: str, run: Run) -> None:
        class Wrong(Row, table=_Stay, key="id"):
            id: int
            state: State
            paid: State
            kind: Literal["a", "b"]
            price: Digits2

        service = Service("hotel", models=[Wrong])
        refused = r"stays\.state is mapped as an Enum .* keeps 'IN', 'LEFT', and a row has 'in', 'left': .* Literal\["
        with pytest.raises(ConfigurationError, match=refused) as caught:
            self._migrate(url, service)
        assert len(str(caught.value).splitlines()) == 2
        # None was made, so whoever mends the class has it made anew.
        self._migrate(url, Service("hotel", models=[Stay]))
        with closing(open_store(url, service)) as store, pytest.raises(ConfigurationError, match=refused):
            store.check(service.models, must_sync=False)

    def test_a_class_may_have_fewer_values_than_its_enum_keeps(self, url: str) -> None:
        class Left(Row, table=_Stay, key="id"):
            id: int
            state: Literal["LEFT"]
            paid: Literal["in"]
            kind: Literal["b"]
            price: Digits2

        service = Service("hotel", models=[Left])
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)

    def test_what_is_mapped_without_a_word_of_its_width_is_made_as_wide_as_rows_are(self, url: str) -> None:
        """MySQL has four bytes for `Float`, and 64 KiB for `Text` and `LargeBinary`."""
        service = Service("hotel", models=[Gauge])
        self._migrate(url, service)
        gauge = Gauge(id=1, value=16777217.0, remark="\N{SNOWMAN}" * 70_000, raw=b"\xff" * 70_000, short="a")
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)
            lane = LaneUnderTest(service, store)
            lane.given(gauge)
            assert lane.rows(Gauge) == [gauge]

    def test_what_is_mapped_is_made_with_what_its_class_selects_by(self, url: str, run: Run) -> None:
        service = Service("hotel", models=[Extra])
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)
        if self.kind == "postgresql":
            # The database may have any other.
            engine = sql_engine(url)
            found = {
                each["name"]: getattr(each["type"], "collation", None) for each in inspect(engine).get_columns("extras")
            }
            engine.dispose()
            assert found == {"room": "C", "what": "C", "guest": "C", "remark": None}
        if self.kind == "sqlite":
            return
        # Killed before it could make the index, of a database where DDL is no part of a transaction.
        run(f"DROP INDEX extras_guest_index {'ON extras' if self.kind == 'mysql' else ''}")
        self._migrate(url, service)
        # Whoever has rows says when an index is made.
        run("INSERT INTO extras VALUES ('1', 'tea', 'ada', '')")
        run(f"DROP INDEX extras_guest_index {'ON extras' if self.kind == 'mysql' else ''}")
        run("ALTER TABLE extras DROP COLUMN remark")
        run("ALTER TABLE extras ADD COLUMN remark INTEGER NOT NULL DEFAULT 0")
        lines = ["extras_guest_index", "extras.remark is INTEGER"]
        if self.kind == "postgresql":
            run('ALTER TABLE extras ALTER COLUMN what TYPE VARCHAR(9) COLLATE "en-x-icu"')
            run('ALTER TABLE extras ALTER COLUMN room TYPE VARCHAR(9) COLLATE "en-x-icu"')
            lines += ["extras.what has the collation", "extras.room has the collation"]
        else:
            run("ALTER TABLE extras MODIFY what VARCHAR(9) COLLATE utf8mb4_general_ci")
            lines += ["extras: what with the collation"]
        with pytest.raises(ConfigurationError) as refused:
            self._migrate(url, service)
        assert [line for line in lines if line not in str(refused.value)] == []

    def test_keys_to_tables_of_no_class_are_told_while_these_have_no_rows(self, url: str, run: Run) -> None:
        """Before a move to this database, which copies no such table."""

        class Copy(Row, table="copies", key="id"):
            id: int
            book: int
            shelf: int | None
            first: int | None

        service = Service("hotel", models=[Copy])
        for other in ("books", "shelves"):
            run(f"CREATE TABLE {other} (id BIGINT PRIMARY KEY)")
        keys = "FOREIGN KEY (book) REFERENCES books (id), FOREIGN KEY (shelf) REFERENCES shelves (id)"
        columns = "id BIGINT PRIMARY KEY, book BIGINT NOT NULL, shelf BIGINT, first BIGINT"
        run(f"CREATE TABLE copies ({columns}, {keys}, FOREIGN KEY (first) REFERENCES copies (id))")
        self._migrate(url, service)
        address = parse_address(url)
        with closing(kind_of(address).open_admin(address, service.lane)) as admin:
            told = [f"copies.{name}" for name in ("book refers to books", "shelf refers to shelves")]
            assert sorted(admin.unfilled_references(service.models)) == told
            run("INSERT INTO books VALUES (1)")
            assert admin.unfilled_references(service.models) == told[1:]

    def test_a_column_that_the_database_computes_is_none_that_a_move_loses(self, url: str, run: Run) -> None:
        class Copy(Row, table="copies", key="id"):
            id: int
            name: Annotated[str, Meta(max_length=9)]

        service = Service("hotel", models=[Copy])
        computed = "lower_name VARCHAR(9) GENERATED ALWAYS AS (lower(name)) STORED"
        run(f"CREATE TABLE copies (id BIGINT PRIMARY KEY, name VARCHAR(9) NOT NULL, {computed}, shelf INTEGER)")
        if self.kind == "mysql":
            run("ALTER TABLE copies CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        self._migrate(url, service)
        address = parse_address(url)
        with closing(kind_of(address).open_admin(address, service.lane)) as admin:
            assert admin.unread_columns(service.models) == ["copies.shelf"]

    def test_what_sqlalchemy_commonly_makes_and_no_lane_keeps_is_refused_with_the_way_out(self, url: str) -> None:
        """All at once, by the kind that refuses it."""
        every = ("postgresql", "mysql", "sqlite")
        columns: dict[str, tuple[TypeEngine[Any], Any, str, tuple[str, ...]]] = {
            "length": (Interval(), timedelta, "map it as a TypeDecorator of BigInteger", every),
            "country": (CHAR(2), str, "make it VARCHAR", ("postgresql",)),
            "made_at": (DateTime(), datetime, r"map it as `DateTime(timezone=True)`", ("postgresql",)),
            "paid_at": (DateTime(), datetime, r"make it DATETIME(3)", ("mysql",)),
            "opens": (Time(), time, "make it TIME(6)", ("mysql",)),
            "price": (Numeric(10, 2), Digits2, r"(in a revision `.with_variant(String(13), ", ("sqlite",)),
        }
        number = Column("id", BigInteger, primary_key=True, autoincrement=False)
        table = Table("stays", MetaData(), number, *(Column(name, each[0]) for name, each in columns.items()))
        annotations = {"id": int} | {name: each[1] | None for name, each in columns.items()}
        fields = {"__annotations__": annotations} | dict.fromkeys(columns)
        model = new_class("Stayed", (Row,), {"table": table, "key": "id"}, lambda namespace: namespace.update(fields))
        with pytest.raises(ConfigurationError) as refused:
            self._migrate(url, Service("hotel", models=[model]))
        lines = str(refused.value).splitlines()
        for name, (_, _, way_out, kinds) in columns.items():
            if self.kind in kinds:
                assert [line for line in lines if line.startswith(f"  stays.{name} is") and way_out in line], (
                    name,
                    lines,
                )

    def test_no_table_is_left_that_is_made_and_refused(self, url: str) -> None:
        """It would be there still when what declares it is mended."""

        def made(column: TypeEngine[Any]) -> Service:
            tables = MetaData()
            Table("floors", tables, Column("id", BigInteger, primary_key=True))
            number = Column("id", BigInteger, primary_key=True, autoincrement=False)
            floor = Column("floor", BigInteger, ForeignKey("floors.id"))

            class Suite(Row, table=Table("suites", tables, number, floor, Column("name", column)), key="id"):
                id: int
                floor: int | None
                name: Annotated[str, Meta(max_length=20)] | None

            return Service("hotel", models=[Suite])

        with pytest.raises(ConfigurationError, match=r"so none was made; change the classes:\n  suites\.name is"):
            self._migrate(url, made(Integer()))
        engine = sql_engine(url)
        assert not {"suites", "floors"} & {*inspect(engine).get_table_names()}
        engine.dispose()
        self._migrate(url, made(String(20)))


class TestPostgresql(_OnExistingTables):
    kind = "postgresql"

    @pytest.fixture
    def url(self, databases: FreshDatabases) -> str:
        return databases.new("USERS_DATABASE_URL")

    def test_a_table_of_another_schema_is_none_that_was_made(self, url: str, run: Run) -> None:
        """What is refused is dropped again; a table that was there before has rows."""
        tables = MetaData()
        Table("owners", tables, Column("id", BigInteger, primary_key=True), schema="app")
        number = Column("id", BigInteger, primary_key=True, autoincrement=False)
        owner = Column("owner", BigInteger, ForeignKey("app.owners.id"), nullable=False)

        class House(Row, table=Table("houses", tables, number, owner, Column("name", Integer)), key="id"):
            id: int
            owner: int
            name: Annotated[str, Meta(max_length=20)] | None

        run("CREATE SCHEMA app")
        run("CREATE TABLE app.owners (id BIGINT PRIMARY KEY)")
        run("INSERT INTO app.owners VALUES (1)")
        with pytest.raises(ConfigurationError, match="so none was made"):
            self._migrate(url, Service("hotel", models=[House]))
        engine = sql_engine(url)
        assert inspect(engine).get_table_names(schema="app") == ["owners"]
        assert "houses" not in inspect(engine).get_table_names()
        engine.dispose()

    def test_a_table_that_the_lane_may_not_read_keeps_no_move_away(self, url: str, run: Run) -> None:
        """PostgreSQL checks a foreign key with the rights of that table's owner."""

        class Copy(Row, table="copies", key="id"):
            id: int
            book: int

        service = Service("hotel", models=[Copy])
        run("CREATE TABLE books (id BIGINT PRIMARY KEY)")
        run("CREATE TABLE copies (id BIGINT PRIMARY KEY, book BIGINT NOT NULL REFERENCES books)")
        self._migrate(url, service)
        address = parse_address(url)
        role = f"least_{address.database}"
        run(f"CREATE ROLE {role} LOGIN PASSWORD 'least'")
        try:
            run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            run(f"REVOKE ALL ON books FROM {role}")
            parts = urlsplit(url)
            least = parse_address(urlunsplit(parts._replace(netloc=f"{role}:least@{parts.hostname}:{parts.port}")))
            with closing(kind_of(least).open_admin(least, service.lane)) as admin:
                assert admin.unfilled_references(service.models) == []
        finally:
            run(f"DROP OWNED BY {role}")
            run(f"DROP ROLE {role}")


class TestMysql(_OnExistingTables):
    kind = "mysql"

    @pytest.fixture
    def url(self, databases: FreshDatabases) -> str:
        return databases.new("PAYMENTS_DATABASE_URL")

    def test_an_enum_of_the_databases_that_lacks_a_value_of_its_class_is_refused(self, url: str, run: Run) -> None:
        """SQLite has no such type, and PostgreSQL's is refused for whatever values."""

        class Batch(Row, table="batches", key="id"):
            id: int
            kind: State
            grade: Literal["a", "c"]

        service = Service("hotel", models=[Batch])
        columns = "kind ENUM('IN', 'LEFT') NOT NULL, grade ENUM('a', 'b') NOT NULL"
        run(f"CREATE TABLE batches (id BIGINT PRIMARY KEY, {columns})")
        run("ALTER TABLE batches CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        with pytest.raises(ConfigurationError) as refused:
            self._migrate(url, service)
        assert "batches.kind is an ENUM of 'IN', 'LEFT', and a row may have 'in', 'left'" in str(refused.value)
        assert "batches.grade is an ENUM of 'a', 'b', and a row may have 'c'" in str(refused.value)
        run("ALTER TABLE batches MODIFY kind ENUM('in', 'left', 'lost') NOT NULL, MODIFY grade ENUM('a', 'c') NOT NULL")
        run("ALTER TABLE batches CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        self._migrate(url, service)

    @pytest.mark.parametrize(
        ("kind", "why"),
        [
            ("FLOAT", "is FLOAT, with 24 bits, and a row may have 53: make it DOUBLE"),
            ("DOUBLE(9, 2)", r"is DOUBLE\(9, 2\), which rounds to 2 digits after the point"),
        ],
    )
    def test_a_column_that_rounds_floats_is_refused_whatever_it_is_mapped_as(
        self, url: str, run: Run, kind: str, why: str
    ) -> None:
        service = Service("hotel", models=[Gauge])
        self._migrate(url, service)
        run(f"ALTER TABLE gauges MODIFY value {kind} NOT NULL")
        with pytest.raises(ConfigurationError, match=f"gauges.value {why}"):
            self._migrate(url, service)
        with closing(open_store(url, service)) as store, pytest.raises(ConfigurationError, match=why):
            store.check(service.models, must_sync=False)

    def test_tables_that_an_application_has_made_narrower_are_taken_and_told(self, url: str, run: Run) -> None:
        service = Service("hotel", models=[Gauge])
        self._migrate(url, service)
        with capture_logs() as logs, closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)
        assert not [line for line in logs if line["event"] == "column_too_narrow"]
        run("ALTER TABLE gauges MODIFY remark TEXT NOT NULL, MODIFY raw BLOB NOT NULL, MODIFY short CHAR(9) NOT NULL")
        with capture_logs() as logs:
            self._migrate(url, service)
            with closing(open_store(url, service)) as store:
                store.check(service.models, must_sync=False)
        told = [line["why"] for line in logs if line["event"] == "column_too_narrow"]
        assert told[:3] == told[3:]
        assert [line.partition(", and")[0] for line in told[:3]] == [
            "gauges.remark is TEXT, with 65535 bytes",
            "gauges.raw is BLOB, with 65535 bytes",
            "gauges.short is CHAR, which drops the spaces at the end of a text: make it VARCHAR",
        ]
        assert "Make it LONGTEXT, or annotate the field with Meta(max_length=16383)" in told[0]

    @pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
    def test_columns_that_lack_characters_are_refused_all_at_once(self, url: str, run: Run, charset: str) -> None:
        """A client would make a dead letter of each text with one of them."""

        class Book(Row, table="books", key="id"):
            id: int
            title: Annotated[str, Meta(max_length=99)]
            state: Literal["in", "out"]

        class Author(Row, table="authors", key="name"):
            name: Annotated[str, Meta(max_length=99)]

        service = Service("hotel", models=[Book, Author])
        for table in (
            "books (id BIGINT PRIMARY KEY, title VARCHAR(99) NOT NULL, state VARCHAR(3) NOT NULL)",
            "authors (name VARCHAR(99) PRIMARY KEY)",
        ):
            run(f"CREATE TABLE {table} CHARACTER SET {charset}")
        with pytest.raises(ConfigurationError) as refused:
            self._migrate(url, service)
        with closing(open_store(url, service)) as store, pytest.raises(ConfigurationError) as lanes:
            store.check(service.models, must_sync=False)
        assert str(refused.value) == str(lanes.value)
        lines = str(refused.value).splitlines()[1:]
        assert [line.split(" in the ")[0].strip() for line in lines] == ["books: title", "authors: name"]
        for line in lines:
            run(line.rpartition(": ")[2])
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)


def _of_nights(mapped: TypeEngine[Any], of: Any) -> Service:
    """With a column that is mapped so, and a field of this type."""
    number = Column("id", BigInteger, primary_key=True, autoincrement=False)
    table = Table("nights", MetaData(), number, Column("what", mapped))
    fields = {"__annotations__": {"id": int, "what": of | None}, "what": None}
    night = new_class("Night", (Row,), {"table": table, "key": "id"}, lambda namespace: namespace.update(fields))
    return Service("hotel", models=[night])


def _of_numbers() -> list[str]:
    """The statements of MIGRATING that make numbers texts."""
    page = (Path(__file__).parents[2] / "docs" / "MIGRATING.md").read_text(encoding="utf-8")
    return page.partition("```sql\n")[2].partition("```")[0].strip().split(";\n")


class TestSqlite(_OnExistingTables):
    kind = "sqlite"

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/hotel.db"

    @pytest.mark.parametrize(
        ("mapped", "of", "other"),
        [
            (Date(), str, "date"),
            (DateTime(), str, "datetime"),
            (Time(), str, "time"),
            (DateTime(), date, "datetime"),
            (Date(), datetime, "date"),
            (Uuid(), str, "UUID"),
            (Uuid(as_uuid=False), str, "UUID"),
            (JSON(), str, "dict"),
            (Interval(), str, "timedelta"),
            (Boolean(), int, "bool"),
        ],
    )
    def test_what_readers_would_take_for_something_else_is_refused(
        self, url: str, mapped: TypeEngine[Any], of: type, other: str
    ) -> None:
        """A file keeps all of them as a lane would, which does not read through what is mapped."""
        refused = rf"what is mapped as \w+, of which gateways would read a {other}, and the field is a {of.__name__}:"
        with pytest.raises(ConfigurationError, match=refused):
            self._migrate(url, _of_nights(mapped, of))

    @pytest.mark.parametrize(
        ("mapped", "of"),
        [
            (Date(), date),
            (DateTime(), datetime),
            (Time(), time),
            (Uuid(), UUID),
            (Uuid(as_uuid=False), UUID),
            (JSON(), dict[str, int]),
            (JSON(), list[int]),
            (Boolean(), bool),
            (Float(), float),
            (Float(asdecimal=True), float),
            (String(32), str),
        ],
    )
    def test_what_readers_take_for_the_same_is_not(self, url: str, mapped: TypeEngine[Any], of: Any) -> None:
        self._migrate(url, _of_nights(mapped, of))

    def test_floats_that_are_mapped_as_decimals_are_read_with_all_their_digits(self, url: str) -> None:
        """SQLAlchemy makes ten after the point of them. It maps a reflected DOUBLE of MySQL's so."""
        service = _of_nights(Float(asdecimal=True), float)
        self._migrate(url, service)
        (model,) = service.models
        night = model(id=1, what=1e-12)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)
            LaneUnderTest(service, store).given(night)
        assert asyncio.run(_read(url, service, 1)) == [night, night]

    def test_an_index_that_the_database_refuses_is_named_with_all_else_that_is_wrong(self, url: str, run: Run) -> None:
        """MySQL refuses one that is too wide, and PostgreSQL that of a table of another role's."""
        run("CREATE TABLE others (id INTEGER)")
        run("CREATE INDEX extras_guest_index ON others (id)")
        with capture_logs() as logs, pytest.raises(ConfigurationError, match=r'by hand.*: CREATE INDEX "extras_guest_'):
            self._migrate(url, Service("hotel", models=[Extra]))
        (said,) = [line["error"] for line in logs if line["event"] == "index_refused"]
        assert "extras_guest_index" in said
        run("DROP INDEX extras_guest_index")
        self._migrate(url, Service("hotel", models=[Extra]))

    def test_numbers_of_a_file_are_made_the_exact_texts_that_a_lane_keeps(self, url: str, run: Run) -> None:
        """By the statements of MIGRATING, which the refusal leads to."""

        class Member(Row, table="members", key="id"):
            id: int
            owed: Digits2

        service = Service("hotel", models=[Member])
        run("CREATE TABLE members (id INTEGER PRIMARY KEY, owed NUMERIC(10, 2) NOT NULL)")
        run("INSERT INTO members VALUES (1, 3.5), (2, 0), (3, 0.1)")
        hint = (
            r"texts are kept there: .* `\.with_variant\(Money\(13\), \"sqlite\"\)`.* as printf\('%\.2f', owed\) does$"
        )
        with pytest.raises(ConfigurationError, match=hint):
            self._migrate(url, service)
        for statement in _of_numbers():
            run(statement)
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            store.check(service.models, must_sync=False)
            rows = LaneUnderTest(service, store).rows(Member)
        assert [str(row.owed) for row in rows] == ["3.50", "0.00", "0.10"]

    def test_numbers_of_a_file_that_are_not_there_are_not_made_zero(self, url: str, run: Run) -> None:
        class Member(Row, table="members", key="id"):
            id: int
            owed: Digits2 | None = None

        service = Service("hotel", models=[Member])
        run("CREATE TABLE members (id INTEGER PRIMARY KEY, owed NUMERIC(10, 2))")
        run("INSERT INTO members VALUES (1, 3.5), (2, NULL)")
        with pytest.raises(ConfigurationError, match=r"as printf\('%\.2f', owed\) does where it is not NULL$"):
            self._migrate(url, service)
        for statement in _of_numbers():
            run(statement.replace(" DEFAULT '0.00' NOT NULL", ""))
        self._migrate(url, service)
        with closing(open_store(url, service)) as store:
            rows = LaneUnderTest(service, store).rows(Member)
        assert [row.owed for row in rows] == [Decimal("3.50"), None]


class _Hall(_Base):
    __tablename__ = "halls"
    id: Mapped[int] = mapped_column(primary_key=True)


class _Chair(_Base):
    __tablename__ = "chairs"
    id: Mapped[int] = mapped_column(primary_key=True)
    hall: Mapped[int] = mapped_column(ForeignKey("halls.id"))
    label: Mapped[str] = mapped_column(String(5))


class Chair(VersionedRow, table=_Chair, key="id"):
    id: int
    hall: int
    label: str


def test_a_mapped_class_names_its_table(tmp_path: Path) -> None:
    """Where it is missing it is made, with the tables that it refers to."""
    assert Chair.table == "chairs"
    service = Service("hotel", models=[Chair])
    url = f"sqlite:///{tmp_path}/hotel.db"
    migrate(service, DatabaseSettings(database_url=url))
    engine = sql_engine(url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO halls (id) VALUES (1)"))
        assert [column["name"] for column in inspect(connection).get_columns("chairs")] == [
            *("id", "hall", "label", "version")
        ]
    engine.dispose()
    with closing(open_store(url, service)) as store:
        store.check(service.models, must_sync=False)
        lane = LaneUnderTest(service, store)
        lane.given(Chair(id=1, hall=1, label="a"))
        with pytest.raises(InvalidRow, match=r"chairs.label: 6 characters, and at most 5 fit"):
            lane.given(Chair(id=2, hall=1, label="abcdef"))


def test_a_table_in_a_schema_is_refused() -> None:
    from coordinator.service.defects import defects_of

    class Elsewhere(Row, table=Table("seats", MetaData(), Column("id", BigInteger), schema="app"), key="id"):
        id: int

    (defect,) = defects_of(Service("hotel", models=[Elsewhere]))
    assert "in the schema app" in defect
