"""Every cell of the table of SQL databases in docs/WHO_MAY.md, on PostgreSQL and on MySQL."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from msgspec import Struct
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError

from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.kinds import kind_of
from coordinator.stores.reading_rights import reading_rights
from tests.e2e.who_may.table import Act, acts_of, wrong_cells
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.servers import Environment

pytestmark = pytest.mark.doors

ACTS = acts_of("In a database of SQL")
NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
DENIED: Final = ("permission denied", "' to database '", "must be owner", "command denied", "Access denied; you need")
WAITED: Final = ("lock timeout", "Lock wait timeout exceeded")
NO_LOGIN: Final = ("password authentication failed", "Access denied for user")
ADDED: Final = {
    "users": "INSERT INTO users (id, name, email, credit, version, created_at) "
    "SELECT 99, name, 'y', credit, version, created_at FROM users",
    "payments": "INSERT INTO refunds (id, payment_id, amount, status, created_at) "
    "SELECT 99, payment_id, amount, status, created_at FROM refunds",
}


class Trial(Struct, frozen=True):
    """An act: a statement with the names of the service's {table} and of the {reader}.

    `shows` asks for what it has made, in its own transaction; None: it returns or changes rows. `on_mysql` is the
    statement there, where it differs; empty: there is no such thing. `holds_up`: what the owner of the tables then
    waits for. `isolation` is that of the transaction.
    """

    statement: str
    shows: str | None = None
    on_mysql: str | None = None
    holds_up: str | None = None
    isolation: str = "READ COMMITTED"


def _made(view: str, condition: str) -> str:
    return f"SELECT count(*) FROM information_schema.{view} WHERE {condition}"  # constants of ours


TRIALS: Final[dict[str, Trial]] = {
    "read rows": Trial("SELECT * FROM {table}"),
    "read the log of commands": Trial("SELECT result FROM command_log"),
    "read API keys, which are digests": Trial("SELECT digest FROM api_keys"),
    "read the secret of idempotency keys": Trial("SELECT secret FROM idempotency_secrets"),
    "read the keys of fingerprints": Trial("SELECT secret FROM fingerprint_keys"),
    "read whose the database is": Trial("SELECT lane FROM lane_lease"),
    "read dead letters": Trial("SELECT arguments FROM dead_letters"),
    "read parked commands": Trial("SELECT * FROM parked"),
    "read the outbox": Trial("SELECT arguments FROM outbox"),
    "read timers": Trial("SELECT * FROM lane_timers"),
    "read who changed rows": Trial("SELECT * FROM row_changes"),
    "read what operators did": Trial("SELECT * FROM operator_acts"),
    "read where personal data is": Trial("SELECT * FROM personal_entries"),
    "read a table that is nobody's yet": Trial("SELECT * FROM halls"),
    "add a row": Trial("{added}"),
    "change a row": Trial("UPDATE {table} SET version = version + 1"),
    "delete a row": Trial("DELETE FROM {table}"),
    "lock rows": Trial("SELECT * FROM {table} FOR UPDATE"),
    "lock rows against changes": Trial(
        "SELECT * FROM {table} FOR SHARE", on_mysql="SELECT * FROM {table} LOCK IN SHARE MODE"
    ),
    "hold a write up by reading": Trial(
        "SELECT * FROM {table}", holds_up="UPDATE {table} SET version = version", isolation="SERIALIZABLE"
    ),
    "hold a migration up by reading": Trial(
        "SELECT * FROM {table}", holds_up="ALTER TABLE {table} ADD COLUMN more BIGINT"
    ),
    "take a lock of a name of its own": Trial("SELECT pg_try_advisory_lock(7)", on_mysql="SELECT GET_LOCK('mine', 0)"),
    "make a temporary table": Trial("CREATE TEMPORARY TABLE passing (id BIGINT)", "SELECT 1"),
    "keep a large object": Trial("SELECT lo_creat(-1)", on_mysql=""),
    "change its own password": Trial(
        "ALTER ROLE CURRENT_USER PASSWORD 'mine'", "SELECT 1", on_mysql="SET PASSWORD = {password}"
    ),
    "change the log of commands": Trial("UPDATE command_log SET status = 'rejected'"),
    "delete from the log of commands": Trial("DELETE FROM command_log"),
    "take the lease": Trial("UPDATE lane_lease SET epoch = epoch + 1"),
    "add an API key": Trial(
        "INSERT INTO api_keys (id, digest, subject, scopes, created_at, created_by) "
        "SELECT 'y', 'y', subject, scopes, created_at, created_by FROM api_keys"
    ),
    "change the secret of idempotency keys": Trial("UPDATE idempotency_secrets SET secret = 'mine'"),
    "change the keys of fingerprints": Trial("UPDATE fingerprint_keys SET secret = 'mine'"),
    "put a command into the outbox": Trial("UPDATE outbox SET type = 'payments.capture'"),
    "discard a dead letter": Trial("DELETE FROM dead_letters"),
    "make a table": Trial("CREATE TABLE made (id BIGINT)", _made("tables", "table_name = 'made'")),
    "add a column": Trial(
        "ALTER TABLE halls ADD COLUMN more BIGINT", _made("columns", "table_name = 'halls' AND column_name = 'more'")
    ),
    "make an index": Trial(
        "CREATE INDEX more ON halls (id)",
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'halls' AND indexname = 'more'",
    ),
    "empty a table at once": Trial("TRUNCATE TABLE halls", "SELECT 1 - count(*) FROM halls"),
    "make a trigger": Trial(
        "CREATE TRIGGER more BEFORE UPDATE ON halls FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        _made("triggers", "trigger_name = 'more' AND event_object_table = 'halls'"),
        on_mysql="CREATE TRIGGER more BEFORE UPDATE ON halls FOR EACH ROW SET NEW.id = NEW.id",
    ),
    "give another role a right": Trial(
        "GRANT INSERT ON halls TO {reader}",
        _made("table_privileges", "table_name = 'halls' AND privilege_type = 'INSERT' AND grantee LIKE '%reader%'"),
    ),
    "drop a table": Trial("DROP TABLE halls", "SELECT 1 - " + _made("tables", "table_name = 'halls'")[7:]),
}


_IN_TRANSACTIONS: Final = {"isolation_level": "READ COMMITTED"}


class Database:
    """A lane's migrated database, with a row in each table; and its roles' addresses."""

    def __init__(self, lane: str, environment: Environment, administrators: Environment) -> None:
        prefix = lane.upper()
        owner = administrators[f"{prefix}_DATABASE_URL"]
        lane_url, reader_url = environment[f"{prefix}_DATABASE_URL"], environment[f"{prefix}_READER_URL"]
        service = registry().service(lane)
        migrate(service, DatabaseSettings(database_url=lane_url, reader_url=reader_url, migration_url=owner))
        rights = reading_rights(service)
        made_by, for_lane, for_reader = (parse_address(url) for url in (owner, lane_url, reader_url))
        kind_of(made_by).make_accounts(made_by, for_lane, for_reader, rights)
        self.lane = lane
        parts = urlsplit(owner)
        stranger = parts._replace(netloc=f"stranger:stranger@{parts.hostname}:{parts.port}").geturl()
        addresses = {"stranger": stranger, "reader": reader_url, "lane": lane_url, "migrator": owner}
        self.engines = {role: sql_engine(url).execution_options(**_IN_TRANSACTIONS) for role, url in addresses.items()}
        self.owner: Engine = self.engines["migrator"]
        self.is_mysql = self.owner.dialect.name in ("mysql", "mariadb")
        with self.owner.connect() as connection:
            version = str(connection.exec_driver_sql("SELECT VERSION()").scalar())
        self.server = next(name for name in ("PostgreSQL", "MariaDB", "") if name in version) or "MySQL"
        self.passwords = {role: str(urlsplit(url).password) for role, url in addresses.items()}
        reader = str(urlsplit(reader_url).username)
        self.names = {
            "table": lane,
            "added": ADDED[lane],
            "reader": f"'{reader}'@'%'" if self.is_mysql else reader,
        }
        with self.owner.begin() as connection:
            self._seed(connection)

    def close(self) -> None:
        for engine in self.engines.values():
            engine.dispose()

    def _seed(self, connection: Connection) -> None:
        self._known = MetaData()
        self._known.reflect(connection)
        for table in self._known.sorted_tables:
            if connection.execute(select(table).limit(1)).first() is None:
                connection.execute(insert(table).values(_row(table)))

    def set_up(self) -> None:
        """A table to be broken, and nothing that another attempt has left."""
        with self.owner.begin() as connection:
            for name in ("halls", "made"):
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
            connection.exec_driver_sql("CREATE TABLE halls (id BIGINT)")
            connection.exec_driver_sql("INSERT INTO halls VALUES (1)")

    def names_of(self, role: str) -> dict[str, str]:
        """The names in a statement of a role."""
        password = f"'{self.passwords[role]}'"
        return self.names | {"password": f"PASSWORD({password})" if self.server == "MariaDB" else password}

    def waits(self, statement: str) -> bool:
        """Whether the owner waits a second for others to let a statement be run; it is rolled back."""
        limit = (
            "SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1" if self.is_mysql else "lock_timeout = '1s'"
        )
        with self.owner.connect() as connection:
            connection.exec_driver_sql(f"SET {limit}")
            try:
                connection.exec_driver_sql(statement.format(**self.names))
            except DBAPIError as error:
                if not any(words in str(error.orig) for words in WAITED):
                    raise
                return True
            finally:
                connection.invalidate()
        return False

    def state(self) -> list[object]:
        """All rows, the shape of all tables, triggers and rights."""
        here = "table_schema = DATABASE()" if self.is_mysql else "table_schema = 'public'"
        indexes = f"information_schema.statistics WHERE {here}" if self.is_mysql else "pg_indexes"
        with self.owner.begin() as connection:
            tables = [*self._known.sorted_tables, Table("halls", MetaData(), Column("id", Integer))]
            state: list[object] = [sorted(map(str, connection.execute(select(table)))) for table in tables]
            asked = (
                f"table_name, column_name FROM information_schema.columns WHERE {here} ORDER BY 1, 2",
                f"count(*) FROM information_schema.table_privileges WHERE {here}",
                f"count(*) FROM {indexes}",
                "count(*) FROM information_schema.triggers",
            )
            return state + [connection.execute(text(f"SELECT {each}")).all() for each in asked]


def _row(table: Table) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column in table.columns:
        if column.nullable and column.name != "result":
            continue
        values[column.name] = {int: 1, datetime: NOW, bytes: b"{}"}.get(column.type.python_type, "x")
    return values


@pytest.fixture(scope="module", params=["users", "payments"], ids=["postgresql", "mysql"])
def database(
    request: pytest.FixtureRequest, server_environment: Environment, administrators: Environment
) -> Iterator[Database]:
    made = FreshDatabases(server_environment, administrators)
    try:
        database = Database(request.param, *made.environments())
        yield database
        database.close()
    finally:
        made.drop()


def test_each_act_is_tried() -> None:
    assert [act.name for act in ACTS] == list(TRIALS)
    assert [act.name for act in ACTS if not any("yes" in cell for cell in act.gets.values())] == []


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_who_may(act: Act, database: Database) -> None:
    got = {role: _got(act, role, database) for role in act.gets}
    assert wrong_cells(act, got, on=database.server) == []


def _got(act: Act, role: str, database: Database) -> str:
    database.set_up()
    before = database.state()
    trial = TRIALS[act.name]
    statement = trial.statement if not database.is_mysql or trial.on_mysql is None else trial.on_mysql
    if role != "stranger" and not statement:
        return "none"
    try:
        with database.engines[role].connect().execution_options(isolation_level=trial.isolation) as connection:
            done = connection.exec_driver_sql(
                (statement or "SELECT 1").format(**database.names_of(role)), execution_options={"no_parameters": True}
            )
            effect = bool(done.fetchall()) if done.returns_rows else bool(done.rowcount)
            if trial.shows is not None:
                shows = trial.shows
                if database.is_mysql and "pg_indexes" in shows:
                    shows = _made("statistics", "table_name = 'halls' AND index_name = 'more'")
                effect = bool(connection.exec_driver_sql(shows, execution_options={"no_parameters": True}).scalar())
            if trial.holds_up is not None and not database.waits(trial.holds_up):
                return "no"
            connection.rollback()
    except DBAPIError as error:
        message = str(error.orig)
        if any(words in message for words in DENIED):
            return "denied" if database.state() == before else "denied, and yet with an effect"
        if any(words in message for words in NO_LOGIN):
            return "no login"
        raise
    if effect:
        return "yes"
    # PostgreSQL only warns that nothing was granted.
    return "denied" if statement.startswith("GRANT") and database.state() == before else "without effect"
