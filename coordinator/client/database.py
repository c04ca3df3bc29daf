"""Connections for reads: gateways only read, and only lanes write."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Select, and_, false, or_, select, table, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql import quoted_name

from coordinator.client.read_turns import take_turns, turn_of
from coordinator.client.recency import connected, documents_recent
from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable, UnreadableRow
from coordinator.service.paging import Page, page_of
from coordinator.service.rows import R, Row, key_columns, key_of
from coordinator.stores.kinds import Database, driver_errors, is_of_value, kind_of, lack_of
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.documents import Document, Documents, latest_of, row_of_document
from coordinator.stores.moves import LaneMove, check_not_moved, decode_move
from coordinator.stores.one_lane import LANES_READ_MAX, other_lane
from coordinator.stores.port import MAKES_ROLES
from coordinator.stores.row_makers import row_of_mapping

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.cursor import AsyncCursor

READ_TIMEOUT_MS = 5000
NO_TLS: Final = "no TLS connection to the database can be made as its address asks for it"


class NoConnectionLeft(DatabaseUnavailable):
    """Raised where the server answers, and has no connection left for this reader; in words for anybody."""


class LaneElsewhere(DatabaseUnavailable):
    """Raised where the lane is not, or no more, in the database that is read; in words for anybody."""


class NoTls(ConfigurationError):
    """Raised where the server does TLS otherwise than the address asks; the driver's words name the host."""


def open_database(url: str, pool_max: int = 8, *, must_lead: bool = False, lane: str | None = None) -> Database:
    """Open the database that the address names, for reads; connects on first use. Raises ConfigurationError.

    `must_lead`: a read raises DatabaseUnavailable while the server, PostgreSQL or MySQL, follows another one, so that
    what it has may be old. It is asked again with each read, and once its name leads to another one, that is.
    `lane`: a read raises it too where a new connection leads to the database of another lane.
    """
    address = parse_address(url)
    database = kind_of(address).open_reader(address, pool_max, READ_TIMEOUT_MS, must_lead=must_lead, lane=lane)
    take_turns(database, pool_max)
    return database


async def close_database(database: Database) -> None:
    """Close the connections."""
    if isinstance(database, AsyncEngine):
        await database.dispose()
    else:
        await database.client.close()


Needed: TypeAlias = str | type[Row]
"""What a reader needs: a table, or one with the columns of these rows."""


async def reading_problem(database: Database, lane: str, tables: Sequence[Needed]) -> str | None:
    """Why the database is no use to this lane's readers until somebody acts, in words for anybody; None: it is of use.

    One of these tables cannot be read, or lacks a column, or the database is another lane's. `lane_lease` is looked at
    in any case; that it may not be read is a problem only where it is one of the tables. Raises DatabaseUnavailable
    where that may pass by itself, as where the lane is yet to come to this database, and Moved where it has left this
    one, and NoTls.
    """
    async with reading():
        if isinstance(database, AsyncEngine):
            return await _sql_problem(database, lane, tables)
        return await _documents_problem(database, lane, tables)


async def is_replica(database: Database, url: str) -> bool:
    """Whether the server of this address says that it only follows another one: what is read there may be old. Raises
    DatabaseUnavailable."""
    asked = kind_of(parse_address(url)).follows
    if asked is None or not isinstance(database, AsyncEngine):
        return False
    async with reading(), database.connect() as connection:
        return bool((await connection.execute(text(asked))).scalar())


async def lane_is_here(database: Database, lane: str) -> bool:
    """Whether the lane writes here, and neither has moved away nor is yet to come. Raises DatabaseUnavailable.

    A row that was read before is then what the lane had, and no other database has a later one.
    """
    lease = (await _leases(database, lane)).get(lane)
    return lease is not None and not lease.is_elsewhere


async def check_lane_is_here(database: Database) -> bool:
    """Whether the lane of this database has ever run in it. Raises LaneElsewhere where it is yet to come, or has moved
    away; and DatabaseUnavailable.

    Ask before a read of what must be the same wherever the lane is: what is read then is what it is there. Where it has
    never run, it may come from another database at any moment.
    """
    leases = (await _leases(database)).values()
    if any(lease.is_elsewhere for lease in leases):
        raise LaneElsewhere("the lane is yet to come to this database, or has moved to another one")
    return any(lease.epoch for lease in leases)


class _SeenLease(Struct, frozen=True):
    """What a lease says of where its lane is."""

    epoch: int
    move: LaneMove | None

    @property
    def is_elsewhere(self) -> bool:
        return self.move is not None and self.move.step in ("moved", "receiving")


async def _leases(database: Database, lane: str | None = None) -> dict[str, _SeenLease]:
    """By lane; that of this one, at least."""
    async with reading():
        if isinstance(database, AsyncEngine):
            # All columns: a database that is not migrated yet tells of no move.
            leases: Select[Any] = select(text("*")).select_from(table(LEASE_TABLE)).limit(LANES_READ_MAX)
            async with database.connect() as connection:
                rows = (await connection.execute(leases)).mappings().all()
            found: dict[str, Mapping[str, Any]] = {each["lane"]: each for each in rows}
        else:
            found = await _latest_leases(database, lane)
    return {lane: _SeenLease(int(each["epoch"]), decode_move(each.get("move"))) for lane, each in found.items()}


async def _latest_leases(documents: Documents, lane: str | None) -> dict[str, Mapping[str, Any]]:
    """Each by its own key: MongoDB proves of one document alone that no primary has a later one. Where there is none,
    the look for one shows that this is the primary."""
    latest, columns = latest_of(documents[LEASE_TABLE]), {"epoch": 1, "move": 1}
    if lane is not None:
        lanes = [lane]
    else:
        # Whatever the address says: a secondary may not have a lease yet.
        leases = documents[LEASE_TABLE].with_options(read_preference=latest.read_preference)
        lanes = [each["_id"] async for each in leases.find({}, {"_id": 1}).limit(LANES_READ_MAX)]
    found = [await latest.find_one({"_id": lane}, columns) for lane in lanes or [""]]
    return {lease["_id"]: lease for lease in found if lease is not None}


async def check_reads(database: Database, lane: str, models: Sequence[type[Row]]) -> None:
    """Raise ConfigurationError, which says why, if these rows of the lane cannot be read until somebody acts.

    Raises DatabaseUnavailable where that may pass by itself.
    """
    problem = await reading_problem(database, lane, models)
    if problem is not None:
        raise ConfigurationError(problem)


def _table_of(needed: Needed) -> str:
    return needed if isinstance(needed, str) else needed.table


async def _sql_problem(engine: AsyncEngine, lane: str, needed: Sequence[Needed]) -> str | None:
    name, tables = None, [_table_of(each) for each in needed]
    try:
        async with engine.connect() as connection:
            for name, each in zip(tables, needed, strict=True):
                asked = table(quoted_name(name, quote=True))
                found_columns = await connection.execute(select(text("*")).select_from(asked).where(false()))
                there = {column.lower() for column in found_columns.keys()}  # noqa: SIM118  # it is no mapping
                fields = () if isinstance(each, str) else each.__struct_fields__
                if lacking := [field for field in fields if field.lower() not in there]:
                    return f"{name} has no column {', '.join(lacking)}: run `coordinator migrate`"
            name = LEASE_TABLE
            # All columns: a database that is not migrated yet tells of no move.
            leases: Select[Any] = select(text("*")).select_from(table(LEASE_TABLE)).limit(LANES_READ_MAX)
            found = (await connection.execute(leases)).mappings().all()
            return _leases_problem({each["lane"]: each.get("move") for each in found}, lane)
    except driver_errors() as error:
        return _in_words(error, name, tables, f": {MAKES_ROLES}")


async def _documents_problem(documents: Documents, lane: str, needed: Sequence[Needed]) -> str | None:
    name, tables = None, [_table_of(each) for each in needed]
    try:
        for name in tables:
            await documents[name].find_one({"_id": {"$in": []}})
        name = LEASE_TABLE
        found = documents[name].find({}, {"move": 1}).limit(LANES_READ_MAX)
        leases: dict[str, str | None] = {lease["_id"]: lease.get("move") async for lease in found}
    except driver_errors() as error:
        return _in_words(error, name, tables)
    if not leases:
        # Every collection that is not there reads as an empty one: its rows would be said not to exist.
        return f"the database has no lane: correct its address, or run `coordinator migrate {lane}`"
    return _leases_problem(leases, lane)


def _leases_problem(moves: Mapping[str, str | None], lane: str) -> str | None:
    """`moves` has, by lane, the move of which its lease tells."""
    other = other_lane(moves, lane)
    if other is None:
        move = decode_move(moves.get(lane))
        check_not_moved(move)
        if move is not None and move.step == "receiving":
            raise DatabaseUnavailable(move.words)
    return None if other is None else f"the database is that of lane {other}, and not of {lane}: correct its address"


def _in_words(error: Exception, name: str | None, needed: Sequence[str], advice: str = "") -> str | None:
    """Raises the error where it says nothing that only an operator can change, NoConnectionLeft, and NoTls."""
    match lack_of(error):
        case "right" if name == LEASE_TABLE and name not in needed:
            # A program that only reads rows is served by a role that may read no more. Nothing shows whose they are.
            return None
        case "right" if name is not None:
            return f"the gateway's role may not SELECT from {name}: GRANT it, or run `coordinator migrate`"
        case "table" if name is not None:
            return f"{name} is not there: run `coordinator migrate`"
        case "table or schema" if name is not None:
            return (
                f"{name} is not there, or the gateway's role has no USAGE of its schema: run `coordinator migrate`, "
                "which makes tables and gives rights"
            )
        case "tls":
            raise NoTls(f"{NO_TLS}: {_plain_text(error)}") from error
        case "login":
            return f"the server refuses the gateway's user, password, database or options{advice}"
        case "connection":
            raise NoConnectionLeft("the database has no connection left for the gateway") from error
    raise error


@asynccontextmanager
async def reading(collection: "AsyncCollection[Document] | None" = None) -> AsyncIterator[None]:
    """Bound the time, and translate every driver's errors into DatabaseUnavailable.

    What is read of a collection that is given is as recent as the request needs (`Read-After`). Raises NotRecent where
    it cannot be.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_MS / 1000):
            if collection is not None:
                await documents_recent(collection)
            yield
    except TimeoutError as error:
        raise DatabaseUnavailable(f"the database did not answer within {READ_TIMEOUT_MS} ms") from error
    except driver_errors() as error:
        # SQLAlchemy would add the statement, and a link to its own documentation.
        cause = getattr(error, "orig", None) or error
        kind = _Undecoded if is_of_value(error) else DatabaseUnavailable
        raise kind(f"the database cannot be read: {type(cause).__name__}: {_plain_text(error)}") from error


def _plain_text(error: Exception) -> str:
    """A driver's own words in one line."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    # Of MongoDB: behind this the driver tells what it knows of all servers, which differs from time to time.
    return text.partition(", Timeout:")[0]


async def fetch(engine: AsyncEngine, query: Select[Any], model: type[R]) -> list[R]:
    """The rows of a query that selects the model's columns. Raises DatabaseUnavailable, and UnreadableRow."""
    try:
        return await _rows(engine, query, model)
    except _NO_ROWS as error:
        unread = error
    # Drivers fail for all rows at once, and some do not say for which.
    return await _rows_in_parts(engine, query, model, unread)


async def fetch_documents(found: "AsyncCursor[Document]", model: type[R]) -> list[R]:
    """The rows of the documents that are found. Raises DatabaseUnavailable, NotRecent, and UnreadableRow."""
    rows: list[R] = []
    # The query is sent with the first step.
    async with reading(found.collection), turn_of(found.collection.database):
        async for document in found:
            try:
                rows.append(row_of_document(model, document))
            except UnreadableRow as error:
                error.before = rows
                raise
    return rows


async def read_page(rows: Awaitable[list[R]], limit: int) -> Page[R]:
    """A page of a list, from a read of `limit + 1` rows in order of their keys. Raises the read's errors.

    It ends before a row that cannot be read. If that is the first one, UnreadableRow says in `next` how to go on.
    """
    try:
        return page_of(await rows, limit)
    except UnreadableRow as error:
        if not error.before:
            error.next = error.key
            raise
        page = page_of(error.before, limit)
        return page if page.next is not None else replace(page, next=key_of(error.before[-1]))


async def _rows(engine: AsyncEngine, query: Select[Any], model: type[R]) -> list[R]:
    async with reading(), connected(engine) as connection:
        result = await connection.execute(query)
        return [row_of_mapping(model, mapping) for mapping in result.mappings()]


class _Undecoded(DatabaseUnavailable):
    """Raised where a driver may be unable to decode a value; it may also be one that the query gives."""


_NO_ROWS: Final = (_Undecoded, UnreadableRow, ValueError, TypeError, ArithmeticError)
"""What drivers, SQLAlchemy and we raise for a value of a row."""


async def _rows_in_parts(engine: AsyncEngine, query: Select[Any], model: type[R], unread: Exception) -> list[R]:
    """The rows, unless one of them is still none of its class. Raises UnreadableRow, and what was raised at first."""
    columns = [query.selected_columns[name] for name in key_columns(model) if name in query.selected_columns]
    if len(columns) < len(key_columns(model)):
        raise _unread(model, unread) from unread
    before: list[R] = []
    async with reading():
        async with connected(engine) as connection:
            try:
                keys = (await connection.execute(query.with_only_columns(*columns))).all()
            except _NO_ROWS:
                raise _unread(model, unread) from unread
            except driver_errors() as error:
                if not is_of_value(error):
                    raise
                raise _unread(model, unread) from unread
        await _read_halves(engine, query, model, columns, keys, before)
    return before


async def _read_halves(
    engine: AsyncEngine,
    query: Select[Any],
    model: type[R],
    columns: Sequence[ColumnElement[Any]],
    keys: Sequence[Sequence[Any]],
    before: list[R],
) -> None:
    """Add the rows with these keys, which could not be read at once, to those before them. Raises UnreadableRow."""
    middle = len(keys) // 2
    for part in (keys[:middle], keys[middle:]):
        of_keys = query.where(or_(false(), *(_has_key(columns, key) for key in part)))
        try:
            before += await _rows(engine, of_keys, model) if part else []
        except _NO_ROWS as error:
            if len(part) > 1:
                await _read_halves(engine, query, model, columns, part, before)
                continue
            if isinstance(error, UnreadableRow):
                error.before = before
                raise
            key = part[0][0] if isinstance(model.key, str) else tuple(part[0])
            found = UnreadableRow(model.table, key, await _undecoded(engine, of_keys))
            found.before = before
            raise found from error


def _has_key(columns: Sequence[ColumnElement[Any]], key: Sequence[Any]) -> ColumnElement[bool]:
    return and_(*(column == part for column, part in zip(columns, key, strict=True)))


async def _undecoded(engine: AsyncEngine, query: Select[Any]) -> str | None:
    """The column of a row that makes a driver, or SQLAlchemy, fail."""
    for name in query.selected_columns.keys():  # noqa: SIM118  # no dict
        try:
            async with reading(), engine.connect() as connection:
                (await connection.execute(query.with_only_columns(query.selected_columns[name]))).all()
        except _NO_ROWS:
            return name
    return None


def _unread(model: type[Row], error: Exception) -> Exception:
    """The error for a row of which not even the key can be read, or for a query that the driver does not take."""
    return error if isinstance(error, UnreadableRow | _Undecoded) else UnreadableRow(model.table)
