"""The store on PostgreSQL: set-wise statements, in pipelines, one COMMIT a batch.

The fence is an UPDATE of the lease row in the batch's transaction: it takes the row's lock, so that a takeover waits
for the commit, and finds no row once the epoch was raised.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from psycopg import errors
from sqlalchemy import DateTime, Integer, LargeBinary

from coordinator.stores.port import (
    BatchFault,
    Changes,
    Conflict,
    Fenced,
    Lease,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.sql import Schema, TableOf, missing_table, row_of, unsynced
from shared.errors import ConfigurationError
from shared.lane_tables import LANE_MODELS, LEASE_TABLE
from shared.rows import R, Row
from shared.service import Service

CONNECT_TIMEOUT_S = 5
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 5_000
TCP_USER_TIMEOUT_MS = 10_000

_SESSION = {
    # A consumer that was stopped in the middle of a batch must not hold the lease row's lock for ever.
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    "lock_timeout": LOCK_TIMEOUT_MS,
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
}

# Another try may succeed: deadlock, serialization failure, lock not available.
_CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)
# The batch's own content is at fault: classes 22 (data) and 23 (integrity) of the SQL standard, or it is too large.
_FAULTS = (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded)

_TAKE_OVER = f"""
    INSERT INTO {LEASE_TABLE} AS held (lane, epoch, sequence, batches, revision, holder, taken_at)
    VALUES (%(lane)s, 1, 0, 0, 0, %(holder)s, %(now)s)
    ON CONFLICT (lane) DO UPDATE SET epoch = held.epoch + 1, holder = excluded.holder, taken_at = excluded.taken_at
    RETURNING epoch, sequence, revision, paused
""".encode()  # noqa: S608  # a constant of ours
_RENEW = f"""
    UPDATE {LEASE_TABLE} SET epoch = epoch + 1, holder = %(holder)s, taken_at = %(now)s
    WHERE lane = %(lane)s AND epoch = %(epoch)s RETURNING epoch, sequence, revision, paused
""".encode()  # noqa: S608
_FENCE = f"""
    UPDATE {LEASE_TABLE} SET sequence = %(after)s, batches = batches + 1
    WHERE lane = %(lane)s AND epoch = %(epoch)s AND sequence = %(before)s AND revision = %(revision)s
"""  # noqa: S608
_LEASE_TIMEOUT = b"SET LOCAL lock_timeout = '2s'"
_END_STUCK = b"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = %s AND pid <> pg_backend_pid()
    AND state <> 'idle' AND xact_start < now() - interval '1 second'
"""
_FOREIGN_LANES = f"SELECT lane FROM {LEASE_TABLE} WHERE lane <> %s LIMIT 1"  # noqa: S608


@contextmanager
def _translated() -> Iterator[None]:
    """The one place where the driver's errors become the port's."""
    try:
        yield
    except _CONFLICTS as error:
        raise Conflict(str(error)) from error
    except _FAULTS as error:
        raise BatchFault(f"{type(error).__name__}: {error}") from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise BatchFault(f"{type(error).__name__}: {error}") from error
    except (psycopg.Error, OSError) as error:
        raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error


class PostgresStore:
    """Implements `Store`."""

    def __init__(self, url: str, service: Service) -> None:
        self._url = url
        self._lane = service.name
        self._schema = Schema(service.metadata)
        self._statements: dict[type[Row], _Statements] = {}
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> None:
        setting = f"{self._lane.upper()}_DATABASE_URL"
        with _translated():
            connection = self._connected()
            for model in (*models, *LANE_MODELS):
                table = self._schema.of(model)
                try:
                    connection.execute(self.statements(model).first(table.key), [0])
                except (errors.UndefinedTable, errors.UndefinedColumn) as error:
                    raise missing_table(table.name, setting, str(error).splitlines()[0]) from None
            synced = connection.execute("SHOW fsync").fetchone()
            foreign = connection.execute(_FOREIGN_LANES, [self._lane]).fetchone()
        if must_sync and synced != ("on",):
            raise unsynced("fsync is off", setting)
        if foreign is not None:
            raise ConfigurationError(f"the database of {setting} is that of lane {foreign[0]}: a lane needs its own")

    def take_over(self, holder: str, now: datetime) -> Lease:
        row = self._raise_epoch(_TAKE_OVER, {"lane": self._lane, "holder": holder, "now": now})
        if row is None:
            raise StoreUnavailable("PostgreSQL returned no lease")
        return Lease(*row)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        row = self._raise_epoch(_RENEW, {"lane": self._lane, "holder": holder, "now": now, "epoch": epoch})
        if row is None:
            raise Fenced(f"epoch {epoch} of lane {self._lane} is over")
        return Lease(*row)

    def begin(self) -> Transaction:
        with self._closing_when_unavailable():
            connection = self._connected()
            connection.execute("BEGIN")
        return PostgresTransaction(self, connection, self._schema, self._lane)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def statements(self, model: type[Row]) -> "_Statements":
        """The statements of a model's table."""
        known = self._statements.get(model)
        if known is None:
            known = self._statements[model] = _statements(self._schema.of(model))
        return known

    def _raise_epoch(self, statement: bytes, arguments: dict[str, Any]) -> tuple[Any, ...] | None:
        """Wait for a transaction that has passed its fence, but not for ever.

        A consumer that was stopped, or cut off, before it sent the end of its pipeline is `active` to the server: no
        timeout of an idle transaction ends it. So whoever waits too long for the lease does.
        """
        with self._closing_when_unavailable():
            connection = self._connected()
            try:
                with connection.transaction():
                    connection.execute(_LEASE_TIMEOUT)
                    return connection.execute(statement, arguments).fetchone()
            except errors.LockNotAvailable:
                connection.execute(_END_STUCK, [_application_name(self._lane)])
                raise

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name=_application_name(self._lane),
                options=" ".join(
                    f"-c {name}={str(value).replace(' ', chr(92) + ' ')}" for name, value in _SESSION.items()
                ),
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=TCP_USER_TIMEOUT_MS,
            )
        return self._connection

    @contextmanager
    def _closing_when_unavailable(self) -> Iterator[None]:
        try:
            with _translated():
                yield
        except StoreUnavailable:
            self.close()
            raise


class PostgresTransaction:
    """Implements `Transaction`."""

    def __init__(
        self, store: PostgresStore, connection: psycopg.Connection[tuple[Any, ...]], schema: Schema, lane: str
    ) -> None:
        self._store = store
        self._connection = connection
        self._schema = schema
        self._lane = lane
        self._is_spoiled = False

    def load(self, model: type[R], column: str, values: Sequence[int | str]) -> list[R]:
        table = self._schema.of(model)
        query = self._store.statements(model).by(column)
        with self._closing_when_unavailable():
            rows = self._connection.execute(query, [list(values)]).fetchall()
        return [row_of(model, table.columns, row) for row in rows]

    def scan(self, model: type[R], limit: int, after: int | str | None = None) -> list[R]:
        table = self._schema.of(model)
        statements = self._store.statements(model)
        with self._closing_when_unavailable():
            if after is None:
                rows = self._connection.execute(statements.first(table.key), [limit]).fetchall()
            else:
                rows = self._connection.execute(statements.after(table.key), [after, limit]).fetchall()
        return [row_of(model, table.columns, row) for row in rows]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        fence = {
            "lane": self._lane,
            "epoch": lease.epoch,
            "before": lease.sequence,
            "after": sequence,
            "revision": lease.revision,
        }
        with self._closing_when_unavailable():
            self._is_spoiled = True
            fenced = self._connection.cursor()
            try:
                with self._connection.pipeline():
                    fenced.execute(_FENCE, fence)
                    for rows in changes.deletes:
                        self._write(self._store.statements(type(rows[0])).delete, rows)
                    for rows in changes.updates:
                        self._write(self._store.statements(type(rows[0])).update, rows)
                    for rows in changes.inserts:
                        self._write(self._store.statements(type(rows[0])).insert, rows)
            except psycopg.Error:
                # What a stale holder wrote may well contradict what its successor wrote since.
                if fenced.rowcount == 0:
                    raise self._fenced(lease) from None
                raise
            if fenced.rowcount != 1:
                raise self._fenced(lease)
            committed = self._connection.execute("COMMIT")
            # A transaction that failed answers COMMIT with the tag ROLLBACK and no error.
            if committed.statusmessage != "COMMIT":
                raise StoreUnavailable(f"PostgreSQL answered COMMIT with {committed.statusmessage}")
            self._is_spoiled = False

    def rollback(self) -> None:
        if self._connection.closed:
            return
        try:
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._connection.execute("ROLLBACK")
        except (psycopg.Error, OSError):
            self._is_spoiled = True
        if self._is_spoiled:
            # Statements prepared within a pipeline that failed are unknown to the server, but not to the driver.
            self._store.close()

    def _write(self, statement: bytes, rows: Sequence[Row]) -> None:
        self._connection.execute(statement, [msgspec.json.encode(rows).decode()])

    def _fenced(self, lease: Lease) -> Fenced:
        return Fenced(f"epoch {lease.epoch} of lane {self._lane} is over")

    @contextmanager
    def _closing_when_unavailable(self) -> Iterator[None]:
        try:
            with _translated():
                yield
        except StoreUnavailable:
            self._store.close()
            raise


def _application_name(lane: str) -> str:
    return f"lane {lane}"


class _Statements(Struct, frozen=True):
    """The statements of one table, made once.

    Sets of rows travel as one JSON parameter: the driver would spend more time on arrays than the server on the rest.
    """

    select: bytes
    insert: bytes
    update: bytes
    delete: bytes

    def by(self, column: str) -> bytes:
        """Select the rows that have one of some values in a column."""
        return self.select + f" WHERE {_quoted(column)} = ANY(%s)".encode()

    def first(self, key: str) -> bytes:
        """Select the first rows in order of their keys."""
        return self.select + f" ORDER BY {_quoted(key)} LIMIT %s".encode()

    def after(self, key: str) -> bytes:
        """Select the first rows with a higher key, in order of their keys."""
        return self.select + f" WHERE {_quoted(key)} > %s ORDER BY {_quoted(key)} LIMIT %s".encode()


def _statements(table: TableOf) -> _Statements:
    name, key, names = _quoted(table.name), _quoted(table.key), _list(_quoted(column) for column in table.columns)
    given = _list(f"{_quoted(column)} {_json_type(table, column)}" for column in table.columns)
    rows = f"json_to_recordset(%s::json) AS given ({given})"
    values = {column: _value(table, column) for column in table.columns}
    assignments = _list(f"{_quoted(column)} = {values[column]}" for column in table.others)
    return _Statements(
        f"SELECT {names} FROM {name}".encode(),  # noqa: S608  # names of tables and columns are code, not input
        f"INSERT INTO {name} ({names}) SELECT {_list(values.values())} FROM {rows}".encode(),  # noqa: S608
        f"UPDATE {name} AS held SET {assignments} FROM {rows} WHERE held.{key} = given.{key}".encode(),  # noqa: S608
        f"DELETE FROM {name} USING {rows} WHERE {name}.{key} = given.{key}".encode(),  # noqa: S608
    )


def _json_type(table: TableOf, column: str) -> str:
    """Text goes without its length: a cast to varchar(n) would cut it silently. Bytes come as base64."""
    kind = table.column(column).type
    if isinstance(kind, Integer):
        return "bigint"
    return "timestamptz" if isinstance(kind, DateTime) else "text"


def _value(table: TableOf, column: str) -> str:
    name = f"given.{_quoted(column)}"
    return f"decode({name}, 'base64')" if isinstance(table.column(column).type, LargeBinary) else name


def _quoted(name: str) -> str:
    return f'"{name}"'


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)
