"""Reading the rows of a model by their keys, from a database of any kind."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    String,
    Table,
    and_,
    bindparam,
    func,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import NullType

from coordinator.client.database import fetch, fetch_documents, read_page, reading
from coordinator.client.read_turns import turn_of
from coordinator.runtime.addresses import WITHOUT_SERVER
from coordinator.service.paging import Page
from coordinator.service.rows import Key, R, Row, Value, key_columns, key_of
from coordinator.service.service import Service
from coordinator.stores.kinds import Database
from coordinator.stores.mongodb.documents import Documents, condition_of, id_of, row_of_document
from coordinator.stores.row_checks import InvalidRow, RowCheck, RowChecks, WrongValue
from coordinator.stores.sql.declared_tables import WITHOUT_PRIMARY, ordered_indexes, tables_of

ALL: Final[Mapping[str, Value]] = MappingProxyType({})
"""The condition of all rows."""


class Repository(Protocol[R]):
    """The rows of one model, as the latest commits left them. Both methods raise DatabaseUnavailable, UnreadableRow."""

    async def get(self, key: Key) -> R | None:
        """The row with this key; None also for a key that no row can have."""

    async def page(self, after: Key | None, limit: int, *where: Mapping[str, Value]) -> Page[R]:
        """The first rows in the database's order of keys, or with `after` the first of those behind this key.

        With `where`, of the rows that have these values in the columns of an index, as for `work.select`. With several,
        of those that have all of these values; each has an index, and there need be none for all of them.

        The page ends before a row that cannot be read; if that is the first one, UnreadableRow says in `next` how to go
        on behind it. Raises InvalidRow for an `after` that no row can have as its key, WrongSelection, a TypeError,
        where no index has the columns, and WrongValue, an InvalidRow, for a value that is no value of its column. With
        a value that no row can have there are none.
        """


class SqlRepository(Repository[R]):
    """Rows of a table."""

    def __init__(self, engine: AsyncEngine, service: Service, model: type[R]) -> None:
        self._table = table = tables_of(service).tables[model.table]
        columns = table.c
        self._engine = engine
        self._columns = columns
        self._model = model
        self._keys = [columns[name] for name in key_columns(model)]
        self._every = select(*(columns[name] for name in model.__struct_fields__))
        self._check = RowChecks(service).of(model)
        is_server = engine.dialect.name not in WITHOUT_SERVER
        self._indexes = ordered_indexes(model, table) if is_server else {}

    async def get(self, key: Key) -> R | None:
        sought = _sought(self._check, self._model.key, key)
        if sought is None:
            return None
        parts = zip(self._keys, _parts(sought), strict=True)
        wanted = self._every.where(*(column == part for column, part in parts))
        found = await fetch(self._engine, wanted, self._model)
        # MySQL and MariaDB find `a` by the text `a ` too.
        return next((row for row in found if key_of(row) == sought), None)

    async def page(self, after: Key | None, limit: int, *where: Mapping[str, Value]) -> Page[R]:
        values = _values(self._check, self._model, where)
        if values is None:
            return Page([], None)
        dialect = self._engine.dialect
        index = self._indexes.get(tuple(sorted(name for name, _ in values)))
        last, query = None, self._every
        if index is not None:
            last, query = index.last, query.prefix_with(index.hint, dialect="mysql")
        if (last, None) in values and dialect.name != "postgresql":
            # As in the lane's own statements for MySQL.
            last, query = None, query.with_hint(self._table, WITHOUT_PRIMARY)
        query = query.where(
            *(_has(self._columns[name], value, dialect, is_range=name == last) for name, value in values)
        )
        order = self._keys if last is None else [self._columns[last], *self._keys]
        if after is not None:
            after = self._check.key(self._model.key, after)
            if index is None and dialect.name == "postgresql":
                query = query.where(_are_behind(self._keys, _parts(after)))
            else:
                query = query.where(_behind(self._keys, _parts(after), is_alone=not values))
        return await read_page(fetch(self._engine, query.order_by(*order).limit(limit + 1), self._model), limit)


class DocumentRepository(Repository[R]):
    """Rows of a MongoDB collection."""

    def __init__(self, documents: Documents, service: Service, model: type[R]) -> None:
        self._documents = documents[model.table]
        self._model = model
        self._check = RowChecks(service).of(model)

    async def get(self, key: Key) -> R | None:
        sought = _sought(self._check, self._model.key, key)
        if sought is None:
            return None
        async with reading(self._documents), turn_of(self._documents.database):
            document = await self._documents.find_one({"_id": id_of(self._model, sought)})
        return None if document is None else row_of_document(self._model, document)

    async def page(self, after: Key | None, limit: int, *where: Mapping[str, Value]) -> Page[R]:
        values = _values(self._check, self._model, where)
        if values is None:
            return Page([], None)
        wanted: dict[str, Any] = condition_of(self._model, values)
        if after is not None:
            after = self._check.key(self._model.key, after)
            wanted["_id"] = {"$gt": id_of(self._model, after)} | ({"$eq": wanted["_id"]} if "_id" in wanted else {})
        found = self._documents.find(wanted).sort("_id", 1).limit(limit + 1)
        return await read_page(fetch_documents(found, self._model), limit)


def open_repository(database: Database, service: Service, model: type[R]) -> Repository[R]:
    """The repository of one of the service's models, in a database of any kind. Raises WrongUse for another model."""
    if isinstance(database, AsyncEngine):
        return SqlRepository(database, service, model)
    return DocumentRepository(database, service, model)


def _has(column: Column[Any], value: Value, dialect: Dialect, *, is_range: bool) -> ColumnElement[bool]:
    """The condition that a column has this value, in the form in which rows are kept; as a range of this value alone
    where that has the server use an index (`ordered_indexes`)."""
    if value is None:
        return column.is_(None)
    if isinstance(value, Enum):
        # SQLAlchemy would look for the names of members, which rows do not have.
        return _is(type_coerce(column, NullType()), value.value, is_range=is_range)
    if isinstance(value, Decimal) and isinstance(column.type.dialect_impl(dialect), String):
        return _is(type_coerce(column, NullType()), f"{value:f}", is_range=is_range)
    if isinstance(value, str):
        # MySQL and MariaDB find `a` by the text `a ` too.
        return and_(_is(column, value, is_range=is_range), func.char_length(column) == len(value))
    return _is(column, value, is_range=is_range)


def _is(column: ColumnElement[Any], value: Any, *, is_range: bool) -> ColumnElement[bool]:
    if not is_range:
        return cast(ColumnElement[bool], column == value)
    # SQLAlchemy compares no True itself.
    given = bindparam(None, value, type_=column.type)
    return and_(column >= given, column <= given)


def table_of(service: Service, model: type[Row]) -> Table:
    """The table of one of the service's models, for queries of one's own: `select(table_of(seats, Seat))`.

    It is that of SQL databases; a query of all its columns gives rows of the model (`fetch`). Raises WrongUse, a
    TypeError, for another model.
    """
    RowChecks(service).of(model)
    return tables_of(service).tables[model.table]


def behind(service: Service, model: type[Row], key: Key | None) -> ColumnElement[bool]:
    """The condition that a row has a higher key than this, in the order of the columns of the key; None: any has.

    For a page of a query of one's own: `select(table).where(behind(seats, Ticket, after))`. Raises WrongUse, a
    TypeError, for another model.
    """
    if key is None:
        return true()
    table = table_of(service, model)
    return _behind([table.c[name] for name in key_columns(model)], _parts(key), is_alone=False)


def _values(
    check: RowCheck, model: type[Row], conditions: Iterable[Mapping[str, Value]]
) -> Sequence[tuple[str, Value]] | None:
    """The values of all conditions, as the database keeps them; None: no row can have them.

    Raises WrongSelection and WrongValue.
    """
    wanted: dict[str, Value] = {}
    for selection in [model.where(limit=1, after=None, **where) for where in conditions if where]:
        try:
            found = check.selection(selection).where
        except WrongValue:
            raise
        except InvalidRow:
            return None
        if any(wanted.setdefault(column, value) != value for column, value in found):
            return None
    return tuple(wanted.items())


def _parts(key: Key) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _behind(columns: Sequence[Column[Any]], parts: Sequence[Any], *, is_alone: bool) -> ColumnElement[bool]:
    """The condition of a higher key, of which every server makes a range of an index.

    As in the lane's own statements for MySQL: MariaDB makes a better one if it is the only condition and says more.
    """
    column, part = columns[0], parts[0]
    if len(columns) == 1:
        return cast(ColumnElement[bool], column > part)
    rest = _behind(columns[1:], parts[1:], is_alone=is_alone)
    return and_(column >= part, or_(column > part, and_(column == part, rest) if is_alone else rest))


def _are_behind(columns: Sequence[Column[Any]], parts: Sequence[Any]) -> ColumnElement[bool]:
    """The same, as a comparison of rows: PostgreSQL begins an index with all columns of it."""
    given = (bindparam(None, part, type_=column.type) for column, part in zip(columns, parts, strict=True))
    return tuple_(*columns) > tuple_(*given)


def _sought(check: RowCheck, column: str | tuple[str, ...], key: Key) -> Key | None:
    """The key as rows have it; None where the database cannot be asked for it: a NUL, for one, is an error there."""
    try:
        sought: Key = check.key(column, key)
    except InvalidRow:
        return None
    return sought
