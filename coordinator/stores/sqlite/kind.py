"""SQLite, as the framework asks for it."""

from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, func

from coordinator.service.service import Service
from coordinator.stores.port import Store
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.kind import SqlKind
from coordinator.stores.sqlite.store import SqliteStore


class _Sqlite(Dialect):
    driver = "sqlite"
    reading_driver: ClassVar[str | None] = None
    admin_isolation: ClassVar[str | None] = None

    def open_store(self, url: str, service: Service) -> Store:
        return SqliteStore(url.partition(":///")[2], service)

    def connect_limits(self, connect_timeout_s: int) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def is_of_schema(self, error: BaseException) -> bool:
        return str(error).startswith("no such ")

    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        return func.instr(column, part)

    def allow_reading(self, connection: Connection, reader: URL, owner: URL) -> None:
        """A file has no roles."""


KIND = SqlKind(_Sqlite())
