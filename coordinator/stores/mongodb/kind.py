"""MongoDB, as the framework asks for it."""

from typing import ClassVar

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.kinds import Database, Kind
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.port import Store

# ruff: noqa: PLC0415  # a process does one of these

CONNECT_TIMEOUT_S = 5


class _MongoKind:
    """Implements `Kind`."""

    errors: ClassVar[tuple[type[Exception], ...]] = (PyMongoError,)

    def open_store(self, url: str, service: Service) -> Store:
        from coordinator.stores.mongodb.store import MongoStore

        return MongoStore(url, service)

    def open_admin(self, url: str, lane: str) -> LaneAdmin:
        from coordinator.stores.mongodb.admin import MongoAdmin

        return MongoAdmin(url, lane)

    def open_reader(self, url: str, pool_max: int, timeout_ms: int) -> Database:
        """By majority: what a read shows can no longer be rolled back."""
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url,
            tz_aware=True,
            maxPoolSize=pool_max,
            serverSelectionTimeoutMS=CONNECT_TIMEOUT_S * 1000,
            socketTimeoutMS=timeout_ms,
            readConcernLevel="majority",
        )
        try:
            return client.get_default_database()
        except PyMongoError as error:
            raise ConfigurationError(f"a MongoDB address needs a database's name: {error}") from None

    def migrate(self, service: Service, url: str, reader_url: str | None) -> None:  # noqa: ARG002
        from coordinator.stores.mongodb.collections import make_collections

        make_collections(service, url)


KIND: Kind = _MongoKind()
