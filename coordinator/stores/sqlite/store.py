"""The store on SQLite: an SQL store without a server, for tests and for trying the library out."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, create_engine

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import R, Row
from coordinator.service.service import Service
from coordinator.stores.lane_tables import LANE_MODELS, LEASE_TABLE
from coordinator.stores.lane_tables import metadata as lane_metadata
from coordinator.stores.port import (
    Backlog,
    BatchFault,
    BatchRefused,
    Changes,
    Conflict,
    Fenced,
    Lease,
    Read,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.server import ServerStore
from coordinator.stores.sql.schema import BACKLOG, Schema, TableOf, dropped, missing_table, row_of

BUSY_TIMEOUT_S = 5.0
_MISSING = re.compile(r"(?:no such table: (?:main\.)?|no such column: (?:\w+\.)?|has no column named )(\w+)")

_TAKE_OVER = f"""
    INSERT INTO {LEASE_TABLE} (lane, epoch, sequence, batches, revision, holder, taken_at) VALUES (?, 1, 0, 0, 0, ?, ?)
    ON CONFLICT (lane) DO UPDATE SET epoch = epoch + 1, holder = excluded.holder, taken_at = excluded.taken_at
    RETURNING epoch, sequence, revision, paused
"""  # noqa: S608  # a constant of ours
_RENEW = f"""
    UPDATE {LEASE_TABLE} SET epoch = epoch + 1, holder = ?, taken_at = ? WHERE lane = ? AND epoch = ?
    RETURNING epoch, sequence, revision, paused
"""  # noqa: S608
_EPOCH = f"SELECT epoch FROM {LEASE_TABLE} WHERE lane = ?"  # noqa: S608
_FENCE = (
    f"UPDATE {LEASE_TABLE} SET sequence = ?, batches = batches + 1 "  # noqa: S608
    "WHERE lane = ? AND epoch = ? AND sequence = ? AND revision = ?"
)


@contextmanager
def _translated(lacks: Callable[[str], bool] = lambda _: False) -> Iterator[None]:
    """The one place where the driver's errors become the port's; `lacks` tells whether the schema lacks that name."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        # A constraint, or a trigger's RAISE.
        raise BatchFault(f"{type(error).__name__}: {error}") from error
    except sqlite3.Error as error:
        raise _meaning(error, lacks) from error
    except (StoreError, ConfigurationError):
        raise
    except Exception as error:
        # What a row holds could not be bound to a statement.
        raise BatchFault(f"{type(error).__name__}: {error}") from error


def _meaning(error: sqlite3.Error, lacks: Callable[[str], bool]) -> StoreError:
    code, text = getattr(error, "sqlite_errorcode", None), f"{type(error).__name__}: {error}"
    if code is None:
        # The module's own: the connection is closed, or what a row holds cannot be bound.
        is_of_a_row = "binding parameter" in text or "not supported" in text
        return BatchFault(text) if is_of_a_row else StoreUnavailable(f"SQLite: {text}")
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Conflict(str(error))
        case sqlite3.SQLITE_ERROR:
            missing = _MISSING.search(text)
            if missing is not None and lacks(missing.group(1)):
                return StoreUnavailable(f"SQLite: {text}: the schema is not as it must be, run `coordinator migrate`")
            return BatchRefused(f"SQLite: {text}")
        case sqlite3.SQLITE_INTERRUPT | sqlite3.SQLITE_ABORT | sqlite3.SQLITE_SCHEMA | sqlite3.SQLITE_MISUSE:
            return BatchRefused(f"SQLite: {text}")
    return StoreUnavailable(f"SQLite: {text}")


def create_schema(path: str, service: Service) -> None:
    """Create the tables of a service and of its lane, where they are missing."""
    engine = create_engine(f"sqlite:///{path}")
    for metadata in (lane_metadata, service.metadata):
        if metadata is not None:
            metadata.create_all(engine)
    engine.dispose()


class SqliteStore(ServerStore):
    """Implements `Store` on a database file."""

    def __init__(self, path: str, service: Service) -> None:
        self._path = path
        self._lane = service.name
        self._schema = Schema(service.metadata)
        self._connection: sqlite3.Connection | None = None

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> None:  # noqa: ARG002
        with _translated():
            for model in (*models, *LANE_MODELS):
                table = self._schema.of(model)
                try:
                    self._connected().execute(f"{_select(table)} LIMIT 0")
                except sqlite3.OperationalError as error:
                    raise missing_table(table.name, f"{self._lane.upper()}_DATABASE_URL", str(error)) from None

    def translated(self) -> AbstractContextManager[None]:
        return _translated(self._lacks)

    def take_over(self, holder: str, now: datetime) -> Lease:
        with self.guarded():
            return Lease(*self._connected().execute(_TAKE_OVER, [self._lane, holder, _text(now)]).fetchone())

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        with self.guarded():
            row = self._connected().execute(_RENEW, [holder, _text(now), self._lane, epoch]).fetchone()
        if row is None:
            raise Fenced(f"epoch {epoch} of lane {self._lane} is over")
        return Lease(*row)

    def holds(self, epoch: int) -> bool:
        with self.guarded():
            return bool(self._connected().execute(_EPOCH, [self._lane]).fetchone() == (epoch,))

    def begin(self) -> Transaction:
        with self.guarded():
            connection = self._connected()
            connection.execute("BEGIN")
        return SqliteTransaction(self, connection, self._schema, self._lane)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _lacks(self, name: str) -> bool:
        """Whether the schema really lacks a table or column of ours: a trigger may use another of the same name."""
        if name not in self._schema.names or self._connection is None:
            return False
        try:
            for table in self._schema.used:
                self._connection.execute(f"{_select(table)} LIMIT 0")
        except sqlite3.OperationalError:
            return True
        return False

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
        return self._connection


class SqliteTransaction:
    """Implements `Transaction`."""

    def __init__(self, store: SqliteStore, connection: sqlite3.Connection, schema: Schema, lane: str) -> None:
        self._store = store
        self._connection = connection
        self._schema = schema
        self._lane = lane

    def load(self, reads: Sequence[Read]) -> list[list[Any]]:
        return [self._load(read) for read in reads]

    def scan(
        self, model: type[R], limit: int, after: int | str | None = None, where: tuple[str, int | str] | None = None
    ) -> list[R]:
        table = self._schema.of(model)
        given = [*([] if where is None else [where]), *([] if after is None else [(table.key, after)])]
        signs = [*([] if where is None else ["="]), *([] if after is None else [">"])]
        conditions = " AND ".join(f'"{column}" {sign} ?' for (column, _), sign in zip(given, signs, strict=True))
        query = f'{_select(table)}{conditions and f" WHERE {conditions}"} ORDER BY "{table.key}" LIMIT ?'
        return self._rows(model, table, query, [*(value for _, value in given), limit])

    def backlog(self) -> list[Backlog]:
        with self._store.guarded():
            found = self._connection.execute(BACKLOG).fetchall()
        return [
            Backlog(target, rows, datetime.fromisoformat(oldest).replace(tzinfo=UTC)) for target, rows, oldest in found
        ]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        with self._store.guarded():
            fenced = self._connection.execute(
                _FENCE, [sequence, self._lane, lease.epoch, lease.sequence, lease.revision]
            )
            if fenced.rowcount != 1:
                raise Fenced(f"epoch {lease.epoch} of lane {self._lane} is over")
            for rows in changes.deletes:
                table = self._schema.of(type(rows[0]))
                self._connection.executemany(
                    f'DELETE FROM "{table.name}" WHERE "{table.key}" = ?',  # noqa: S608
                    [[getattr(row, table.key)] for row in rows],
                )
            for rows in changes.updates:
                table = self._schema.of(type(rows[0]))
                assignments = ", ".join(f'"{name}" = ?' for name in table.others)
                written = self._connection.executemany(
                    f'UPDATE "{table.name}" SET {assignments} WHERE "{table.key}" = ?',  # noqa: S608
                    [[_text(getattr(row, name)) for name in (*table.others, table.key)] for row in rows],
                )
                _check_written(written.rowcount, rows)
            for rows in changes.inserts:
                table = self._schema.of(type(rows[0]))
                marks = ", ".join("?" * len(table.columns))
                names = ", ".join(f'"{name}"' for name in table.columns)
                written = self._connection.executemany(
                    f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})',  # noqa: S608
                    [[_text(value) for value in table.values(row)] for row in rows],
                )
                _check_written(written.rowcount, rows)
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._store.close()

    def _load(self, read: Read) -> list[Any]:
        table = self._schema.of(read.model)
        marks = ", ".join("?" * len(read.values))
        return self._rows(read.model, table, f'{_select(table)} WHERE "{read.column}" IN ({marks})', list(read.values))

    def _rows(self, model: type[R], table: TableOf, query: str, arguments: list[Any]) -> list[R]:
        times = {name for name in table.columns if isinstance(table.column(name).type, DateTime)}
        with self._store.guarded():
            found = self._connection.execute(query, arguments).fetchall()
        return [
            row_of(
                model,
                table.columns,
                [_time(value) if name in times else value for name, value in zip(table.columns, values, strict=True)],
            )
            for values in found
        ]


def _check_written(written: int, rows: Sequence[Row]) -> None:
    if written != len(rows):
        raise dropped(written, len(rows), [rows[0].table])


def _text(value: Any) -> Any:
    """SQLite has no type for times: the text that SQLAlchemy writes and reads."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).replace(tzinfo=UTC)


def _select(table: TableOf) -> str:
    # With the table's name: SQLite would take a quoted name alone for a text, if there is no such column.
    names = ", ".join(f'"{table.name}"."{name}"' for name in table.columns)
    return f'SELECT {names} FROM "{table.name}"'  # noqa: S608
