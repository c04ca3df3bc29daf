"""SQLite as a kind of database."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import quote

from sqlalchemy import URL, ColumnElement, Connection, Engine, ExceptionContext, create_engine, event, func

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.port import Lack, Store
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.kind import SqlKind
from coordinator.stores.sqlite.file import check_there, file_of, make_file
from coordinator.stores.sqlite.log_origin import DAMAGED, is_of_damage, opening_problem
from coordinator.stores.sqlite.store import SqliteStore, is_of_text
from coordinator.stores.writers import Writers, WritersQuery


class _Sqlite(Dialect):
    driver = "sqlite"
    reading_driver: ClassVar[str] = "sqlite+aiosqlite"
    admin_isolation: ClassVar[str | None] = None

    def open_store(self, address: Address, service: Service) -> Store:
        return SqliteStore(file_of(address.database), service)

    def connection(self, address: Address) -> dict[str, Any]:  # noqa: ARG002  # it has a path and nothing else
        return {}

    def engine(self, address: Address, **options: Any) -> Engine:
        for limit in ("connect_timeout_s", "lock_timeout_s", "silence_s"):
            options.pop(limit, None)
        path = file_of(address.database)
        check_there(path)
        # Without `rw` a connection would make a file that is taken away after this look.
        url = URL.create(self.driver, database=f"file:{quote(path)}", query={"mode": "rw", "uri": "true"})
        engine = create_engine(url, hide_parameters=True, **options)
        _looked_at_first(engine, path, ConfigurationError)
        return engine

    def make(self, address: Address) -> None:
        make_file(file_of(address.database))

    def reading(self, address: Address, connect_timeout_s: int) -> tuple[URL, dict[str, Any]]:  # noqa: ARG002
        """A file has no roles: the connection is opened so that it cannot write, and makes no file."""
        file = f"file:{quote(file_of(address.database))}"
        return URL.create(self.reading_driver, database=file, query={"mode": "ro", "uri": "true"}), {}

    def opened_reader(self, engine: Engine, address: Address) -> None:
        # As SQLite's own error: reads wait until somebody acts.
        _looked_at_first(engine, file_of(address.database), sqlite3.OperationalError)

    def is_of_schema(self, error: BaseException) -> bool:
        return str(error).startswith("no such ")

    def is_of_value(self, error: BaseException) -> bool:
        return is_of_text(error)

    def lack(self, error: BaseException) -> Lack | None:
        return "table" if str(error).startswith("no such table") else None

    def writers(self, connection: Connection, query: WritersQuery) -> Writers:
        from coordinator.stores.sqlite.writers import writers  # noqa: PLC0415  # a lane does not look at others

        return writers(connection, query)

    def foreign_rights(self, connection: Connection, query: WritersQuery) -> ForeignRights:
        from coordinator.stores.sqlite.foreign_rights import foreign_rights  # noqa: PLC0415  # nor takes their rights

        return foreign_rights(connection, query)

    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        return func.instr(column, part)

    @contextmanager
    def alone(self, connection: Connection, database: str) -> Iterator[None]:  # noqa: ARG002
        """A migration is one transaction, DDL included. Python's module by itself would begin it at the first row."""
        driver: Any = connection.connection.driver_connection
        driver.isolation_level = None
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield

    def allow(self, connection: Connection, role: Address, database: str, tables: Sequence[str]) -> None:
        """A file has no roles."""

    def allow_reading(self, connection: Connection, reader: Address, database: str, rights: ReadingRights) -> None:
        """A file has no roles."""

    def account_lines(
        self,
        owner: Address | None,  # noqa: ARG002
        lane: Address,  # noqa: ARG002
        reader: Address | None,  # noqa: ARG002
        rights: ReadingRights,  # noqa: ARG002
    ) -> Sequence[str]:
        return ["-- SQLite: a file has no accounts; whoever may open it may do everything"]


def _looked_at_first(engine: Engine, path: str, refusal: type[Exception]) -> None:
    """Have each connection to the file refused that would read, or write, it with the log of another one."""

    @event.listens_for(engine, "do_connect")
    def look(*_: object) -> None:
        if (problem := opening_problem(path)) is not None:
            raise refusal(problem)

    @event.listens_for(engine, "handle_error")
    def explain(context: ExceptionContext) -> None:
        error = context.original_exception
        if is_of_damage(error) and DAMAGED not in str(error):
            error.args = (f"{error}{DAMAGED}",)


KIND = SqlKind(_Sqlite())
