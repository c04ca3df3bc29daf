"""A reader says what it lacks, by what the server answers: a login, a right, a table, a connection, or its own lane."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from click.testing import CliRunner
from msgspec import Struct
from sqlalchemy import select, table, text

from coordinator.client.database import (
    NoConnectionLeft,
    check_reads,
    close_database,
    open_database,
    reading,
    reading_problem,
)
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.addresses import scheme_of
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import OnlyFollows, ReadsAnotherLanes
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.open import open_store
from coordinator.stores.port import MAKES_ROLES, NotAdmitted, StoreUnavailable
from shared.users.collisions import main as list_collisions
from tests.support.databases import FreshDatabases, give_to, sql_engine

SERVICES = ("users", "payments", "items")
REFUSED = f"the server refuses the gateway's user, password, database or options: {MAKES_ROLES}"


class Role(Struct, frozen=True):
    """A role of the test's own, which may read and write everything in `url`."""

    name: str
    url: str
    owner: str

    def run(self, *statements: str) -> None:
        engine = sql_engine(self.owner)
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


@contextmanager
def role(owner: str) -> Iterator[Role]:
    address = urlsplit(owner)
    name = f"r_{address.path[1:]}"
    is_mysql = scheme_of(owner) != "postgresql"
    account = f"'{name}'@'%'" if is_mysql else name
    url = urlunsplit(address._replace(netloc=f"{name}:secret@{address.hostname}:{address.port}"))
    made = Role(account, url, owner)
    if is_mysql:
        made.run(f"CREATE USER {account} IDENTIFIED BY 'secret'", f"GRANT ALL ON {address.path[1:]}.* TO {account}")
    else:
        made.run(
            f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
            f"REVOKE CONNECT ON DATABASE {address.path[1:]} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {address.path[1:]} TO {name}",
        )
    try:
        yield made
    finally:
        if is_mysql:
            made.run(f"DROP USER {account}")
        else:
            made.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def migrated(databases: FreshDatabases, service: str) -> str:
    url = databases.new(f"{service.upper()}_DATABASE_URL")
    migrate(registry().service(service), DatabaseSettings(database_url=url))
    return url


async def problem(url: str, service: str, *others: str) -> str | None:
    database: Any = open_database(url)
    tables = [model.table for model in registry().service(service).models]
    try:
        return await reading_problem(database, service, [*tables, *others])
    finally:
        await close_database(database)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_database_of_another_lane_is_no_use_to_a_reader(databases: FreshDatabases, service: str) -> None:
    database: Any = open_database(migrated(databases, service))
    models = registry().service(service).models
    try:
        await check_reads(database, service, models)
        with pytest.raises(ConfigurationError, match=f"the database is that of lane {service}, and not of other: "):
            await check_reads(database, "other", models)
    finally:
        await close_database(database)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (
            "users",
            (
                "users is not there, or the gateway's role has no USAGE of its schema: run `coordinator migrate`, "
                "which makes tables and gives rights"
            ),
        ),
        ("payments", "payments is not there: run `coordinator migrate`"),
        ("items", "the database has no lane: correct its address, or run `coordinator migrate items`"),
    ],
)
async def test_an_empty_database_is_no_use_to_a_reader(databases: FreshDatabases, service: str, said: str) -> None:
    assert await problem(databases.new(f"{service.upper()}_DATABASE_URL"), service) == said


async def test_a_reader_of_rows_alone_need_not_read_the_lease_and_a_gateway_must(databases: FreshDatabases) -> None:
    with role(migrated(databases, "users")) as reader:
        reader.run(f"REVOKE ALL ON lane_lease FROM {reader.name}")
        assert await problem(reader.url, "users") is None
        said = await problem(reader.url, "users", LEASE_TABLE)
        assert said == "the gateway's role may not SELECT from lane_lease: GRANT it, or run `coordinator migrate`"
        reader.run(f"REVOKE ALL ON users FROM {reader.name}")
        assert "may not SELECT from users" in (await problem(reader.url, "users") or "")


@pytest.mark.parametrize(
    ("service", "refusal"),
    [
        ("users", "ALTER ROLE {role} NOLOGIN"),
        ("users", "ALTER ROLE {role} PASSWORD 'other'"),
        ("users", "REVOKE CONNECT ON DATABASE {database} FROM {role}"),
        ("payments", "ALTER USER {role} ACCOUNT LOCK"),
        ("payments", "ALTER USER {role} PASSWORD EXPIRE"),
        ("payments", "ALTER USER {role} IDENTIFIED BY 'other'"),
    ],
)
async def test_a_refused_login_is_no_silent_server(databases: FreshDatabases, service: str, refusal: str) -> None:
    with role(migrated(databases, service)) as refused:
        assert await problem(refused.url, service) is None
        refused.run(refusal.format(role=refused.name, database=urlsplit(refused.owner).path[1:]))
        assert await problem(refused.url, service) == REFUSED
        declared = registry().service(service)
        with closing(open_store(refused.url, declared)) as store, pytest.raises(NotAdmitted):
            store.check(declared.models)


@pytest.mark.parametrize(
    ("service", "limit"),
    [
        ("users", "ALTER ROLE {role} CONNECTION LIMIT 0"),
        ("users", "ALTER DATABASE {database} CONNECTION LIMIT 0"),
        ("payments", "ALTER USER {role} WITH MAX_QUERIES_PER_HOUR 1"),
    ],
)
async def test_a_server_without_a_connection_left_is_no_silent_server(
    databases: FreshDatabases, service: str, limit: str
) -> None:
    """It may have one soon: nothing ends for that."""
    with role(migrated(databases, service)) as limited:
        assert await problem(limited.url, service) is None
        limited.run(limit.format(role=limited.name, database=urlsplit(limited.owner).path[1:]))
        for _ in range(2):
            with pytest.raises(NoConnectionLeft, match="the database has no connection left for the gateway"):
                await problem(limited.url, service)
        declared = registry().service(service)
        with closing(open_store(limited.url, declared)) as store, pytest.raises(StoreUnavailable):
            store.check(declared.models)


@pytest.mark.parametrize(
    ("statement", "status", "said"),
    [
        ("SELECT 1", 0, "no two accounts have one address\n"),
        ("UPDATE lane_lease SET lane = 'other'", 2, "users: USERS_READER_URL: the database is that of lane other, "),
        ("DROP TABLE users", 2, "users: USERS_READER_URL: users is not there, or the gateway's role"),
    ],
)
def test_a_program_that_reads_names_the_setting_of_a_wrong_database(
    databases: FreshDatabases, statement: str, status: int, said: str
) -> None:
    url = migrated(databases, "users")
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
    ran = CliRunner().invoke(list_collisions, [], env={"USERS_READER_URL": url})
    assert (ran.exit_code, len(ran.output.splitlines())) == (status, 1)
    assert ran.output.startswith(said)


@pytest.mark.parametrize("argument", ["--x", "more"])
def test_a_program_that_reads_refuses_arguments(argument: str) -> None:
    ran = CliRunner().invoke(list_collisions, [argument])
    assert ran.exit_code == 2
    assert argument in ran.output


@pytest.mark.parametrize("service", SERVICES)
async def test_nothing_is_read_over_a_new_connection_that_leads_to_another_lane(
    databases: FreshDatabases, service: str
) -> None:
    url = migrated(databases, service)
    database: Any = open_database(url, 1, lane=service)
    statement = select(text("lane")).select_from(table(LEASE_TABLE))

    async def read() -> object:
        async with reading():
            if service == "items":
                return (await database[LEASE_TABLE].find_one())["_id"]
            async with database.connect() as connection:
                return (await connection.execute(statement)).scalar()

    try:
        give_to(url, "other")
        for _ in range(2):
            with pytest.raises(ReadsAnotherLanes, match="leads to a database that is not this lane's"):
                await read()
        give_to(url, service)
        assert [await read() for _ in range(2)] == [service] * 2
    finally:
        await close_database(database)


@pytest.mark.parametrize("service", ["users", "payments"])
async def test_a_role_that_may_not_read_the_lease_reads_rows(databases: FreshDatabases, service: str) -> None:
    url = migrated(databases, service)
    model = next(iter(registry().service(service).models))
    with role(url) as reader:
        if service == "payments":
            here = urlsplit(url).path[1:]
            reader.run(
                f"REVOKE ALL ON {here}.* FROM {reader.name}", f"GRANT SELECT ON {here}.{model.table} TO {reader.name}"
            )
        else:
            reader.run(f"REVOKE ALL ON {LEASE_TABLE} FROM {reader.name}")
        database: Any = open_database(reader.url, 1, lane=service)
        try:
            async with reading(), database.connect() as connection:
                found = await connection.execute(select(text("*")).select_from(table(model.table)))
                assert found.first() is None
        finally:
            await close_database(database)


async def test_a_mysql_that_only_reads_is_not_believed_until_it_leads(databases: FreshDatabases) -> None:
    url = migrated(databases, "payments")
    engine = sql_engine(url)
    leading, any_server = open_database(url, 1, must_lead=True), open_database(url, 1)

    def set_read_only(value: int) -> None:
        with engine.connect() as connection:
            connection.execute(text(f"SET GLOBAL read_only = {value}"))

    try:
        assert await reading_problem(leading, "payments", []) is None
        set_read_only(1)
        # A connection that is kept, and one that is new.
        for _ in range(2):
            with pytest.raises(OnlyFollows, match="the server only reads, as one does that follows another one"):
                await reading_problem(leading, "payments", [])
        assert await reading_problem(any_server, "payments", []) is None
        set_read_only(0)
        assert await reading_problem(leading, "payments", []) is None
    finally:
        set_read_only(0)
        engine.dispose()
        for each in (leading, any_server):
            await close_database(each)
