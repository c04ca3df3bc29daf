"""The store on SQLite: one connection to a file."""

import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import URL, create_engine

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection, Value
from coordinator.service.service import Service
from coordinator.stores.lane_tables import metadata as lane_metadata
from coordinator.stores.port import (
    Backlog,
    BatchFault,
    BatchRefused,
    Changes,
    Conflict,
    DiskFull,
    Lease,
    Read,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.row_makers import Undecodable, numbers_of, rows_of, taker, unreadable_of
from coordinator.stores.sql.declared_tables import tables_of
from coordinator.stores.sql.schema import ByModel, TableOf, writes
from coordinator.stores.sql.store import BACKLOG, FENCE, SqlStore, SqlTransaction, check_written
from coordinator.stores.sqlite.file import IN_MEMORY, identity_of, missing
from coordinator.stores.sqlite.log_origin import DAMAGED, LaneFiles, is_of_damage, opening_problem
from coordinator.stores.sqlite.statements import Statements, marked, quoted, select
from coordinator.stores.write_order import WriteKind

BUSY_TIMEOUT_S = 5.0
VARIABLES_MAX: Final = 30_000
"""The most arguments of one statement: SQLite takes 32,766, unless whoever built it says otherwise."""
_PLAIN = attrgetter("plain")
_FENCE: Final = marked(FENCE)
_TIME_CHARACTERS: Final = len("2026-01-01 00:00:00.000000")
_WHOLE_SECONDS: Final = len('"2026-01-01T00:00:00')
# SQLite does not say which one it is.
_BROKEN: Final[dict[WriteKind, str]] = {
    "delete": "a row of {} goes, and others refer to it",
    "update": "a row of {} refers to one that is not there, or others refer to what it was",
    "insert": "a row of {} refers to one that is not there",
}
_MISSING = re.compile(r"(?:no such table: (?:main\.)?|no such column: (?:\w+\.)?|has no column named )(\w+)")


def create_schema(path: str, service: Service) -> None:
    """Create the tables of a service and of its lane, where they are missing."""
    engine = create_engine(URL.create("sqlite", database=path))
    for metadata in (lane_metadata, tables_of(service)):
        metadata.create_all(engine)
    engine.dispose()


class SqliteStore(SqlStore[sqlite3.Connection]):
    """Implements `Store` on a database file."""

    title = "SQLite"
    reflecting_driver = "sqlite"
    unfilled_statement = (
        'SELECT 1 FROM pragma_table_info(%s) WHERE name = %s AND "notnull" AND dflt_value IS NULL AND pk = 0'
    )

    def __init__(self, path: str, service: Service) -> None:
        super().__init__(service)
        self._path = path
        self.files = LaneFiles(path)
        self.statements = ByModel(self.schema, Statements)

    @property
    def path(self) -> Path | None:
        return None if self._path in IN_MEMORY else Path(self._path)

    def meaning(self, error: Exception) -> StoreError | None:
        return self._meaning_of(error) if isinstance(error, sqlite3.Error) else None

    def _meaning_of(self, error: sqlite3.Error) -> StoreError:  # noqa: PLR0911  # one return for each kind
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
            # A constraint, or a trigger's RAISE.
            is_null = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_NOTNULL
            # "NOT NULL constraint failed: accounts.owner"
            return (self.unfilled(text.rpartition(".")[2]) if is_null else None) or BatchFault(text)
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            # The module's own: the connection is closed, or what a row holds cannot be bound.
            is_of_a_row = "binding parameter" in text or "not supported" in text
            return BatchFault(text) if is_of_a_row else StoreUnavailable(f"SQLite: {text}")
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return Conflict(str(error))
            case sqlite3.SQLITE_FULL:
                return DiskFull(f"SQLite: {text}")
            case sqlite3.SQLITE_ERROR:
                if self._is_of_our_schema(text):
                    return StoreUnavailable(_of_schema(text))
                return BatchRefused(f"SQLite: {text}")
            case sqlite3.SQLITE_INTERRUPT | sqlite3.SQLITE_ABORT | sqlite3.SQLITE_SCHEMA | sqlite3.SQLITE_MISUSE:
                return BatchRefused(f"SQLite: {text}")
        return StoreUnavailable(f"SQLite: {text}{DAMAGED if is_of_damage(error) else ''}")

    def first_row(self, statement: str, arguments: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = (
            self.connection().execute(marked(statement), [_text(value) for value in arguments]).fetchone()
        )
        return row

    def check_same(self) -> None:
        """Raises StoreUnavailable if the file or its log is not what is open: what is written there would be lost."""
        if (problem := self.files.problem()) is not None:
            raise StoreUnavailable(f"SQLite: {problem}")

    def _connect(self) -> sqlite3.Connection:
        self.files.closed()
        # Before it is opened: that would make a file where there is none.
        self.check_same()
        if self.path is not None and identity_of(self._path) is None:
            raise StoreUnavailable(f"SQLite: {missing(self._path)}")
        if (problem := opening_problem(self._path)) is not None:
            # A lane that has run waits until somebody acts.
            raise StoreUnavailable(f"SQLite: {problem}") if self.files.were_open else ConfigurationError(problem)
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # Where the file system knows no WAL, only EXTRA syncs the end of a commit; with WAL it is the same as FULL.
            connection.execute("PRAGMA synchronous=EXTRA")
            # As every other kind of database does; migrations have none of it, as SQLite advises.
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        self.files.begun(connection)
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        self.files.close(connection)

    def _begin(self, connection: sqlite3.Connection) -> Transaction:
        connection.execute("BEGIN")
        return SqliteTransaction(self, connection)

    def _missing(self, table: TableOf) -> str | None:
        try:
            self.first_row(f"{select(table)} LIMIT 0")
        except sqlite3.OperationalError as error:
            if _MISSING.search(str(error)) is None:
                raise
            return str(error)
        return None

    def _check_differences(self, models: Sequence[type[Row]], setting: str) -> None:
        super()._check_differences(models, setting)
        for model in models:
            table = self.schema.of(model)
            try:
                for statement in writes(table, '"'):
                    self.first_row(f"EXPLAIN {statement}")
            except sqlite3.OperationalError as error:
                if self._is_of_references(table, str(error)):
                    raise ConfigurationError(
                        f"a foreign key of table {table.name}, or one to it, in the database of {setting} refers to "
                        f"what is not there, or not unique; no row can be written: make it, or a unique index ({error})"
                    ) from None

    def _is_of_references(self, table: TableOf, text: str) -> bool:
        """Whether the error is about a table to which this one refers, or its columns."""
        missing = _MISSING.search(text)
        if missing is None:
            return text.startswith("foreign key mismatch")
        keys = self.connection().execute(f'PRAGMA foreign_key_list("{table.name}")').fetchall()
        return missing.group(1) in {other for _, _, other, *_ in keys} - {table.name}

    def _check_writable(self, tables: Sequence[TableOf]) -> None:
        # A connection that is open outlives the rights of its file, and the next one does not.
        if self.path is not None and not os.access(self.path, os.R_OK | os.W_OK):
            raise StoreUnavailable(f"SQLite: {self.path} cannot be written: has it been moved, or its rights changed?")
        self.check_same()
        for table in tables:
            if (problem := self._missing(table)) is not None:
                raise StoreUnavailable(_of_schema(problem))

    def _losses(self, tables: Sequence[TableOf]) -> Sequence[str]:  # noqa: ARG002
        # Every connection of ours syncs; how the file keeps its journal, its file system has a say in.
        (mode,) = self.first_row("PRAGMA journal_mode") or (None,)
        return [f"its journal_mode is {mode}"] if self.path is not None and mode in ("memory", "off") else []

    def _indexes(self, table: TableOf) -> Iterable[Sequence[str]]:
        execute = self.connection().execute
        for _, name, _, _, is_partial in execute(f'PRAGMA index_list("{table.name}")').fetchall():
            # The last ones are what an entry points to.
            parts = [part for part in execute(f'PRAGMA index_xinfo("{name}")').fetchall() if part[5]]
            if not is_partial and all(collation == "BINARY" for _, _, _, _, collation, _ in parts):
                yield [column or "" for _, _, column, _, _, _ in parts]

    def _is_of_our_schema(self, text: str) -> bool:
        missing = _MISSING.search(text)
        if missing is None or missing.group(1) not in self.schema.names or self._connection is None:
            return False
        try:
            return self.lacks_schema()
        except sqlite3.Error:
            # Then its text has to do.
            return True


class SqliteTransaction(SqlTransaction[sqlite3.Connection]):
    """Implements `Transaction`."""

    _store: SqliteStore

    def __init__(self, store: SqliteStore, connection: sqlite3.Connection) -> None:
        super().__init__(store, connection)
        self._schema, self._statements = store.schema, store.statements

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        return [self._load(read) for read in reads]

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        return self._first(model, () if where is None else (where,), after, limit)

    def last(self, model: type[R], limit: int) -> list[R]:
        statements = self._statements[model]
        order = ", ".join(f'"{name}" DESC' for name in statements.table.keys)
        return self._found(model, f"{statements.select} ORDER BY {order} LIMIT ?", [limit])

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        query = f'SELECT "{model.key}" FROM "{model.table}" ORDER BY "{model.key}" DESC LIMIT ?'  # noqa: S608
        with self._store.guarded():
            return numbers_of(model, self._connection.execute(query, [limit]))

    def backlog(self) -> list[Backlog]:
        with self._store.guarded():
            found = self._connection.execute(BACKLOG).fetchall()
        return [
            Backlog(target, rows, datetime.fromisoformat(oldest).replace(tzinfo=UTC)) for target, rows, oldest in found
        ]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        with self._store.guarded():
            if self._connection.execute(_FENCE, self._fence(lease, sequence)).rowcount != 1:
                raise self._store.fenced(lease.epoch)
            for kind, rows in self._store.write_order.steps(changes):
                statements = self._statements[type(rows[0])]
                try:
                    self._write(kind, statements, rows)
                except sqlite3.IntegrityError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
                        raise
                    broken = _BROKEN[kind].format(statements.table.name)
                    raise BatchFault(f"IntegrityError: {error}: {broken}") from error
            self._connection.execute("COMMIT")
            # Before anything is acknowledged.
            self._store.check_same()
            self._store.files.committed(sequence)

    def rollback(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._store.close()

    def _write(self, kind: WriteKind, statements: Statements, rows: Sequence[Row]) -> None:
        if kind == "delete":
            table = statements.table
            parts = [_sought(table, name, [getattr(row, name) for row in rows]) for name in table.keys]
            self._connection.executemany(statements.delete, zip(*parts, strict=True))
            return
        statement = statements.insert if kind == "insert" else statements.update
        written = self._connection.executemany(statement, map(taker(type(rows[0]), _PLAIN, _text), rows))
        check_written(written.rowcount, [rows])

    def _load(self, read: Read | RowSelection[Row]) -> list[Any]:
        if isinstance(read, RowSelection):
            return self._first(read.model, read.where, read.after, read.limit)
        width = 1 if isinstance(read.column, str) else len(read.column)
        step = VARIABLES_MAX // width
        found: list[Any] = []
        for start in range(0, len(read.values), step):
            found += self._among(read.model, read.column, read.values[start : start + step])
        return found

    def _among(self, model: type[R], column: str | tuple[str, ...], values: Sequence[Key]) -> list[R]:
        """The rows that have one of these values in a column, or in those of the key."""
        statements = self._statements[model]
        table = statements.table
        if isinstance(column, str):
            marks = ", ".join("?" * len(values))
            query = f'{statements.select} WHERE "{column}" IN ({marks})'
            return self._found(model, query, _sought(table, column, values))
        marks = ", ".join([f"({', '.join('?' * len(column))})"] * len(values))
        parts = [part for value in values for part in _parts(table, value)]
        # Whatever the table's name is, this is another.
        given = f'"keys of {table.name}"'
        matched = " AND ".join(f'"{table.name}"."{name}" = {given}."{name}"' for name in column)
        # A search of the index for each: with a list of keys SQLite scans the table. CROSS JOIN begins on its left.
        keys = f"WITH {given} ({quoted(column)}) AS (VALUES {marks})"
        return self._found(model, f"{keys} {select(table, f'{given} CROSS JOIN ')} ON {matched}", parts)

    def _first(self, model: type[R], where: Sequence[tuple[str, Value]], after: Key | None, limit: int) -> list[R]:
        """The first rows in order of their keys, those after one of them, with values in some columns."""
        statements = self._statements[model]
        table = statements.table
        conditions = [f'"{column}" IS ?' for column, _ in where]
        values = [_sought(table, column, [value])[0] for column, value in where]
        if after is not None:
            marks = ", ".join("?" * len(table.keys))
            conditions.append(f"({quoted(table.keys)}) > ({marks})")
            values += _parts(table, after)
        only = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return self._found(model, f"{statements.select}{only} ORDER BY {quoted(table.keys)} LIMIT ?", [*values, limit])

    def _found(self, model: type[R], query: str, arguments: list[Any]) -> list[R]:
        with self._store.guarded():
            try:
                found = self._connection.execute(query, arguments).fetchall()
            except sqlite3.OperationalError as error:
                if not is_of_text(error):
                    raise
                raise unreadable_of(model, self._with_gaps(query, arguments), _time, is_loose=True) from error
            return rows_of(model, found, _time, is_loose=True)

    def _with_gaps(self, query: str, arguments: list[Any]) -> list[Any]:
        """The rows of a result that has a text that is not UTF-8, with an Undecodable in its place."""
        self._connection.text_factory = _text_or_gap
        try:
            return self._connection.execute(query, arguments).fetchall()
        finally:
            self._connection.text_factory = str


def is_of_text(error: BaseException) -> bool:
    """Whether Python's module says that a text of a row is not UTF-8."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")


def _text_or_gap(text: bytes) -> str | Undecodable:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return Undecodable()


def _of_schema(text: str) -> str:
    return f"SQLite: {text}: the schema is not as it must be, run `coordinator migrate`"


def _text(value: Any) -> Any:
    """SQLite has no type for times: the text that SQLAlchemy writes and reads."""
    if type(value) is datetime and value.tzinfo is UTC:
        # As below, in an eighth of the time.
        text = msgspec.json.encode(value).decode()
        return f"{text[1:11]} {text[12:_WHOLE_SECONDS]}{text[_WHOLE_SECONDS:-2] or '.000000'}"
    if isinstance(value, datetime):
        # Not by `strftime`, which writes the year 1 as 1.
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    return value


def _time(value: str | None) -> datetime | None:
    if value is None:
        return None
    if len(value) == _TIME_CHARACTERS and value[-6:].isdigit():
        # Most are as they are written here, and `replace` takes five times as long.
        return datetime.fromisoformat(f"{value}+00:00")
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _sought(table: TableOf, column: str, values: Sequence[Any]) -> list[Any]:
    """Values by which rows are found, as the column keeps them."""
    of = table.value_types.get(column)
    if of is None:
        return [_text(value) for value in values]
    return [None if value is None else of.plain(value) for value in values]


def _parts(table: TableOf, key: Key) -> list[Any]:
    """The columns of a key, as they are kept."""
    parts = key if isinstance(key, tuple) else (key,)
    return [_sought(table, name, [part])[0] for name, part in zip(table.keys, parts, strict=True)]
