"""Connections for reads: gateways only read, and only lanes write."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select, column, false, select, table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.rows import R, Row
from coordinator.stores.kinds import Database, driver_errors, kind_of, lack_of
from coordinator.stores.lane_tables import LEASE_TABLE
from coordinator.stores.mongodb.documents import Documents
from coordinator.stores.one_lane import LANES_READ_MAX, other_lane
from coordinator.stores.row_makers import row_of_mapping

READ_TIMEOUT_MS = 5000


class NoConnectionLeft(DatabaseUnavailable):
    """Raised where the server answers, and has no connection left for this reader; in words for anybody."""


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


async def reading_problem(database: Database, lane: str, tables: Sequence[str]) -> str | None:
    """Why the database is no use to this lane's readers until somebody acts, in words for anybody; None: it is of use.

    One of these tables cannot be read, or the database is another lane's. Raises DatabaseUnavailable where that may
    pass by itself.
    """
    async with reading():
        if isinstance(database, AsyncEngine):
            return await _sql_problem(database, lane, tables)
        return await _documents_problem(database, lane, tables)


async def check_reads(database: Database, lane: str, models: Sequence[type[Row]]) -> None:
    """Raise ConfigurationError, which says why, if these rows of the lane cannot be read until somebody acts.

    Raises DatabaseUnavailable where that may pass by itself.
    """
    problem = await reading_problem(database, lane, [model.table for model in models])
    if problem is not None:
        raise ConfigurationError(problem)


async def _sql_problem(engine: AsyncEngine, lane: str, tables: Sequence[str]) -> str | None:
    name = None
    try:
        async with engine.connect() as connection:
            for name in tables:
                await connection.execute(select(text("*")).select_from(table(name)).where(false()))
            name = LEASE_TABLE
            leases: Select[Any] = select(column("lane")).select_from(table(LEASE_TABLE)).limit(LANES_READ_MAX)
            return _lanes_problem((await connection.execute(leases)).scalars().all(), lane)
    except driver_errors() as error:
        return _in_words(error, name)


async def _documents_problem(documents: Documents, lane: str, tables: Sequence[str]) -> str | None:
    name = None
    try:
        for name in tables:
            await documents[name].find_one({"_id": {"$in": []}})
        name = LEASE_TABLE
        lanes: list[str] = [lease["_id"] async for lease in documents[name].find({}, {"_id": 1}).limit(LANES_READ_MAX)]
    except driver_errors() as error:
        return _in_words(error, name)
    if not lanes:
        # Every collection that is not there reads as an empty one: its rows would be said not to exist.
        return f"the database has no lane: correct its address, or run `coordinator migrate {lane}`"
    return _lanes_problem(lanes, lane)


def _lanes_problem(lanes: Sequence[str], lane: str) -> str | None:
    other = other_lane(lanes, lane)
    return None if other is None else f"the database is that of lane {other}, and not of {lane}: correct its address"


def _in_words(error: Exception, name: str | None) -> str | None:
    """Raises the error where it says nothing that only an operator can change, and NoConnectionLeft."""
    match lack_of(error):
        case "right" if name == LEASE_TABLE:
            # A role that may read no more than the gateway's tables serves, too. Nothing shows whose they are.
            return None
        case "right" if name is not None:
            return f"the gateway's role may not SELECT from {name}: GRANT it, or run `coordinator migrate`"
        case "table" if name is not None:
            return f"{name} is not there: run `coordinator migrate`"
        case "login":
            return "the server refuses the gateway's user, password or database"
        case "connection":
            raise NoConnectionLeft("the database has no connection left for the gateway") from error
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
        # SQLAlchemy would add the statement, and a link to its own documentation.
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split())
        raise DatabaseUnavailable(f"the database cannot be read: {type(cause).__name__}: {text}") from error


async def fetch(engine: AsyncEngine, query: Select[Any], model: type[R]) -> list[R]:
    """The rows of a query that selects the model's columns."""
    async with reading(), engine.connect() as connection:
        result = await connection.execute(query)
        return [row_of_mapping(model, mapping) for mapping in result.mappings()]
