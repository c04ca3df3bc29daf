"""The connections of lanes and operators: what is acknowledged to them a majority has on disk."""

from typing import Final

from pymongo import MongoClient

from coordinator.stores.mongodb.documents import Document

CONNECT_TIMEOUT_MS: Final = 3000
SOCKET_TIMEOUT_MS: Final = 30_000


def open_client(url: str, application: str) -> MongoClient[Document]:
    """Connects on first use. `application` is the name that the server shows. Raises PyMongoError for no address."""
    return MongoClient(
        url,
        tz_aware=True,
        appname=application,
        serverSelectionTimeoutMS=CONNECT_TIMEOUT_MS,
        connectTimeoutMS=CONNECT_TIMEOUT_MS,
        socketTimeoutMS=SOCKET_TIMEOUT_MS,
        w="majority",
        journal=True,
    )
