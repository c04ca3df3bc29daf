"""A migration that was interrupted, at any of its statements, is finished by the next one."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from alembic import command
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymysql.connections import Connection as PymysqlConnection
from pymysql.cursors import Cursor
from sqlalchemy import Engine, MetaData, event, inspect, text

from coordinator.migrations.histories import ENVIRONMENT, alembic_config
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from shared.items import SERVICE as ITEMS
from shared.payments import SERVICE as PAYMENTS
from shared.users import SERVICE as USERS
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.forks import Forks
from tests.support.ledger import LEDGER
from tests.support.system import wait_until

pytestmark = pytest.mark.upgrades

ORDERS = Service(
    name="orders",
    models=(),
    handlers=(),
    metadata=MetaData(),
    migrations=Path(__file__).parents[1] / "support" / "interrupted_history",
)
LANE = Service(name="lane", models=(), handlers=())
STATEMENTS_MIN = 5
READS = ("SELECT", "PRAGMA")


class Interrupted(Exception):
    """As a signal comes. What is open is rolled back, as when the process is killed."""


@contextmanager
def _interrupted(after: int) -> Iterator[None]:
    """It is interrupted after a number of statements, counting those that change something, and commits."""
    left = after

    def count(statement: str) -> None:
        nonlocal left
        if statement.split(None, 1)[0].upper() in READS:
            return
        if left == 0:
            raise Interrupted
        left -= 1

    def before_execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        count(statement)

    def before_commit(_: Any) -> None:
        count("COMMIT")

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            count("change")
            return call(*args, **options)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (Database, "create_collection"),
            (Collection, "create_index"),
            (Collection, "drop_index"),
            (Collection, "update_one"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        event.listen(Engine, "before_cursor_execute", before_execute)
        event.listen(Engine, "commit", before_commit)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", before_execute)
            event.remove(Engine, "commit", before_commit)


@contextmanager
def _interrupted_at_a_commit(after: int, *, is_halfway: bool) -> Iterator[None]:
    """On MariaDB. Wherever a migration is interrupted, what is left is what the last COMMIT or DDL has left.

    `is_halfway`: the statement has committed what was open before it, and no more; otherwise it is done.
    """
    left = after
    execute, commit = Cursor.execute, PymysqlConnection.commit

    def interrupt_at(connection: Any, call: Callable[[], Any]) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            return call()
        if is_halfway:
            commit(connection)
        else:
            call()
        raise Interrupted

    def interrupted_execute(cursor: Any, statement: str, *parameters: Any) -> Any:
        call = partial(execute, cursor, statement, *parameters)
        is_ddl = statement.split(None, 1)[0].upper() in ("CREATE", "ALTER", "DROP", "RENAME")
        return interrupt_at(cursor.connection, call) if is_ddl else call()

    with pytest.MonkeyPatch.context() as patch:
        # Not by SQLAlchemy's events: the migration has statements of its own between them.
        patch.setattr(Cursor, "execute", interrupted_execute)
        patch.setattr(PymysqlConnection, "commit", lambda self: interrupt_at(self, partial(commit, self)))
        yield


def _migrate(service: Service, url: str) -> None:
    migrate(service, DatabaseSettings(database_url=url))


def _with_lane(service: Service, url: str) -> str:
    """A database in which only the service's own revisions are still to be done."""
    if service is not LANE and not url.startswith("mongodb"):
        _migrate(LANE.replace(name=service.name), url)
    return url


def _interrupt_everywhere(service: Service, new: Callable[[], str], look: Callable[[str], object]) -> None:
    """Interrupt the migration of one database again and again, a statement later each time until something stays."""
    whole, url = new(), _with_lane(service, new())
    _migrate(service, whole)
    after = interruptions = 0
    left: object = None
    while True:
        try:
            with _interrupted(after):
                _migrate(service, url)
        except Interrupted:
            interruptions += 1
            after = after + 1 if left == (left := look(url)) else 1
        else:
            break
    assert look(url) == look(whole)
    assert interruptions > STATEMENTS_MIN


_LASTING = {"lane_lease": "lane", "idempotency_secrets": "id", "fingerprint_keys": "id"}
"""The columns of tables whose others are not the same after every migration: times, and what is drawn."""


def _sql(url: str) -> dict[str, object]:
    """Tables as the server tells them, and rows."""
    engine = sql_engine(url)
    with engine.connect() as connection:
        inspector = inspect(connection)
        found: dict[str, object] = {each: inspector.get_view_definition(each) for each in inspector.get_view_names()}
        for table in inspector.get_table_names():
            columns = _LASTING.get(table, "*")
            rows = connection.execute(text(f"SELECT {columns} FROM {table}")).all()
            if connection.dialect.name == "mysql":
                # Not the next number, which grows with rows that were rolled back.
                created = connection.execute(text(f"SHOW CREATE TABLE {table}")).one()[1]
                schema: object = re.sub(r" AUTO_INCREMENT=\d+", "", created)
            else:
                schema = [
                    repr(each(table))
                    for each in (
                        inspector.get_columns,
                        inspector.get_pk_constraint,
                        inspector.get_foreign_keys,
                        inspector.get_indexes,
                        inspector.get_unique_constraints,
                        inspector.get_check_constraints,
                    )
                ]
            found[table] = (schema, sorted(map(repr, rows)))
    engine.dispose()
    return found


def _services(*services: Service) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", services, ids=lambda service: service.name)


def _mongodb(url: str) -> object:
    client: MongoClient[Any] = MongoClient(url)
    database = client.get_default_database()
    found = {
        name: (database[name].index_information(), [each["_id"] for each in database[name].find()])
        for name in database.list_collection_names()
    }
    client.close()
    return found


@pytest.mark.faults
@_services(LANE, ORDERS, PAYMENTS)
def test_on_mariadb(databases: FreshDatabases, service: Service) -> None:
    whole, url = (databases.new("PAYMENTS_DATABASE_URL") for _ in range(2))
    _with_lane(service, url)
    _migrate(service, whole)
    after = interruptions = 0
    seen: list[object] = []
    for is_halfway in cycle((True, False)):
        try:
            with _interrupted_at_a_commit(after, is_halfway=is_halfway):
                _migrate(service, url)
        except Interrupted:
            interruptions += 1
        else:
            break
        if not is_halfway:
            after = after + 1 if (left := _sql(url)) in seen else 0
            seen.append(left)
    assert _sql(url) == _sql(whole)
    assert interruptions > STATEMENTS_MIN


@pytest.mark.faults
@_services(LANE, ORDERS, USERS)
def test_on_postgresql(databases: FreshDatabases, service: Service) -> None:
    _interrupt_everywhere(service, lambda: databases.new("USERS_DATABASE_URL"), _sql)


@_services(LANE, ORDERS, PAYMENTS, USERS)
def test_on_sqlite(tmp_path: Path, service: Service) -> None:
    urls = (f"sqlite:///{tmp_path / str(number)}.db" for number in range(1000))
    _interrupt_everywhere(service, lambda: next(urls), _sql)


@pytest.mark.faults
@_services(ITEMS, LEDGER)
def test_on_mongodb(databases: FreshDatabases, service: Service) -> None:
    _interrupt_everywhere(service, lambda: databases.new("ITEMS_DATABASE_URL"), _mongodb)


def test_killed_while_the_server_is_at_a_statement(databases: FreshDatabases, forks: Forks, tmp_path: Path) -> None:
    whole, url = (databases.new("PAYMENTS_DATABASE_URL") for _ in range(2))
    _migrate(PAYMENTS, whole)
    engine = sql_engine(url)
    with engine.connect() as connection, engine.connect() as reading:
        config = alembic_config(connection, ENVIRONMENT / "versions", "lane_schema_version", lane_tables.metadata)
        command.upgrade(config, "lane_0001")
        # Until the transaction ends, no other may change the table: it is the second that lane_0002 changes.
        reading.exec_driver_sql("BEGIN")
        reading.exec_driver_sql("SELECT * FROM publishers")
        process = forks.run(
            ["coordinator", "migrate", "payments"], tmp_path / "log", os.environ | {"PAYMENTS_DATABASE_URL": url}
        )
        waiting = text(
            "SELECT count(*) FROM information_schema.processlist "
            "WHERE db = DATABASE() AND state LIKE 'Waiting for table metadata lock'"
        )
        wait_until(lambda: connection.execute(waiting).scalar() == 1, "the migration is at an ALTER TABLE", process)
        process.kill()
        reading.exec_driver_sql("COMMIT")
        _migrate(PAYMENTS, url)
    engine.dispose()
    assert _sql(url) == _sql(whole)


@pytest.fixture
def revision(databases: FreshDatabases, tmp_path: Path) -> "Revision":
    return Revision(databases.new("PAYMENTS_DATABASE_URL"), tmp_path)


class Revision:
    """The only one of a service on MariaDB. Its statements may be changed."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._service = Service(name="orders", models=(), handlers=(), metadata=MetaData(), migrations=folder)
        _with_lane(self._service, url)

    def migrate(self, *statements: str) -> None:
        body = "".join(f"    op.execute({each!r})\n" for each in statements)
        head = 'from alembic import op\n\nrevision = "orders_0001"\ndown_revision = None\n\n\n'
        (self._folder / "orders_0001.py").write_text(f"{head}def upgrade() -> None:\n{body}")
        _migrate(self._service, self.url)

    def rows(self, statement: str) -> list[Any]:
        engine = sql_engine(self.url)
        with engine.connect() as connection:
            ran = connection.execute(text(statement))
            found = list(ran.scalars()) if ran.returns_rows else []
        engine.dispose()
        return found


TABLE = "CREATE TABLE numbers (number BIGINT NOT NULL)"
ROWS = "INSERT INTO numbers VALUES (1), (1)"
INDEX = "ALTER TABLE numbers ADD UNIQUE INDEX numbers_unique (number)"
CHANGE = "UPDATE numbers SET number = number + 1"


def test_a_statement_that_the_server_refused_is_tried_again(revision: "Revision") -> None:
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="Duplicate entry"):
            revision.migrate(TABLE, ROWS, INDEX, CHANGE)
    revision.rows("DELETE FROM numbers LIMIT 1")
    revision.migrate(TABLE, ROWS, INDEX, CHANGE)
    assert revision.rows("SELECT number FROM numbers") == [2]
    assert "numbers_unique" in revision.rows("SELECT index_name FROM information_schema.statistics")


def test_a_statement_that_the_server_refused_may_be_corrected(revision: "Revision") -> None:
    with pytest.raises(ConfigurationError, match="Duplicate entry"):
        revision.migrate(TABLE, ROWS, INDEX, CHANGE)
    revision.migrate(TABLE, ROWS, "ALTER TABLE numbers ADD INDEX numbers_unique (number)", CHANGE)
    assert revision.rows("SELECT number FROM numbers") == [2, 2]


@pytest.mark.parametrize("changed", [[TABLE], [TABLE, "INSERT INTO numbers VALUES (1), (3)"], [TABLE, CHANGE, ROWS]])
def test_rows_are_not_written_twice_though_the_revision_has_changed(revision: "Revision", changed: list[str]) -> None:
    """As one does that writes what it has computed from rows."""
    with pytest.raises(ConfigurationError, match="Duplicate entry"):
        revision.migrate(TABLE, ROWS, INDEX)
    with pytest.raises(ConfigurationError, match="its revision no longer issues the statements that have written rows"):
        revision.migrate(*changed)
    assert revision.rows("SELECT number FROM numbers") == [1, 1]


def test_a_revision_may_look_what_is_done(revision: "Revision") -> None:
    with pytest.raises(ConfigurationError, match="Duplicate entry"):
        revision.migrate(TABLE, ROWS, INDEX)
    revision.migrate(ROWS, CHANGE, TABLE.replace("numbers", "others"))
    assert revision.rows("SELECT number FROM numbers") == [2, 2]


PROCEDURE = f"CREATE PROCEDURE grow() BEGIN {TABLE}; {ROWS}; {INDEX}; END"


def test_a_statement_of_which_nothing_tells_whether_it_is_done_is_an_operators(revision: "Revision") -> None:
    for reason in ("Duplicate entry", "does not tell whether it is done, in row 3 of the table migration_progress"):
        with pytest.raises(ConfigurationError, match=reason):
            revision.migrate(PROCEDURE, "CALL grow()", CHANGE)
    revision.rows("UPDATE migration_progress SET schema_before = 'done' WHERE number = 3")
    revision.migrate(PROCEDURE, "CALL grow()", CHANGE)
    assert revision.rows("SELECT number FROM numbers") == [2, 2]
    assert "migration_progress" not in revision.rows("SHOW TABLES")


def test_an_owner_that_may_not_remove_tables_migrates(databases: FreshDatabases) -> None:
    url = databases.new("PAYMENTS_DATABASE_URL")
    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {name}@'%%' IDENTIFIED BY 'secret'")
        connection.exec_driver_sql(
            f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON {name}.* TO {name}@'%%'"
        )
        owner = urlunsplit(parts._replace(netloc=f"{name}:secret@{parts.netloc.rpartition('@')[2]}"))
        for _ in range(2):
            _migrate(PAYMENTS, owner)
            assert connection.execute(text("SELECT count(*) FROM migration_progress")).scalar() == 0
        connection.exec_driver_sql(f"DROP USER {name}@'%%'")
    engine.dispose()
    _migrate(PAYMENTS, url)
    assert "migration_progress" not in _sql(url)
