"""The statements of one table on MySQL, with the values in them.

The driver looks at the type of every value again, for longer than the server takes to insert a row. The type of a
column is known, so one function writes all of its values. What has to be escaped, the driver's own function escapes;
it takes a backslash for an escape, which the session's sql_mode lets it be.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from pymysql.converters import escape_item, escape_string
from sqlalchemy import DateTime, Integer, LargeBinary, String
from sqlalchemy.dialects import mysql

from coordinator.service.rows import Key, Row, Value
from coordinator.stores.sql.column_types import type_at
from coordinator.stores.sql.declared_tables import WITHOUT_PRIMARY
from coordinator.stores.sql.schema import TableOf
from coordinator.stores.write_order import WriteKind

INSERT_ROWS: Final = 125
"""In one statement: so many that the server is busy with it while the next is written. An UPDATE takes all of its rows,
since for each statement the server makes a table of what is given, which costs more than that saves."""
KEYS_MAX: Final = 200
"""The most keys of several columns in one statement: a server's time for a plan grows faster than they do."""
STATEMENT_CHARACTERS_MAX: Final = 1_000_000
"""The most characters of rows in one statement. Servers take packets of 16 MiB and more by default."""
UNFILLED: Final = (
    "SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s "
    "AND column_name = %s AND is_nullable = 'NO' AND column_default IS NULL "
    "AND extra NOT LIKE '%%auto_increment%%' AND extra NOT LIKE '%%GENERATED%%'"
)
"""Finds a column of a table that no insert may leave out."""
_DIALECT: Final = mysql.dialect()

_Writer = Callable[[Any], str]


class MysqlStatements:
    """Makes them. Rows and values are of the table's model, and at least one."""

    def __init__(self, table: TableOf) -> None:
        self._columns = table.columns
        self._keys = table.keys
        # Of a table that is its key, the key is set to what it is.
        self._others = table.others or table.keys
        self._writers = {name: _writer(table, name) for name in table.columns}
        self._has_number_key = all(
            isinstance(type_at(table.column(name).type, _DIALECT), Integer) for name in table.keys
        )
        self._order = _list(map(_quoted, table.keys))
        self._name = _quoted(table.name)
        self._indexes = table.indexes
        self._selected = f"{_list(map(_quoted, table.columns))} FROM {self._name}"
        self.select = f"SELECT {self._selected}"

    def by(self, column: str | tuple[str, ...], values: Iterable[Any]) -> Sequence[str]:
        """Select the rows that have one of some values in a column, or in those of the key."""
        if isinstance(column, str):
            return (f"{self.select} WHERE {self._among(column, values)}",)
        return [f"{self.select} WHERE {among}" for among in self._among_keys(values)]

    def first(self, limit: int, after: Key | None, where: Sequence[tuple[str, Value]] = ()) -> str:
        """Select the first rows in order of their keys, those after one of them, with values in some columns."""
        index = self._indexes.get(tuple(column for column, _ in where))
        last, select = None, self.select
        if index is not None:
            last, select = index.last, f"SELECT {index.hint} {self._selected}"
        if (last, None) in where:
            # Ordered by that column, too, they would be sorted; else MariaDB 11.8 goes along the primary key.
            last, select = None, f"{select} {WITHOUT_PRIMARY}"
        conditions = [self._has(column, value, is_range=column == last) for column, value in where]
        if after is not None:
            parts = after if isinstance(after, tuple) else (after,)
            conditions.append(self._behind(self._keys, parts, is_alone=not where))
        only = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        order = self._order if last is None else f"{_quoted(last)}, {self._order}"
        return f"{select}{only} ORDER BY {order} LIMIT {limit:d}"

    def _behind(self, names: Sequence[str], parts: Sequence[Any], *, is_alone: bool) -> str:
        """The condition of a higher key. Of a comparison of rows the server makes no range of an index.

        MariaDB makes one of the first column alone if it is not told what that is where the second counts. Told, it
        takes the primary key in place of the index of another condition.
        """
        name, part = _quoted(names[0]), self._writers[names[0]](parts[0])
        if len(names) == 1:
            return f"{name} > {part}"
        rest = self._behind(names[1:], parts[1:], is_alone=is_alone)
        if is_alone:
            rest = f"{name} = {part} AND {rest}"
        return f"{name} >= {part} AND ({name} > {part} OR ({rest}))"

    def _has(self, column: str, value: Value, *, is_range: bool) -> str:
        name = _quoted(column)
        if value is None:
            return f"{name} IS NULL"
        # The server would compare a text with a decimal as floats.
        written = f"{value:f}" if isinstance(value, Decimal) else self._writers[column](value)
        return f"{name} >= {written} AND {name} <= {written}" if is_range else f"{name} = {written}"

    def last(self, limit: int) -> str:
        """Select the last rows in order of their keys, the last one first."""
        return f"{self.select} {self._last(limit)}"

    def last_keys(self, limit: int) -> str:
        """Select the last keys, the last one first."""
        return f"SELECT {self._order} FROM {self._name} {self._last(limit)}"  # noqa: S608

    def _last(self, limit: int) -> str:
        order = _list(f"{_quoted(name)} DESC" for name in self._keys)
        return f"ORDER BY {order} LIMIT {limit:d}"

    def write(self, kind: WriteKind, rows: Sequence[Row]) -> Iterable[str]:
        """Write these rows, in their order but for changes, which come at once."""
        if kind == "delete":
            return self.delete(rows)
        return self.insert(rows) if kind == "insert" else self.update(rows)

    def delete(self, rows: Sequence[Row]) -> Sequence[str]:
        keys = map(attrgetter(*self._keys), rows)
        every = (self._among(self._keys[0], keys),) if len(self._keys) == 1 else self._among_keys(keys)
        return [f"DELETE FROM {self._name} WHERE {among}" for among in every]  # noqa: S608

    def insert(self, rows: Sequence[Row]) -> Iterator[str]:
        names = _list(map(_quoted, self._columns))
        opening = f"INSERT INTO {self._name} ({names}) VALUES ("  # noqa: S608
        return _in_statements(opening, self._written(rows, self._columns), "), (", ")", INSERT_ROWS)

    def update(self, rows: Sequence[Row]) -> Iterator[str]:
        if not self._has_number_key:
            # A text key joined with literals would be compared in the connection's collation, and without the index.
            return map(self._update, rows)
        columns = tuple(dict.fromkeys((*self._keys, *self._others)))
        # Names and no row: what has no key is joined with nothing.
        names = _list(f"NULL AS {_quoted(name)}" for name in columns)
        opening = f"UPDATE {self._name} AS existing JOIN (SELECT {names} UNION ALL SELECT "
        assignments = _list(f"existing.{_quoted(name)} = given.{_quoted(name)}" for name in self._others)
        matched = " AND ".join(f"existing.{name} = given.{name}" for name in map(_quoted, self._keys))
        ending = f") AS given ON {matched} SET {assignments}"
        return _in_statements(opening, self._written(rows, columns), " UNION ALL SELECT ", ending, len(rows))

    def _update(self, row: Row) -> str:
        given = _list(f"{_quoted(name)} = {self._writers[name](getattr(row, name))}" for name in self._others)
        return f"UPDATE {self._name} SET {given} WHERE {self._is([getattr(row, name) for name in self._keys])}"  # noqa: S608

    def _is(self, parts: Sequence[Any]) -> str:
        """The condition of a key."""
        named = zip(self._keys, parts, strict=True)
        return " AND ".join(f"{_quoted(name)} = {self._writers[name](part)}" for name, part in named)

    def _among_keys(self, keys: Iterable[Sequence[Any]]) -> Iterator[str]:
        """The condition of having one of some keys, for as many statements as they need."""
        waiting = iter(keys)
        while some := list(islice(waiting, KEYS_MAX)):
            # Of a list of rows not every server makes ranges of an index.
            yield " OR ".join(f"({self._is(parts)})" for parts in some)

    def _among(self, column: str, values: Iterable[Any]) -> str:
        return f"{_quoted(column)} IN ({_list(map(self._writers[column], values))})"

    def _written(self, rows: Sequence[Row], columns: Sequence[str]) -> Iterator[str]:
        """`1, 'one'` for each row."""
        written = (map(self._writers[name], map(attrgetter(name), rows)) for name in columns)
        return map(_list, zip(*written, strict=True))


def _in_statements(opening: str, rows: Iterator[str], between: str, ending: str, rows_max: int) -> Iterator[str]:
    """All rows, in statements with a limit on their rows and characters; a row above the limit has one for itself."""
    while given := list(islice(rows, rows_max)):
        waiting = [given]
        while waiting:
            given = waiting.pop()
            text = between.join(given)
            if len(text) > STATEMENT_CHARACTERS_MAX and len(given) > 1:
                half = len(given) // 2
                waiting += [given[half:], given[:half]]
            else:
                yield f"{opening}{text}{ending}"


_BINARIES: Final = (LargeBinary, mysql.BINARY, mysql.VARBINARY, mysql.TINYBLOB, mysql.MEDIUMBLOB, mysql.LONGBLOB)
"""MySQL's own have no base in common with SQLAlchemy's."""


def _writer(table: TableOf, name: str) -> _Writer:
    if name in table.value_types:
        return _plain(table.value_types[name].plain)
    kind = type_at(table.column(name).type, _DIALECT)
    if isinstance(kind, Integer):
        return _integer
    if isinstance(kind, String):
        return _text
    if isinstance(kind, DateTime):
        return _time
    return _bytes if isinstance(kind, _BINARIES) else _any


def _integer(value: int | None) -> str:
    return "NULL" if value is None else f"{value:d}"


def _text(value: str | None) -> str:
    return "NULL" if value is None else f"'{escape_string(value)}'"


def _bytes(value: bytes | None) -> str:
    return "NULL" if value is None else f"x'{bytes.hex(value)}'"


@lru_cache(maxsize=16)  # the rows of a batch have one
def _time(value: datetime | None) -> str:
    # For no other type: a text must never be in a statement without escapes.
    return "NULL" if value is None else f"'{datetime.astimezone(value, UTC).replace(tzinfo=None)}'"


def _plain(form: Callable[[Any], int | float | str]) -> _Writer:
    def write(value: Any) -> str:
        if value is None:
            return "NULL"
        plain = form(value)
        if isinstance(plain, str):
            return _text(plain)
        # With an exponent it is a float, and else a number of as many digits as are written.
        return f"{plain:d}" if isinstance(plain, int) else f"{plain:.16e}"

    return write


def _any(value: Any) -> str:
    return str(escape_item(value, "utf8mb4"))


def _quoted(name: str) -> str:
    return f"`{name}`"


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)
