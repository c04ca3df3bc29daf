"""The connections of lanes and operators: a write is acknowledged when a majority has it on disk."""

from collections.abc import Mapping
from typing import Any, Final

from pymongo import MongoClient

from coordinator.stores.mongodb.documents import Document
from coordinator.stores.mongodb.driver_arguments import refresh_tls

CONNECT_TIMEOUT_MS: Final = 3000
SOCKET_TIMEOUT_MS: Final = 30_000


def open_client(connection: Mapping[str, Any], application: str) -> MongoClient[Document]:
    """Connects on first use. `connection` has the driver's arguments; `application` names us to the server."""
    client: MongoClient[Document] = MongoClient(
        **{**connection, "connect": False},
        tz_aware=True,
        uuidRepresentation="standard",
        # One that Python has no datetime for is an object of the driver's: an error would be of all that is read.
        datetime_conversion="DATETIME_AUTO",
        appname=application,
        serverSelectionTimeoutMS=CONNECT_TIMEOUT_MS,
        connectTimeoutMS=CONNECT_TIMEOUT_MS,
        socketTimeoutMS=SOCKET_TIMEOUT_MS,
        w="majority",
        journal=True,
    )
    refresh_tls(client, connection)
    return client
