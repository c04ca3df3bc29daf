"""PostgreSQL, as the framework asks for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, func, text

from coordinator.service.service import Service
from coordinator.stores.port import Store
from coordinator.stores.postgresql.errors import is_of_schema
from coordinator.stores.postgresql.store import PostgresStore
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.kind import SqlKind

_MIGRATION_LOCK = 0x77726974


class _Postgresql(Dialect):
    driver = "postgresql+psycopg"
    reading_driver: ClassVar[str | None] = "postgresql+psycopg"

    def open_store(self, url: str, service: Service) -> Store:
        return PostgresStore(url, service)

    def lock_limits(self, lock_timeout_s: int) -> dict[str, Any]:
        return {"options": f"-c lock_timeout={lock_timeout_s}s -c timezone=UTC"}

    def read_limits(self, timeout_ms: int) -> dict[str, Any]:
        return {"options": f"-c statement_timeout={timeout_ms}"}

    def is_of_schema(self, error: BaseException) -> bool:
        return is_of_schema(error)

    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        return func.pg_catalog.position(column, part)

    @contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _MIGRATION_LOCK})
        connection.commit()
        yield
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": _MIGRATION_LOCK})
        connection.commit()

    def allow_reading(self, connection: Connection, reader: URL, owner: URL) -> None:
        quote = connection.dialect.identifier_preparer.quote_identifier
        name = str(reader.username)
        exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}).scalar()
        if exists is None:
            password = {"password": reader.password or ""}
            literal = connection.execute(text("SELECT quote_literal(:password)"), password).scalar()
            connection.exec_driver_sql(f"CREATE ROLE {quote(name)} LOGIN PASSWORD {literal}")
        for statement in (
            f"GRANT CONNECT ON DATABASE {quote(str(owner.database))} TO {quote(name)}",
            f"GRANT USAGE ON SCHEMA public TO {quote(name)}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {quote(name)}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {quote(name)}",
        ):
            connection.exec_driver_sql(statement)


KIND = SqlKind(_Postgresql())
