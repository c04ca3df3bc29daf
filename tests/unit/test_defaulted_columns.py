"""A column by which rows are found, and which may be NULL: rows of before it are shown with a value that finds none."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from structlog.testing import capture_logs

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.open import open_store
from coordinator.stores.sql.defaulted_columns import defaulted_columns

LINES = Service("lines")


@LINES.row
class Line(Row, table="lines", key="id", index=("status", "place")):
    id: int
    status: str = "open"
    place: str | None = None
    note: str = ""


@pytest.mark.parametrize(("declared", "is_told"), [("VARCHAR(255)", True), ("VARCHAR(255) NOT NULL", False)])
def test_is_told_by_the_migration_and_at_the_start(tmp_path: Path, declared: str, is_told: bool) -> None:
    path = tmp_path / "lines.db"
    with closing(sqlite3.connect(path)) as connection:
        columns = f"id BIGINT NOT NULL PRIMARY KEY, status {declared}, place VARCHAR(255), note VARCHAR"
        connection.execute(f"CREATE TABLE lines ({columns})")
        connection.execute("CREATE INDEX lines_status ON lines (status, id)")
        connection.execute("CREATE INDEX lines_place ON lines (place, id)")
    url = f"sqlite:///{path}"
    with capture_logs() as logs, closing(open_store(url, LINES)) as store:
        migrate(LINES, DatabaseSettings(database_url=url))
        store.check(LINES.models)
    told = [line["why"] for line in logs if line["event"] == "column_may_be_null"]
    why = "a row that has none there is read with the default of Line.status, and is not found by it"
    assert told == 2 * is_told * [f"lines.status may be NULL: {why}: fill it, and make it NOT NULL"]


def test_of_a_view_and_of_a_type_that_nobody_knows_nothing_is_said() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE kept (id BIGINT, status VARCHAR(255), place VARCHAR(255), note VARCHAR)"
        )
        connection.exec_driver_sql("CREATE VIEW lines AS SELECT * FROM kept")
        assert defaulted_columns(connection, LINES.models) == []
        connection.exec_driver_sql("DROP VIEW lines")
        connection.exec_driver_sql("CREATE TABLE lines (id BIGINT, status VARCHAR(255) NOT NULL, made DATE(3))")
        assert defaulted_columns(connection, LINES.models) == []
    engine.dispose()
