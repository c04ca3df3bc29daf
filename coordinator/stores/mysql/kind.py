"""MySQL and MariaDB, as the framework asks for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, func, text

from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.mysql.errors import is_of_schema
from coordinator.stores.mysql.store import MysqlStore
from coordinator.stores.port import Store
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.kind import SqlKind

_MIGRATION_TIMEOUT_S = 60


class _Mysql(Dialect):
    driver = "mysql+pymysql"
    reading_driver: ClassVar[str | None] = "mysql+aiomysql"
    # Not the server's default, whose gap locks would hold up the lane's inserts into the log.
    admin_isolation: ClassVar[str | None] = "READ COMMITTED"

    def open_store(self, url: str, service: Service) -> Store:
        return MysqlStore(url, service)

    def lock_limits(self, lock_timeout_s: int) -> dict[str, Any]:
        return {"init_command": f"SET SESSION innodb_lock_wait_timeout={lock_timeout_s}"}

    def is_of_schema(self, error: BaseException) -> bool:
        return is_of_schema(error)

    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        return func.locate(part, column)

    @contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:
        lock = {"name": f"migrate {connection.engine.url.database}"}
        waiting = lock | {"timeout": _MIGRATION_TIMEOUT_S}
        if connection.execute(text("SELECT GET_LOCK(:name, :timeout)"), waiting).scalar() != 1:
            raise ConfigurationError(f"another migration of this database has run for {_MIGRATION_TIMEOUT_S} s")
        yield
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)

    def allow_reading(self, connection: Connection, reader: URL, owner: URL) -> None:
        quote = connection.dialect.identifier_preparer.quote_identifier
        connection.execute(
            text("CREATE USER IF NOT EXISTS :name@'%' IDENTIFIED BY :password"),
            {"name": reader.username, "password": reader.password or ""},
        )
        grant = f"GRANT SELECT ON {quote(str(owner.database))}.* TO :name@'%'"
        connection.execute(text(grant), {"name": reader.username})


KIND = SqlKind(_Mysql())
