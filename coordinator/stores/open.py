"""Which store serves which address. Each brings its driver, of which a process needs one."""

from coordinator.runtime.addresses import scheme_of
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.port import Store

# ruff: noqa: PLC0415


def open_store(url: str, service: Service) -> Store:
    """The store for a database's address; connects on first use. Raises ConfigurationError."""
    scheme = scheme_of(url)
    if scheme == "postgresql":
        from coordinator.stores.postgresql.store import PostgresStore

        return PostgresStore(url, service)
    if scheme in ("mysql", "mariadb"):
        from coordinator.stores.mysql.store import MysqlStore

        return MysqlStore(url, service)
    if scheme == "mongodb":
        from coordinator.stores.mongodb.store import MongoStore

        return MongoStore(url, service)
    if scheme == "sqlite":
        from coordinator.stores.sqlite.store import SqliteStore

        return SqliteStore(url.partition(":///")[2], service)
    raise ConfigurationError(f"no store for {scheme!r}: use postgresql, mysql, mariadb, mongodb or sqlite")
