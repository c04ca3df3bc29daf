"""Whatever a server, a database, a role or the environment sets for a session: values come back exactly, and a database
that cannot keep them is refused in words."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, ClassVar

import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.dev.servers.mysql import MySQL
from coordinator.migrations.migrate import migrate
from coordinator.reading import close_database, open_database
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import kind_of
from coordinator.stores.mysql import session as mysql_session
from coordinator.stores.open import open_store
from coordinator.stores.postgresql import session as postgresql_session
from tests.integration.test_values import _OnServer
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.values import VALUES

POSTGRESQL = {
    "client_encoding": "LATIN1",
    "DateStyle": "'German, DMY'",
    "IntervalStyle": "sql_standard",
    "TimeZone": "'Pacific/Apia'",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "exit_on_error": "on",
    "client_min_messages": "error",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
}
ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "SQL, DMY",
    "PGTZ": "Asia/Tokyo",
    "PGOPTIONS": "-c extra_float_digits=-10 -c bytea_output=escape",
}
MYSQL = {
    "sql_select_limit": "1",
    "sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH'",
    "time_zone": "'+13:00'",
    "sql_auto_is_null": "1",
    "sql_safe_updates": "1",
    "sql_quote_show_create": "0",
    "group_concat_max_len": "4",
    "max_sort_length": "64",
    "foreign_key_checks": "0",
    "unique_checks": "0",
    "completion_type": "1",
    "default_storage_engine": "MyISAM",
    "autocommit": "0",
    "max_join_size": "1",
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "character_set_results": "latin1",
    "init_connect": "'SET NAMES latin1'",
}


def execute(url: str, *statements: str) -> None:
    engine = sql_engine(url)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def planted(databases: FreshDatabases, settings: dict[str, str]) -> str:
    """The address of a database that sets these for every role's sessions."""
    url = databases.new("USERS_DATABASE_URL")
    name = parse_address(url).database
    execute(url, *(f"ALTER DATABASE {name} SET {each} = {value}" for each, value in settings.items()))
    return url


async def shown(url: str, names: dict[str, str], statement: str) -> list[dict[str, Any]]:
    """What the sessions of a lane, of an operator and of a gateway have for these settings."""
    found = []
    address = parse_address(url)
    store: Any = open_store(url, VALUES)
    with closing(store):
        found.append({each: store.first_row(statement.format(each))[0] for each in names})
    operators: Any = kind_of(address).open_admin(address, VALUES.name)
    with closing(operators), operators._engine.begin() as connection:
        found.append({each: connection.execute(text(statement.format(each))).scalar() for each in names})
    database = open_database(url)
    assert isinstance(database, AsyncEngine)
    async with database.connect() as reader:
        found.append({each: (await reader.execute(text(statement.format(each)))).scalar() for each in names})
    await close_database(database)
    return found


class TestPlantedPostgresql(_OnServer):
    """By the database for each role, and by the environment for each process."""

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def url(self, databases: FreshDatabases, _environment: None) -> str:
        url = planted(databases, POSTGRESQL)
        migrate(VALUES, DatabaseSettings(database_url=url))
        return url

    async def test_each_session_has_what_it_relies_on(self, url: str) -> None:
        lane, operator, gateway = await shown(url, postgresql_session.WRITING, "SHOW {}")
        for found in (lane, operator, gateway):
            assert found.pop("DateStyle").startswith("ISO, ")
        wanted = {each: value for each, value in postgresql_session.WRITING.items() if each != "DateStyle"}
        assert lane == operator == wanted
        assert {each: gateway[each] for each in postgresql_session.READING if each != "DateStyle"} == {
            each: value for each, value in postgresql_session.READING.items() if each != "DateStyle"
        }
        assert gateway["client_encoding"] == "UTF8"


def test_a_limit_of_idle_sessions_ends_no_lane_and_operators_connect_again(databases: FreshDatabases) -> None:
    url = planted(databases, {"idle_session_timeout": "100"})
    migrate(VALUES, DatabaseSettings(database_url=url))
    store: Any = open_store(url, VALUES)
    with closing(store), closing(kind_of(parse_address(url)).open_admin(parse_address(url), VALUES.name)) as operators:
        assert store.first_row("SELECT 1")[0] in (1, "1")
        assert operators.sequence() == 0
        time.sleep(0.5)
        assert store.first_row("SELECT 2")[0] in (2, "2")
        assert operators.sequence() == 0


@pytest.fixture(scope="module")
def mysql() -> Iterator[MySQL]:
    """A server that sets all of these for every session. Its address is of an account that `init_connect` is for."""
    directory = Path(mkdtemp(prefix="write-coordinator-planted-"))
    directory.chmod(0o755)
    server = MySQL(directory / "mysql", ["planted"])
    server.options = ("--loose-skip-character-set-client-handshake", "--character-set-server=latin1")
    server.start()
    try:
        as_administrator(
            server,
            "CREATE USER 'plain'@'127.0.0.1' IDENTIFIED BY 'plain'",
            r"GRANT ALL ON `planted\_%`.* TO 'plain'@'127.0.0.1'",
            *(f"SET GLOBAL {name} = {value}" for name, value in MYSQL.items()),
        )
        yield server
    finally:
        server.stop()
        rmtree(directory, ignore_errors=True)


def as_administrator(server: MySQL, *statements: str) -> None:
    address = parse_address(server.url)
    connection = pymysql.connect(
        host="127.0.0.1", port=server.port, user=str(address.user), password=str(address.plain_password)
    )
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


class TestPlantedMysql(_OnServer):
    made: ClassVar[int] = 0

    @pytest.fixture
    def url(self, mysql: MySQL) -> str:
        type(self).made += 1
        as_administrator(mysql, f"CREATE DATABASE planted_{self.made}")
        url = f"mysql://plain:plain@127.0.0.1:{mysql.port}/planted_{self.made}"
        migrate(VALUES, DatabaseSettings(database_url=url))
        return url

    def test_a_migration_makes_tables_that_know_transactions(self, url: str) -> None:
        query = "SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = DATABASE()"
        engine = sql_engine(url)
        with engine.connect() as connection:
            assert connection.execute(text(query)).scalars().all() == ["InnoDB"]
        engine.dispose()

    async def test_each_session_has_what_it_relies_on(self, url: str) -> None:
        wanted = {name: value.strip("'") for name, value in mysql_session.VARIABLES.items()}
        wanted |= {f"character_set_{each}": "utf8mb4" for each in ("client", "connection", "results")}
        wanted |= {"autocommit": "1", "completion_type": "NO_CHAIN"}
        modes = set(wanted.pop("sql_mode").split(","))
        for found in await shown(url, {**wanted, "sql_mode": ""}, "SELECT @@{}"):
            assert set(found.pop("sql_mode").split(",")) == modes
            if (committed := found.pop("autocommit")) != 1:
                # SQLAlchemy's own, within the transaction of an operator's command.
                assert committed == 0
            assert {name: str(value) for name, value in found.items()} == {
                name: value for name, value in wanted.items() if name != "autocommit"
            }


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_postgresql_in_which_not_every_text_can_be_written_is_refused(
    databases: FreshDatabases, encoding: str
) -> None:
    beside = databases.new("USERS_DATABASE_URL")
    name = f"{parse_address(beside).database}_other"
    execute(beside, f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = f"{beside}_other"
    refusal = rf"the database {{}} has the encoding {encoding}, .*CREATE DATABASE … ENCODING 'UTF8'"
    try:
        with pytest.raises(ConfigurationError, match=refusal.format(name)):
            migrate(VALUES, DatabaseSettings(database_url=url))
        with (
            closing(open_store(url, VALUES)) as store,
            pytest.raises(ConfigurationError, match=refusal.format("of VALUES_DATABASE_URL")),
        ):
            store.check(VALUES.models)
    finally:
        execute(beside, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_role_for_which_no_foreign_key_counts_is_refused(databases: FreshDatabases) -> None:
    url = planted(databases, {})
    migrate(VALUES, DatabaseSettings(database_url=url))
    execute(url, f"ALTER DATABASE {parse_address(url).database} SET session_replication_role = replica")
    with closing(open_store(url, VALUES)) as store, pytest.raises(ConfigurationError, match="RESET session_replicati"):
        store.check(VALUES.models, must_sync=False)


@pytest.mark.parametrize("setting", ["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"])
def test_a_database_of_a_newer_release_is_not_migrated(databases: FreshDatabases, setting: str) -> None:
    url = databases.new(setting)
    migrate(VALUES, DatabaseSettings(database_url=url))
    execute(url, "UPDATE lane_schema_version SET version_num = 'lane_9999'")
    with pytest.raises(ConfigurationError, match=r"newer release: lane_schema_version is lane_9999.* up to lane_00"):
        migrate(VALUES, DatabaseSettings(database_url=url))
