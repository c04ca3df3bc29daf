"""Connections for reads, and how driver errors and rows become ours.

Gateways read; only lanes write. The addresses are plain (`postgresql://…`, `mysql://…`, `mongodb://…`); which driver
serves them is decided here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from sqlalchemy import Select, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from coordinator.runtime.addresses import scheme_of
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.rows import R
from coordinator.stores.mongodb.documents import Document, Documents
from coordinator.stores.sql.schema import row_of_mapping

Database: TypeAlias = AsyncEngine | Documents

ASYNC_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
}
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_MS = 5000


def open_sql(url: str, pool_max: int) -> AsyncEngine:
    """A pool of read connections to an SQL database; connects on first use.

    Raises ConfigurationError for an address that no driver here serves.
    """
    driver = ASYNC_DRIVERS.get(scheme_of(url))
    if driver is None:
        raise ConfigurationError(f"no SQL driver for {scheme_of(url)!r}: use postgresql, mysql or mariadb")
    try:
        address = make_url(url).set(drivername=driver)
    except ArgumentError as error:
        raise ConfigurationError(f"not a database address: {error}") from None
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if driver == "postgresql+psycopg":
        # Reads are single statements: a transaction around each would cost two more round trips.
        arguments |= {"options": f"-c statement_timeout={READ_TIMEOUT_MS}"}
    return create_async_engine(
        address,
        pool_size=pool_max,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT_MS / 1000,
        pool_pre_ping=True,
        isolation_level="AUTOCOMMIT",
        connect_args=arguments,
    )


def open_documents(url: str, pool_max: int = 8) -> Documents:
    """A MongoDB database for reads, by majority: what a read shows can no longer be rolled back."""
    client: AsyncMongoClient[Document] = AsyncMongoClient(
        url,
        tz_aware=True,
        maxPoolSize=pool_max,
        serverSelectionTimeoutMS=CONNECT_TIMEOUT_S * 1000,
        socketTimeoutMS=READ_TIMEOUT_MS,
        readConcernLevel="majority",
    )
    try:
        return client.get_default_database()
    except PyMongoError as error:
        raise ConfigurationError(f"a MongoDB address needs a database's name: {error}") from None


def open_database(url: str, pool_max: int = 8) -> Database:
    """Open whichever database the address names, for reads."""
    return open_documents(url, pool_max) if scheme_of(url) == "mongodb" else open_sql(url, pool_max)


async def close_database(database: Database) -> None:
    """Close the connections."""
    if isinstance(database, AsyncEngine):
        await database.dispose()
    else:
        await database.client.close()


async def ping(database: Database) -> None:
    """Raise DatabaseUnavailable unless the database answers."""
    async with reading():
        if isinstance(database, AsyncEngine):
            async with database.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
        else:
            await database.command("ping")


@asynccontextmanager
async def reading() -> AsyncIterator[None]:
    """Bound the time, and translate every driver's errors into DatabaseUnavailable."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_MS / 1000):
            yield
    except TimeoutError as error:
        raise DatabaseUnavailable(f"the database did not answer within {READ_TIMEOUT_MS} ms") from error
    except (SQLAlchemyError, PyMongoError, OSError) as error:
        raise DatabaseUnavailable(f"the database cannot be read: {type(error).__name__}: {error}") from error


T = TypeVar("T")


async def fetch(engine: AsyncEngine, query: Select[Any], model: type[R]) -> list[R]:
    """The rows of a query that selects the model's columns."""
    async with reading(), engine.connect() as connection:
        result = await connection.execute(query)
        return [row_of_mapping(model, mapping) for mapping in result.mappings()]
