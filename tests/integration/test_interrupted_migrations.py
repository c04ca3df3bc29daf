"""A migration that was interrupted, at any of its statements, is finished by the next one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, MetaData, event, inspect, text

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.service import Service
from shared.payments import SERVICE as PAYMENTS
from shared.users import SERVICE as USERS
from tests.support.databases import sql_engine

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

    event.listen(Engine, "before_cursor_execute", before_execute)
    event.listen(Engine, "commit", before_commit)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", before_execute)
        event.remove(Engine, "commit", before_commit)


def _migrate(service: Service, url: str) -> None:
    migrate(service, DatabaseSettings(database_url=url))


def _interrupt_everywhere(service: Service, new: Callable[[], str], look: Callable[[str], object]) -> None:
    """Interrupt the migration of one database again and again, a statement later each time until something stays."""
    whole, url = new(), new()
    if service is not LANE:
        _migrate(msgspec.structs.replace(LANE, name=service.name), url)
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


def _sql(url: str) -> dict[str, object]:
    """Tables as the server tells them, and rows."""
    engine = sql_engine(url)
    with engine.connect() as connection:
        inspector = inspect(connection)
        found: dict[str, object] = {each: inspector.get_view_definition(each) for each in inspector.get_view_names()}
        for table in inspector.get_table_names():
            # The lease has the time of its row.
            columns = "lane" if table == "lane_lease" else "*"
            rows = connection.execute(text(f"SELECT {columns} FROM {table}")).all()
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


@pytest.mark.parametrize("service", [LANE, ORDERS, PAYMENTS, USERS], ids=lambda service: service.name)
def test_on_sqlite(tmp_path: Path, service: Service) -> None:
    urls = (f"sqlite:///{tmp_path / str(number)}.db" for number in range(1000))
    _interrupt_everywhere(service, lambda: next(urls), _sql)
