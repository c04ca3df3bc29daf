"""The store on PostgreSQL: set-wise statements, two round trips a batch: all reads, then all writes and their commit.

The fence is an UPDATE of the lease row in the batch's transaction: it takes the row's lock, so that a takeover waits
for the commit, and finds no row once the epoch was raised. By then the rest of the pipeline, whose end commits, is
under way, so a fence that finds no row is an error: it aborts the transaction, and the server skips the rest.

Reads are outside the transaction. Under READ COMMITTED it would not show them anything else, and the fence, which
compares the sequence too, finds out whether anything was committed since.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from psycopg import errors
from psycopg.pq.abc import PGresult
from sqlalchemy import DateTime, Integer, LargeBinary

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import R, Row
from coordinator.service.service import Service
from coordinator.stores.lane_tables import LANE_MODELS, LEASE_TABLE
from coordinator.stores.port import (
    Backlog,
    BatchFault,
    Changes,
    Fenced,
    Lease,
    Read,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.postgresql.errors import translated
from coordinator.stores.postgresql.pipeline import Pipeline, Refused, Statement
from coordinator.stores.server import ServerStore
from coordinator.stores.sql.schema import BACKLOG, Schema, TableOf, missing_table, row_of, unsynced

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
    # Every statement goes by a key. The plan of a prepared one is kept, and one that was made while a table was empty
    # would read all of it until the next ANALYZE: 200 ms, not 5, for 1,000 ids in a log of 10,000.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

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
# Divides by zero unless it finds the row.
_FENCE = f"""
    WITH held AS (
        UPDATE {LEASE_TABLE} SET sequence = $1, batches = batches + 1
        WHERE lane = $2 AND epoch = $3 AND sequence = $4 AND revision = $5 RETURNING 1
    ) SELECT 1 / count(*) FROM held
""".encode()  # noqa: S608
_LEASE_TIMEOUT = b"SET LOCAL lock_timeout = '2s'"
_END_STUCK = b"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = %s AND pid <> pg_backend_pid()
    AND state <> 'idle' AND xact_start < now() - interval '1 second'
"""
_EPOCH = f"SELECT epoch FROM {LEASE_TABLE} WHERE lane = %s".encode()  # noqa: S608
_FOREIGN_LANES = f"SELECT lane FROM {LEASE_TABLE} WHERE lane <> %s LIMIT 1"  # noqa: S608


@contextmanager
def _translated() -> Iterator[None]:
    """The one place where the driver's errors become the port's."""
    try:
        try:
            yield
        except Refused as refused:
            raise refused.error from None
    except psycopg.Error as error:
        raise translated(error) from error
    except OSError as error:
        raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error
    except (StoreError, ConfigurationError):
        raise
    except Exception as error:
        # What a row holds could not be sent.
        raise BatchFault(f"{type(error).__name__}: {error}") from error


class PostgresStore(ServerStore):
    """Implements `Store`."""

    def __init__(self, url: str, service: Service) -> None:
        self._url = url
        self._lane = service.name
        self._schema = Schema(service.metadata)
        self._statements: dict[type[Row], _Statements] = {}
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._pipeline: Pipeline | None = None

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> None:
        setting = f"{self._lane.upper()}_DATABASE_URL"
        with _translated():
            connection = self._connected()
            for model in (*models, *LANE_MODELS):
                table = self._schema.of(model)
                try:
                    self.pipeline().run([(self.statements(model).first(table.key), [b"0"])])
                except Refused as refused:
                    if not isinstance(refused.error, errors.UndefinedTable | errors.UndefinedColumn):
                        raise
                    raise missing_table(table.name, setting, str(refused).splitlines()[0]) from None
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

    def holds(self, epoch: int) -> bool:
        with self.guarded():
            return self._connected().execute(_EPOCH, [self._lane]).fetchone() == (epoch,)

    def begin(self) -> Transaction:
        with self.guarded():
            connection = self._connected()
            pipeline = self.pipeline()
        return PostgresTransaction(self, connection, pipeline, self._schema, self._lane)

    def translated(self) -> AbstractContextManager[None]:
        return _translated()

    def close(self) -> None:
        connection, self._connection, self._pipeline = self._connection, None, None
        if connection is not None:
            connection.close()

    def pipeline(self) -> Pipeline:
        """The pipeline of the connection, which is opened if there is none."""
        connection = self._connected()
        if self._pipeline is None:
            self._pipeline = Pipeline(connection)
        return self._pipeline

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
        with self.guarded():
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
                prepare_threshold=0,
            )
        return self._connection


class PostgresTransaction:
    """Implements `Transaction`."""

    def __init__(
        self,
        store: PostgresStore,
        connection: psycopg.Connection[tuple[Any, ...]],
        pipeline: Pipeline,
        schema: Schema,
        lane: str,
    ) -> None:
        self._store = store
        self._connection = connection
        self._pipeline = pipeline
        self._schema = schema
        self._lane = lane
        self._is_spoiled = False

    def load(self, reads: Sequence[Read]) -> list[list[Any]]:
        with self._store.guarded():
            results = self._run(
                [(self._store.statements(read.model).by(read.column), [_json(read.values)]) for read in reads]
            )
            return [self._rows(read.model, result) for read, result in zip(reads, results, strict=True)]

    def scan(
        self, model: type[R], limit: int, after: int | str | None = None, where: tuple[str, int | str] | None = None
    ) -> list[R]:
        key = self._schema.of(model).key
        conditions: list[str] = []
        values: list[bytes] = []
        if where is not None:
            values.append(_text(where[1]))
            conditions.append(f"{_quoted(where[0])} = ${len(values)}")
        if after is not None:
            values.append(_text(after))
            conditions.append(f"{_quoted(key)} > ${len(values)}")
        statement = self._store.statements(model).first(key, conditions)
        with self._store.guarded():
            (result,) = self._run([(statement, [*values, _text(limit)])])
            return self._rows(model, result)

    def backlog(self) -> list[Backlog]:
        with self._store.guarded():
            (result,) = self._run([(BACKLOG.encode(), [])])
            return [Backlog(*row) for row in self._pipeline.rows(result)]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        fence = [_text(value) for value in (sequence, self._lane, lease.epoch, lease.sequence, lease.revision)]
        with self._store.guarded():
            try:
                self._run(
                    [
                        (_FENCE, fence),
                        *((self._statements(rows).delete, [_json(rows)]) for rows in changes.deletes),
                        *((self._statements(rows).update, [_json(rows), _text(len(rows))]) for rows in changes.updates),
                        *((self._statements(rows).insert, [_json(rows), _text(len(rows))]) for rows in changes.inserts),
                    ]
                )
            except Refused as refused:
                if refused.position == 0 and isinstance(refused.error, errors.DivisionByZero):
                    raise Fenced(f"epoch {lease.epoch} of lane {self._lane} is over") from None
                raise

    def rollback(self) -> None:
        if self._is_spoiled:
            self._store.close()

    def _run(self, statements: Sequence[Statement]) -> list[PGresult]:
        """Run statements. After anything but an answer to all of them the connection is of no use."""
        self._is_spoiled = True
        try:
            results = self._pipeline.run(statements)
        except Refused:
            self._is_spoiled = False
            raise
        self._is_spoiled = False
        return results

    def _statements(self, rows: Sequence[Row]) -> "_Statements":
        return self._store.statements(type(rows[0]))

    def _rows(self, model: type[R], result: PGresult) -> list[R]:
        columns = self._schema.of(model).columns
        return [row_of(model, columns, row) for row in self._pipeline.rows(result)]


def _json(values: Sequence[Any]) -> bytes:
    return msgspec.json.encode(values)


def _text(value: int | str) -> bytes:
    return str(value).encode()


def _application_name(lane: str) -> str:
    return f"lane {lane}"


class _Statements(Struct, frozen=True):
    """The statements of one table, made once.

    Sets of rows travel as one JSON parameter: the driver would spend more time on arrays than the server on the rest.
    An insert and an update are told how many rows they have to write, and are refused if the database drops any.
    """

    select: bytes
    lookups: dict[str, bytes]
    insert: bytes
    update: bytes
    delete: bytes

    def by(self, column: str) -> bytes:
        """Select the rows that have one of some values in a column, the key or a unique one."""
        return self.lookups[column]

    def first(self, key: str, conditions: Sequence[str] = ()) -> bytes:
        """Select the first rows that meet some conditions, in order of their keys; the limit is the last parameter."""
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return self.select + f"{where} ORDER BY {_quoted(key)} LIMIT ${len(conditions) + 1}".encode()


def _statements(table: TableOf) -> _Statements:
    name, key, names = _quoted(table.name), _quoted(table.key), _list(_quoted(column) for column in table.columns)
    given = _list(f"{_quoted(column)} {_json_type(table, column)}" for column in table.columns)
    rows = f"json_to_recordset($1::json) AS given ({given})"
    values = {column: _value(table, column) for column in table.columns}
    assignments = _list(f"{_quoted(column)} = {values[column]}" for column in table.others)
    select = f"SELECT {names} FROM {name}"  # noqa: S608  # names of tables and columns are code, not input
    return _Statements(
        select.encode(),
        {column: f"{select} WHERE {_among(table, column)}".encode() for column in table.columns},
        _whole(f"INSERT INTO {name} ({names}) SELECT {_list(values.values())} FROM {rows}", table),  # noqa: S608
        _whole(f"UPDATE {name} AS held SET {assignments} FROM {rows} WHERE held.{key} = given.{key}", table),  # noqa: S608
        f"DELETE FROM {name} USING {rows} WHERE {name}.{key} = given.{key}".encode(),  # noqa: S608
    )


def _whole(statement: str, table: TableOf) -> bytes:
    """The statement, refused unless it writes `$2` rows: a trigger, or row-level security, may drop some silently.

    Within the transaction, as the fence is: the counts in the server's answers come with the commit. What is no number
    is the error, and says what is wrong.
    """
    found = f"'wrote ' || count(*) || ' of ' || $2::bigint || ' rows of {table.name}'"
    check = f"(CASE count(*) WHEN $2::bigint THEN '1' ELSE {found} END)::integer"
    return f"WITH written AS ({statement} RETURNING 1) SELECT {check} FROM written".encode()  # noqa: S608


def _among(table: TableOf, column: str) -> str:
    values = f"SELECT json_array_elements_text($1::json)::{_json_type(table, column)}"
    return f"{_quoted(column)} = ANY(ARRAY({values}))"


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
