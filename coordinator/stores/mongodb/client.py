"""The connections of lanes and operators: a write is acknowledged when a majority has it on disk."""

import struct
from collections.abc import Mapping
from typing import Any, Final

import bson
from pymongo import MongoClient

from coordinator.runtime.addresses import Host
from coordinator.runtime.tls_look import Greeting, tls_problem
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.mongodb.driver_arguments import refresh_tls

CONNECT_TIMEOUT_MS: Final = 3000
SOCKET_TIMEOUT_MS: Final = 30_000
_MESSAGE: Final = 2013
_HEADER: Final = struct.Struct("<iiii")
"""Of a message: its length, its number, whose answer it is, and its kind."""


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


def problem_of_tls(client: MongoClient[Document]) -> str | None:
    """Why none of the servers that the driver knows can be connected to, in words; None: nothing says so."""
    servers = [Host(name, port) for name, port in client.topology_description.server_descriptions()]
    return tls_problem(servers, _greeting(), is_tls=client.options.pool_options._ssl_context is not None)  # noqa: SLF001


def _greeting() -> Greeting:
    asks = bytes(5) + bson.encode({"hello": 1, "$db": "admin"})
    return Greeting(_HEADER.pack(_HEADER.size + len(asks), 1, 0, _MESSAGE) + asks, _is_message)


def _is_message(answer: bytes) -> bool:
    return len(answer) >= _HEADER.size and _HEADER.unpack_from(answer)[3] == _MESSAGE
