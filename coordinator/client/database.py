"""Connections for reads: gateways only read, and only lanes write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.rows import R
from coordinator.stores.kinds import Database, driver_errors, kind_of
from coordinator.stores.sql.schema import row_of_mapping

READ_TIMEOUT_MS = 5000


def open_database(url: str, pool_max: int = 8) -> Database:
    """Open the database that the address names, for reads; connects on first use. Raises ConfigurationError."""
    address = parse_address(url)
    return kind_of(address).open_reader(address, pool_max, READ_TIMEOUT_MS)


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
    except driver_errors() as error:
        raise DatabaseUnavailable(f"the database cannot be read: {type(error).__name__}: {error}") from error


async def fetch(engine: AsyncEngine, query: Select[Any], model: type[R]) -> list[R]:
    """The rows of a query that selects the model's columns."""
    async with reading(), engine.connect() as connection:
        result = await connection.execute(query)
        return [row_of_mapping(model, mapping) for mapping in result.mappings()]
