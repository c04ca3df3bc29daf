"""A list by a column costs what its page costs, however many rows have the value, and wherever they are.

The value is frequent, and the first rows of the table have another one: whoever goes along the primary key reads
thousands of rows for the first page.
"""

from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa
import structlog
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import close_database, open_database
from coordinator.client.repository import open_repository
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Key, Row, RowSelection
from coordinator.service.service import Service
from coordinator.stores.mysql.statements import MysqlStatements
from coordinator.stores.open import open_store
from coordinator.stores.postgresql.statements import PostgresqlStatements
from coordinator.stores.sql.declared_tables import OrderedIndex, ordered_indexes, tables_of
from coordinator.stores.sql.schema import Schema
from tests.support.databases import FreshDatabases, numbers_to, sql_engine

TASKS = Service("tasks")
ROWS, SHUT, LIMIT = 60_000, 30_000, 50


@TASKS.row
class Task(Row, table="tasks", key="id", index=("status", ("owner", "status"), "team")):
    """The first half is shut."""

    id: int
    status: Literal["open", "shut"]
    owner: int
    team: str | None = None


@TASKS.row
class Part(Row, table="parts", key=("task_id", "part"), index=("status", "part")):
    task_id: int
    part: int
    status: bool


@TASKS.row
class Place(Row, table="places", key=("zone", "number"), index=(("zone", "status"),)):
    """All in one zone."""

    zone: int
    number: int
    status: bool


@TASKS.row
class Slot(Row, table="slots", key="id", index=("status", "owner", ("owner", "status"))):
    """All of its columns are in one index."""

    id: int
    status: bool
    owner: int | None = None


WHERE: dict[str, tuple[type[Row], dict[str, Any], Key | None]] = {
    "one column": (Task, {"status": "open"}, None),
    "behind a key": (Task, {"status": "open"}, 100),
    "two columns": (Task, {"owner": 1, "status": "open"}, None),
    "two columns behind a key": (Task, {"owner": 1, "status": "open"}, 100),
    "without a value": (Task, {"team": None}, None),
    "without a value behind a key": (Task, {"team": None}, 100),
    "a key of two columns": (Part, {"status": True}, None),
    "behind a key of two columns": (Part, {"status": True}, (100, 0)),
    "the second column of a key": (Part, {"part": 1}, None),
    "the second column of a key, behind a key": (Part, {"part": 1}, (100, 0)),
    "the first column of a key, and another": (Place, {"zone": 1, "status": True}, None),
    "the first column of a key, and another, behind a key": (Place, {"zone": 1, "status": True}, (1, 100)),
    "all, behind a key": (Part, {}, (45_000, 0)),
    "all, behind a key of many rows with its first column": (Place, {}, (1, 45_000)),
    "the first column of a key, behind a key": (Place, {"zone": 1}, (1, 45_000)),
    "one column, and an index has all": (Slot, {"status": True}, None),
    "one column, and an index has all, behind a key": (Slot, {"status": True}, 100),
    "without a value, and an index has all": (Slot, {"owner": None}, None),
    "without a value, and an index has all, behind a key": (Slot, {"owner": None}, 100),
    "two, one without a value": (Slot, {"owner": None, "status": True}, None),
    "two, one without a value, behind a key": (Slot, {"owner": None, "status": True}, 100),
}
_NUMBERS = {
    "postgresql": numbers_to(ROWS, is_postgresql=True),
    "mysql": numbers_to(ROWS, is_postgresql=False),
    "sqlite": f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)",
}


def filled(url: str) -> Engine:
    engine = sql_engine(url)
    kind = engine.dialect.name.replace("mariadb", "mysql")
    is_open = f"n > {SHUT}"
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tasks (id, status, owner, team) "
                f"SELECT n, CASE WHEN {is_open} THEN 'open' ELSE 'shut' END, 1, "
                f"CASE WHEN {is_open} THEN NULL ELSE 'a' END FROM {_NUMBERS[kind]}"
            )
        )
        connection.execute(
            text(
                "INSERT INTO parts (task_id, part, status) "
                f"SELECT n, CASE WHEN {is_open} THEN 1 ELSE 0 END, {is_open} FROM {_NUMBERS[kind]}"
            )
        )
        connection.execute(
            text(f"INSERT INTO places (zone, number, status) SELECT 1, n, {is_open} FROM {_NUMBERS[kind]}")
        )
        connection.execute(
            text(
                "INSERT INTO slots (id, status, owner) "
                f"SELECT n, {is_open}, CASE WHEN {is_open} THEN NULL ELSE 1 END FROM {_NUMBERS[kind]}"
            )
        )
        if kind != "sqlite":
            for table in ("tasks", "parts", "places", "slots"):
                connection.execute(text(f"ANALYZE {'TABLE ' if kind == 'mysql' else ''}{table}"))
    return engine


def rows_read(engine: Engine, statement: str, arguments: Any = None) -> int:
    """How many rows the server looks at for it; on SQLite the number of those that it sorts is none or all."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            explained = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
            ((plan,),) = connection.exec_driver_sql(explained, arguments)
            return _looked_at(plan[0]["Plan"])
        if engine.dialect.name == "sqlite":
            plans = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", arguments).all()
            is_walk = "TEMP B-TREE" in str(plans) or "INDEX" not in str(plans)
            return ROWS if is_walk else LIMIT
        connection.exec_driver_sql("FLUSH STATUS")
        connection.exec_driver_sql(statement, arguments).all()
        counted = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
        return sum(int(number) for _, number in counted)


def _looked_at(plan: Any) -> int:
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return int(max([own, *(_looked_at(part) for part in plan.get("Plans", ()))]))


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", ""], ids=["PostgreSQL", "MySQL", "SQLite"])
def url(request: pytest.FixtureRequest, databases: FreshDatabases, tmp_path: Path) -> str:
    url = databases.new(request.param) if request.param else f"sqlite:///{tmp_path}/tasks.sqlite"
    migrate(TASKS, DatabaseSettings(database_url=url))
    filled(url).dispose()
    return url


async def test_a_page_of_a_gateway_reads_no_more_rows_than_it_has(url: str) -> None:
    database, engine = open_database(url), sql_engine(url)
    assert isinstance(database, AsyncEngine)
    asked: list[tuple[str, Any]] = []
    event.listen(database.sync_engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    costs: dict[str, int] = {}
    for name, (model, where, after) in WHERE.items():
        page = await open_repository(database, TASKS, model).page(after, LIMIT - 1, where)
        assert len(page.items) == LIMIT - 1
        assert all(getattr(row, column) == value for row in page.items for column, value in where.items())
        costs[name] = rows_read(engine, *asked[-1])
    await close_database(database)
    engine.dispose()
    assert {name: cost for name, cost in costs.items() if cost > 2 * LIMIT} == {}


def test_a_selection_of_the_lane_reads_no_more_rows_than_it_has(url: str) -> None:
    engine = sql_engine(url)
    costs: dict[str, int] = {}
    with closing(open_store(url, TASKS)) as store:
        transaction = store.begin()
        for name, (model, where, after) in WHERE.items():
            selection = RowSelection(model, tuple(sorted(where.items())), LIMIT, after)
            (rows,) = transaction.load([selection])
            assert len(rows) == LIMIT
            assert all(getattr(row, column) == value for row in rows for column, value in where.items())
            statement = _statement(engine.dialect.name, selection)
            costs[name] = 0 if statement is None else rows_read(engine, statement)
        transaction.rollback()
    engine.dispose()
    assert {name: cost for name, cost in costs.items() if cost > 2 * LIMIT} == {}


def _statement(kind: str, selection: RowSelection[Any]) -> str | None:
    table = Schema(tables_of(TASKS)).of(selection.model)
    asked = (selection.limit, selection.after, selection.where)
    if kind == "postgresql":
        query, arguments = PostgresqlStatements(table).first(*asked)
        written = query.decode()
        for number, argument in enumerate(arguments, 1):
            written = written.replace(f"${number}", f"'{argument.decode()}'")
        return written
    return None if kind == "sqlite" else MysqlStatements(table).first(*asked)


def test_an_index_without_the_key_is_told_with_the_statement_that_has_it(url: str) -> None:
    engine = sql_engine(url)
    is_mysql = engine.dialect.name in ("mysql", "mariadb")
    with engine.connect() as connection:
        connection.execute(text("DROP INDEX tasks_status_index" + (" ON tasks" if is_mysql else "")))
        connection.execute(text("CREATE INDEX of_status ON tasks (status)"))
    for is_told in (True, False):
        with structlog.testing.capture_logs() as logs:
            migrate(TASKS, DatabaseSettings(database_url=url))
        told = [each["what_to_do"] for each in logs if each["event"] == "index_without_key"]
        assert len(told) == (is_told and not is_mysql)
        with engine.connect() as connection:
            for statement in told:
                assert statement.startswith('CREATE INDEX "tasks_status_index" ON "tasks" ("status", "id")')
                connection.execute(text(statement))
    engine.dispose()


def test_the_indexes_of_a_table_that_is_declared_elsewhere_are_as_it_says() -> None:
    columns: tuple[sa.Column[Any], ...] = (
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("status", sa.String(4)),
        sa.Column("owner", sa.Integer()),
    )
    table = sa.Table("tasks", sa.MetaData(), *columns, sa.Index("first", "status"), sa.Index("b", "owner", "status"))
    assert ordered_indexes(Task, table) == {}
    sa.Index("second", table.c.owner, table.c.status, table.c.id)
    hint = "/*+ INDEX(`tasks` `second`) */"
    assert ordered_indexes(Task, table) == {("owner", "status"): OrderedIndex("status", hint)}
    assert ordered_indexes(Task, tables_of(TASKS).tables["tasks"]) == {
        ("status",): OrderedIndex("status", "/*+ INDEX(`tasks` `tasks_status_index`) */"),
        ("owner", "status"): OrderedIndex("status", "/*+ INDEX(`tasks` `tasks_owner_status_index`) */"),
        ("team",): OrderedIndex("team", "/*+ INDEX(`tasks` `tasks_team_index`) */"),
    }
    assert ordered_indexes(Part, tables_of(TASKS).tables["parts"])[("status",)] == OrderedIndex("status", "")
