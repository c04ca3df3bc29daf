"""The statements of one table on PostgreSQL, with their parameters."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import (
    JSON,
    Boolean,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    Time,
    Uuid,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from coordinator.service.rows import Key, Row, Value
from coordinator.stores.postgresql.pipeline import Statement
from coordinator.stores.sql.column_types import type_at
from coordinator.stores.sql.schema import TableOf
from coordinator.stores.value_types import VALUE_TYPES
from coordinator.stores.write_order import WriteKind

_JSON_TYPES: Final[Sequence[tuple[type[TypeEngine[Any]], str]]] = (
    (Integer, "bigint"),
    (DateTime, "timestamptz"),
    (Boolean, "boolean"),
    (Float, "double precision"),
    (Numeric, "numeric"),
    (Date, "date"),
    (Time, "time"),
    (Uuid, "uuid"),
    (JSON, "json"),
)
"""How a column's values are read from JSON, the first one that fits; all others are text."""
_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


class PostgresqlStatements:
    """Made once. Rows and values are of the table's model, and at least one.

    Sets of rows travel as one JSON parameter: the driver would spend more time on arrays than the server on the rest.
    An insert and an update are told how many rows they have to write, and are refused if the database drops any.
    """

    def __init__(self, table: TableOf) -> None:
        name, names = _quoted(table.name), _list(map(_quoted, table.columns))
        given = _list(f"{_quoted(column)} {_json_type(table, column)}" for column in table.columns)
        rows = f"json_to_recordset($1::json) AS given ({given})"
        values = {column: _value(table, column) for column in table.columns}
        # Of a table that is its key, the key is set to what it is.
        assignments = _list(f"{_quoted(column)} = {values[column]}" for column in table.others or table.keys)
        # Both have another name here: one table of an author's may itself be called `given`.
        existing = f"{name} AS existing"
        matched = " AND ".join(f"existing.{column} = given.{column}" for column in map(_quoted, table.keys))
        select = f"SELECT {names} FROM {name}"  # noqa: S608  # names of tables and columns are code, not input
        insert = f"INSERT INTO {name} ({names}) SELECT {_list(values.values())} FROM {rows}"  # noqa: S608
        update = f"UPDATE {existing} SET {assignments} FROM {rows} WHERE {matched}"  # noqa: S608
        self._name = name
        self._keys = table.keys
        self._order = _list(map(_quoted, table.keys))
        typed = _list(f"{_quoted(column)} {_json_type(table, column)}" for column in table.keys)
        among = f"SELECT {self._order} FROM json_to_recordset($1::json) AS given ({typed})"  # noqa: S608
        self._by_parts = f"{select} WHERE ({self._order}) IN ({among})".encode()
        self._value_types = table.value_types
        self._indexes = table.indexes
        self._select = select
        self._by = {column: f"{select} WHERE {_among(table, column)}".encode() for column in table.columns}
        self._delete = f"DELETE FROM {existing} USING {rows} WHERE {matched}".encode()  # noqa: S608
        self._insert = _whole(insert, table)
        self._spans = [column for column, values in table.value_types.items() if values.kind is timedelta]
        self._update = _whole(update, table)

    def by(self, column: str | tuple[str, ...], values: Sequence[Any]) -> Statement:
        """Select the rows that have one of some values in a column, the key or a unique one."""
        if isinstance(column, str):
            return self._by[column], [msgspec.json.encode(values)]
        return self._by_parts, [msgspec.json.encode([dict(zip(column, value, strict=True)) for value in values])]

    def first(self, limit: int, after: Key | None, where: Sequence[tuple[str, Value]] = ()) -> Statement:
        """Select the first rows in order of their keys, those after one of them, with values in some columns."""
        conditions: list[str] = []
        values: list[bytes] = []
        index = self._indexes.get(tuple(column for column, _ in where))
        last = None if index is None else index.last
        order, begun = self._order, ""
        for column, value in where:
            name = _quoted(column)
            if column == last:
                order = f"{name}, {order}"
            if value is None:
                conditions.append(f"{name} IS NULL")
                continue
            of = self._value_types.get(column)
            values.append(parameter(value if of is None else of.plain(value)))
            mark = f"${len(values)}"
            if column == last:
                begun = f"{mark}, "
                conditions.append(f"{name} >= {mark} AND {name} <= {mark}")
            else:
                conditions.append(f"{name} = {mark}")
        if after is not None:
            parts = after if isinstance(after, tuple) else (after,)
            marks = _list(f"${len(values) + place}" for place, _ in enumerate(parts, 1))
            values += map(parameter, parts)
            conditions.append(f"({order if begun else self._order}) > ({begun}{marks})")
        only = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        values.append(parameter(limit))
        return f"{self._select}{only} ORDER BY {order} LIMIT ${len(values)}".encode(), values

    def last(self, limit: int) -> Statement:
        """Select the last rows in order of their keys, the last one first."""
        return self._last(self._select, limit)

    def last_keys(self, limit: int) -> Statement:
        """Select the last keys, the last one first."""
        return self._last(f"SELECT {self._order} FROM {self._name}", limit)  # noqa: S608

    def _last(self, select: str, limit: int) -> Statement:
        order = _list(f"{_quoted(name)} DESC" for name in self._keys)
        return f"{select} ORDER BY {order} LIMIT $1".encode(), [parameter(limit)]

    def write(self, kind: WriteKind, rows: Sequence[Row]) -> Statement:
        """Write these rows, all at once."""
        if kind == "delete":
            return self._delete, [self._json(rows)]
        return self._insert if kind == "insert" else self._update, [self._json(rows), parameter(len(rows))]

    def _json(self, rows: Sequence[Row]) -> bytes:
        """As msgspec writes all values but spans of time, which are texts there, and integers here."""
        if not self._spans:
            return msgspec.json.encode(rows)
        written = [msgspec.structs.asdict(row) for row in rows]
        plain = VALUE_TYPES[timedelta].plain
        for each in written:
            each |= {name: plain(each[name]) for name in self._spans if each[name] is not None}
        return msgspec.json.encode(written)


def parameter(value: object) -> bytes:
    """A single value, as text."""
    return str(value).encode()


def _whole(statement: str, table: TableOf) -> bytes:
    """The statement, refused unless it writes `$2` rows: a trigger, or row-level security, may drop some silently.

    The check is within the transaction, as the fence is: the counts in the server's answers come only with the commit.
    A cast of a text that is no number raises the error, and the text says what is wrong.
    """
    found = f"'wrote ' || count(*) || ' of ' || $2::bigint || ' rows of {table.name}'"
    check = f"(CASE count(*) WHEN $2::bigint THEN '1' ELSE {found} END)::integer"
    return f"WITH written AS ({statement} RETURNING 1) SELECT {check} FROM written".encode()  # noqa: S608


def _among(table: TableOf, column: str) -> str:
    values = f"SELECT json_array_elements_text($1::json)::{_json_type(table, column)}"
    return f"{_quoted(column)} = ANY(ARRAY({values}))"


def _json_type(table: TableOf, column: str) -> str:
    """Text goes without its length: a cast to varchar(n) would cut it silently. Bytes come as base64."""
    kind = type_at(table.column(column).type, _DIALECT)
    return next((name for of, name in _JSON_TYPES if isinstance(kind, of)), "text")


def _value(table: TableOf, column: str) -> str:
    name = f"given.{_quoted(column)}"
    return (
        f"decode({name}, 'base64')" if isinstance(type_at(table.column(column).type, _DIALECT), LargeBinary) else name
    )


def _quoted(name: str) -> str:
    return f'"{name}"'


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)
