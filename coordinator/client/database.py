"""Connections for reads: gateways only read, and only lanes write."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select, false, select, table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.rows import R
from coordinator.stores.kinds import Database, driver_errors, kind_of, lack_of
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


async def reading_problem(database: Database, tables: Sequence[str]) -> str | None:
    """Why one of these tables cannot be read until somebody acts, in words for anybody; None: all can be, now.

    Raises DatabaseUnavailable where that may pass by itself.
    """
    async with reading():
        if isinstance(database, AsyncEngine):
            return await _sql_problem(database, tables)
        for name in tables:
            try:
                await database[name].find_one({"_id": {"$in": []}})
            except driver_errors() as error:
                return _in_words(error, name)
    return None


async def _sql_problem(engine: AsyncEngine, tables: Sequence[str]) -> str | None:
    name = None
    try:
        async with engine.connect() as connection:
            for name in tables:
                await connection.execute(select(text("*")).select_from(table(name)).where(false()))
    except driver_errors() as error:
        return _in_words(error, name)
    return None


def _in_words(error: Exception, name: str | None) -> str:
    """Raises the error where it says nothing that only an operator can change."""
    match lack_of(error):
        case "right" if name is not None:
            return f"the gateway's role may not SELECT from {name}: GRANT it, or run `coordinator migrate`"
        case "table" if name is not None:
            return f"{name} is not there: run `coordinator migrate`"
        case "login":
            return "the server refuses the gateway's user, password or database"
    raise error


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
