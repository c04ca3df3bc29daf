"""Which store serves which address."""

from coordinator.stores.mongodb import MongoStore
from coordinator.stores.mysql import MysqlStore
from coordinator.stores.port import Store
from coordinator.stores.postgresql import PostgresStore
from coordinator.stores.sqlite import SqliteStore
from shared.database import scheme_of
from shared.errors import ConfigurationError
from shared.service import Service


def open_store(url: str, service: Service) -> Store:
    """The store for a database's address; connects on first use. Raises ConfigurationError."""
    scheme = scheme_of(url)
    if scheme == "postgresql":
        return PostgresStore(url, service)
    if scheme in ("mysql", "mariadb"):
        return MysqlStore(url, service)
    if scheme == "mongodb":
        return MongoStore(url, service)
    if scheme == "sqlite":
        return SqliteStore(url.partition(":///")[2], service)
    raise ConfigurationError(f"no store for {scheme!r}: use postgresql, mysql, mariadb, mongodb or sqlite")
