"""The fixture `lane` on every kind of server: the same as in memory, and empty around each test."""

from contextlib import closing
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from coordinator import Command, Digits, Handler, Id, Service, UnitOfWork, VersionedRow
from coordinator.migrations.migrate import migrate
from coordinator.operate.migrated import record_migration
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.announcements import Withdrawal
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import AnnouncedVersion
from coordinator.stores.open import open_store
from coordinator.stores.operator_acts import made_act
from coordinator.testing import NOW, LaneInMemory, LaneUnderTest, Older
from coordinator.testing.database import lane_on_database, prepare
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.releases import AddNote, OldAddNote, new, old
from tests.support.seats import AddSeat, BookSeat, Seat, seats
from tests.support.store_contract import changes, commit

pytestmark = pytest.mark.upgrades

A7 = Seat(id=7, code="A7")


class NewestAddNote(Command, type="notes.add", version=3):
    """As a release after `new` has it."""


class Pin(Command, type="notes.pin", version=3):
    """A type that `new` does not have."""


def nothing(work: UnitOfWork, command: Command) -> None:
    """A handler."""


pinning = new.replace(handlers=[Handler(NewestAddNote, nothing), Handler(Pin, nothing)], upgrades=())
"""The release after `new`."""


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL"])
def url(request: pytest.FixtureRequest, databases: FreshDatabases) -> str:
    """An empty database of each kind."""
    return databases.new(request.param)


def sold(lane: LaneUnderTest) -> list[object]:
    """What becomes of a few commands, and of rows given between them."""
    lane.given(A7)
    tried = [
        lane.apply(BookSeat(id=7, holder="ada")),
        lane.apply(BookSeat(id=7, holder="bob")),
        lane.apply(AddSeat(id=8, code="A7")),
    ]
    lane.given(Seat(id=9, code="A9"))
    tried += [
        lane.apply(BookSeat(id=9, holder="eve"), expected_version=2),
        lane.apply(BookSeat(id=9, holder="eve"), deadline=lane.now - timedelta(seconds=1)),
        lane.apply(BookSeat(id=9, holder="eve"), expected_version=1),
    ]
    return [*((each.outcome.status, each.code, each.outcome.sequence) for each in tried), *lane.rows(Seat)]


def test_what_a_migration_writes_down_is_nobodys_row_and_what_an_operator_did_is(url: str) -> None:
    settings = DatabaseSettings(database_url=url)
    migrate(seats, settings)
    record_migration(seats, settings, (), None)
    prepare(seats, url, may_have_rows=False)
    address = parse_address(url)
    with closing(kind_of(address).open_admin(address, "seats")) as admin:
        admin.record(made_act(NOW, "ada", "pause", {}))
    with pytest.raises(ConfigurationError, match="has rows in operator_acts"):
        prepare(seats, url, may_have_rows=False)


def test_a_lane_on_a_server_is_as_it_is_in_memory(url: str) -> None:
    prepare(seats, url, may_have_rows=False)
    in_memory = sold(LaneInMemory(seats))
    for _ in range(2):
        with lane_on_database(seats, url) as lane:
            assert lane.now == NOW
            assert lane.rows(Seat) == []
            assert sold(lane) == in_memory
    prepare(seats, url, may_have_rows=False)


def test_rows_of_before_are_somebodys(url: str) -> None:
    prepare(seats, url, may_have_rows=False)
    with lane_on_database(seats, url) as lane:
        lane.given(A7)
        with pytest.raises(ConfigurationError, match="the database has rows in seats, and tests would remove them"):
            prepare(seats, url, may_have_rows=False)
        prepare(seats, url, may_have_rows=True)
        assert lane.rows(Seat) == [A7]


def test_another_lane_is_left_alone(url: str) -> None:
    prepare(seats, url, may_have_rows=False)
    with pytest.raises(ConfigurationError, match="is that of lane seats"):
        prepare(seats.replace(name="stalls", handlers=()), url, may_have_rows=True)


def announced(url: str) -> list[AnnouncedVersion]:
    store = open_store(url, old)
    transaction = store.begin()
    try:
        return transaction.scan(AnnouncedVersion, 10)
    finally:
        transaction.rollback()
        store.close()


def test_a_migration_announces_versions_and_an_older_one_takes_none_back(url: str) -> None:
    settings = DatabaseSettings(database_url=url)
    for service, version in ((old, 1), (new, 2), (old, 2)):
        migrate(service, settings)
        assert announced(url) == [AnnouncedVersion(type="notes.add", version=version, origin="public")]


def test_what_an_earlier_release_has_announced_gets_its_origin_with_the_next_migration(url: str) -> None:
    settings = DatabaseSettings(database_url=url)
    migrate(new, settings)
    store = open_store(url, old)
    try:
        transaction = store.begin()
        (there,) = transaction.scan(AnnouncedVersion, 10)
        transaction.rollback()
        before = AnnouncedVersion(type="notes.add", version=2)
        commit(store, store.take_over("migration", NOW), changes(deletes=[there]), counted=0)
        commit(store, store.take_over("migration", NOW), changes(inserts=[before]), counted=0)
    finally:
        store.close()
    assert announced(url) == [before]
    (handler,) = new.handlers
    inner = new.replace(handlers=[msgspec.structs.replace(handler, is_internal=True)])
    migrate(inner, settings)
    assert announced(url) == [AnnouncedVersion(type="notes.add", version=2, origin="system")]
    with lane_on_database(old, url) as older:
        assert older.apply(AddNote(title="b"), origin="public").failed_with("unknown_command_version")
        with pytest.raises(RuntimeError, match="has version 2, which a newer release has announced"):
            older.apply(AddNote(title="b"), origin="system")
    migrate(new, settings)
    assert announced(url) == [AnnouncedVersion(type="notes.add", version=2, origin="public")]


def test_a_version_that_is_announced_waits_on_every_kind(url: str) -> None:
    migrate(new, DatabaseSettings(database_url=url))
    with lane_on_database(old, url) as older:
        assert older.apply(OldAddNote(text="a")).applied
        assert older.apply(Older(AddNote, {}, version=3)).failed_with("unknown_command_version")
        with pytest.raises(RuntimeError, match="has version 2, which a newer release has announced"):
            older.apply(AddNote(title="b"))
        newer = LaneUnderTest(new, older._store)
        assert newer.apply(AddNote(title="b")).outcome.sequence == 3


def test_a_withdrawn_announcement_is_gone_on_every_kind(url: str) -> None:
    settings = DatabaseSettings(database_url=url)
    migrate(pinning, settings)
    assert announced(url) == [
        AnnouncedVersion(type=kind, version=3, origin="public") for kind in ("notes.add", "notes.pin")
    ]
    migrate(new, settings, [Withdrawal("notes.pin", 2), Withdrawal("notes.add", 2)])
    assert announced(url) == [
        AnnouncedVersion(type="notes.add", version=2, origin="public"),
        AnnouncedVersion(type="notes.pin", version=2),
    ]
    with (
        lane_on_database(new, url) as older,
        pytest.raises(RuntimeError, match=r"is of type notes\.pin, which a newer"),
    ):
        older.apply(Older(Pin, {}, version=2), origin="public")
    with pytest.raises(ConfigurationError, match=r"this release has notes.add in version 2"):
        migrate(new, settings, [Withdrawal("notes.pin"), Withdrawal("notes.add", 1)])
    for _ in range(2):
        migrate(new, settings, [Withdrawal("notes.pin")])
        assert announced(url) == [AnnouncedVersion(type="notes.add", version=2, origin="public")]
    with lane_on_database(new, url) as older:
        for version in (2, 3):
            assert older.apply(Older(Pin, {}, version)).failed_with("unknown_command_type")
        assert older.apply(AddNote(title="b")).applied


class Reserved(VersionedRow, table="Order", key="select", unique=("group",)):
    """Names that SQL has for itself, and letters of both cases."""

    select: int
    group: str
    Table: str | None = None
    user: str | None = None


class Reserve(Command, type="orders.reserve"):
    id: Id


orders = Service("orders", models=(Reserved,))


@orders.handles(Reserve, target=lambda command: Reserved.at(command.id))
def reserve(work: UnitOfWork, command: Reserve) -> Reserved:
    found = work.get(Reserved, command.id) or work.find(Reserved, "group", "a")
    if found is None:
        return work.add(Reserved(select=command.id, group="a"))
    return work.save(found.replace(user="ada", Table="x"))


def test_words_that_sql_has_for_itself_are_names_like_others(url: str) -> None:
    prepare(orders, url, may_have_rows=False)
    with lane_on_database(orders, url) as lane:
        assert [lane.apply(Reserve(id=7)).applied, lane.apply(Reserve(id=8)).applied] == [True, True]
        assert lane.rows(Reserved) == [Reserved(select=7, group="a", user="ada", Table="x", version=2)]
        prepare(orders, url, may_have_rows=True)


class Ticket(VersionedRow, table="Order", key="id"):
    id: int
    price: Annotated[Decimal, Digits(12, 2)] = Decimal("1.50")
    label: Annotated[str, Meta(max_length=20)] = "it's 5% :a"
    is_paid: bool = True
    day: date = date(2026, 1, 31)
    since: time = time(9, 30)
    took: timedelta = timedelta(minutes=2)
    code: UUID = UUID(int=7)


@pytest.mark.parametrize("setting", ["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"])
def test_what_migrate_prints_adds_the_columns(setting: str, databases: FreshDatabases) -> None:
    url, service = databases.new(setting), Service("tickets", models=(Ticket,))
    engine = sql_engine(url)
    quoted = engine.dialect.identifier_preparer.quote("Order")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {quoted} (id BIGINT PRIMARY KEY)")
        connection.exec_driver_sql(f"INSERT INTO {quoted} VALUES (7)")
        with pytest.raises(ConfigurationError) as caught:
            migrate(service, DatabaseSettings(database_url=url))
        for line in str(caught.value).splitlines():
            if line.startswith("ALTER"):
                connection.exec_driver_sql(line.replace("%", "%%"))
    engine.dispose()
    migrate(service, DatabaseSettings(database_url=url))
    store = open_store(url, service)
    with closing(store):
        assert store.begin().scan(Ticket, 10) == [Ticket(id=7)]
