"""The store on MySQL and MariaDB: multi-row statements, one COMMIT a batch.

A deadlock (1213) rolls the whole transaction back, a lock timeout (1205) only the statement: either way the batch is
rolled back and run again. The fence is an UPDATE of the lease row in the batch's transaction.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pymysql
from pymysql.constants import COMMAND, ER
from sqlalchemy import make_url

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import R, Row
from coordinator.service.service import Service
from coordinator.stores.lane_tables import LANE_MODELS, LEASE_TABLE
from coordinator.stores.mysql.errors import depends_on_more, is_of_schema, is_signaled, translated
from coordinator.stores.mysql.statements import Statements
from coordinator.stores.port import (
    Backlog,
    BatchFault,
    BatchRefused,
    Changes,
    Fenced,
    Lease,
    Read,
    Refusal,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.sql.schema import BACKLOG, Schema, aware, dropped, missing_table, naive, row_of, unsynced

CONNECT_TIMEOUT_S = 5
IO_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 5
LEASE_TIMEOUT_S = 2
PORT = 3306

_SCHEMA = {ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR}

_SESSION = (
    "SET SESSION transaction_isolation = 'READ-COMMITTED'",
    f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
)
_TAKE_OVER = f"""
    INSERT INTO {LEASE_TABLE} (lane, epoch, sequence, batches, revision, holder, taken_at)
    VALUES (%s, 1, 0, 0, 0, %s, %s)
    ON DUPLICATE KEY UPDATE epoch = epoch + 1, holder = VALUES(holder), taken_at = VALUES(taken_at)
"""  # noqa: S608  # a constant of ours
_RENEW = f"UPDATE {LEASE_TABLE} SET epoch = epoch + 1, holder = %s, taken_at = %s WHERE lane = %s AND epoch = %s"  # noqa: S608
_HELD = f"SELECT epoch, sequence, revision, paused FROM {LEASE_TABLE} WHERE lane = %s"  # noqa: S608
_FENCE = (
    f"UPDATE {LEASE_TABLE} SET sequence = %s, batches = batches + 1 "  # noqa: S608
    "WHERE lane = %s AND epoch = %s AND sequence = %s AND revision = %s"
)
_ENGINES = (
    "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN %s"
)
# Seeing other transactions needs the right PROCESS; without it every other connection of ours is ended.
_STUCK = """
    SELECT process.id FROM information_schema.processlist AS process
    JOIN information_schema.innodb_trx AS trx ON trx.trx_mysql_thread_id = process.id
    WHERE process.db = DATABASE() AND process.id <> CONNECTION_ID()
    AND process.user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AND trx.trx_started < NOW() - INTERVAL 1 SECOND
"""
_OURS = """
    SELECT id FROM information_schema.processlist
    WHERE db = DATABASE() AND id <> CONNECTION_ID() AND user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)
"""
_STATE = "GET DIAGNOSTICS CONDITION 1 @lane_sqlstate = RETURNED_SQLSTATE"
_ACCESS_DENIED = 1227
_NO_SUCH_THREAD = 1094
_EPOCH = f"SELECT epoch FROM {LEASE_TABLE} WHERE lane = %s"  # noqa: S608
_FOREIGN_LANES = f"SELECT lane FROM {LEASE_TABLE} WHERE lane <> %s LIMIT 1"  # noqa: S608


@contextmanager
def _translated(names: Collection[str] = ()) -> Iterator[None]:
    """The one place where the driver's errors become the port's; `names` are those of the tables and columns."""
    try:
        yield
    except pymysql.MySQLError as error:
        raise translated(error, names) from error
    except OSError as error:
        raise StoreUnavailable(f"MySQL: {type(error).__name__}: {error}") from error
    except (StoreError, ConfigurationError):
        raise
    except Exception as error:
        # What a row holds could not be written into a statement.
        raise BatchFault(f"{type(error).__name__}: {error}") from error


class MysqlStore:
    """Implements `Store`."""

    def __init__(self, url: str, service: Service) -> None:
        self._address = make_url(url)
        self._lane = service.name
        self._schema = Schema(service.metadata)
        self._statements: dict[type[Row], Statements] = {}
        self._connection: pymysql.Connection[Any] | None = None

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> None:
        setting = f"{self._lane.upper()}_DATABASE_URL"
        with _translated(), self._connected().cursor() as cursor:
            for model in (*models, *LANE_MODELS):
                table = self._schema.of(model)
                try:
                    cursor.execute(f"{self.statements(model).select} LIMIT 0")
                except pymysql.MySQLError as error:
                    if error.args[0] not in _SCHEMA:
                        raise
                    raise missing_table(table.name, setting, str(error.args[1])) from None
            cursor.execute(_ENGINES, [[self._schema.of(model).name for model in (*models, *LANE_MODELS)]])
            engines = cursor.fetchall()
            cursor.execute("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")
            flush = cursor.fetchone()
            cursor.execute(_FOREIGN_LANES, [self._lane])
            foreign = cursor.fetchone()
        for name, engine in engines:
            if engine != "InnoDB":
                raise ConfigurationError(
                    f"table {name} in the database of {setting} has the engine {engine}, which knows no transactions: "
                    f"ALTER TABLE {name} ENGINE = InnoDB"
                )
        if must_sync and flush != (1,):
            raise unsynced(f"innodb_flush_log_at_trx_commit is {flush[0] if flush else None}, not 1", setting)
        if foreign is not None:
            raise ConfigurationError(f"the database of {setting} is that of lane {foreign[0]}: a lane needs its own")

    def take_over(self, holder: str, now: datetime) -> Lease:
        return self._raise_epoch(_TAKE_OVER, [self._lane, holder, naive(now)])

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        return self._raise_epoch(_RENEW, [holder, naive(now), self._lane, epoch])

    def holds(self, epoch: int) -> bool:
        with self._closing_when_unavailable(), self._connected().cursor() as cursor:
            cursor.execute(_EPOCH, [self._lane])
            return bool(cursor.fetchone() == (epoch,))

    def begin(self) -> Transaction:
        with self._closing_when_unavailable():
            connection = self._connected()
            connection.begin()
        return MysqlTransaction(self, connection, self._schema, self._lane)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Without the COM_QUIT of close(), which can block on a stalled network.
            connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001

    def statements(self, model: type[Row]) -> Statements:
        known = self._statements.get(model)
        if known is None:
            known = self._statements[model] = Statements(self._schema.of(model))
        return known

    def lacks_schema(self, cursor: Any) -> bool:
        """Whether a table or column of ours is really missing: a trigger may use others of the same names."""
        for statements in self._statements.values():
            try:
                cursor.execute(f"{statements.select} LIMIT 0")
            except pymysql.MySQLError as error:
                if not is_of_schema(error):
                    raise
                return True
        return False

    def _raise_epoch(self, statement: str, arguments: list[Any]) -> Lease:
        """Raise the epoch and read the lease under the same row lock.

        Waits for a transaction that has passed its fence, but not for ever: a consumer that was stopped, or cut off,
        before its COMMIT would hold the lock for as long as the server keeps its connection.
        """
        with self._closing_when_unavailable():
            connection = self._connected()
            connection.begin()
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {LEASE_TIMEOUT_S}")
                    raised = cursor.execute(statement, arguments)
                    cursor.execute(_HELD, [self._lane])
                    held = cursor.fetchone()
                    cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}")
                connection.commit()
            except pymysql.MySQLError as error:
                if error.args[0] == ER.LOCK_WAIT_TIMEOUT:
                    connection.rollback()
                    _end_stuck(connection)
                self.close()
                raise
        if not raised or held is None:
            raise Fenced(f"the epoch of lane {self._lane} was raised by another consumer")
        return Lease(*held)

    def _connected(self) -> "pymysql.Connection[Any]":
        if self._connection is None:
            address = self._address
            connection = pymysql.connect(
                host=address.host or "127.0.0.1",
                port=address.port or PORT,
                user=address.username or "",
                password=address.password or "",
                database=address.database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=IO_TIMEOUT_S,
                write_timeout=IO_TIMEOUT_S,
                # An UPDATE counts the rows that it found, changed or not.
                client_flag=pymysql.constants.CLIENT.FOUND_ROWS,
            )
            with connection.cursor() as cursor:
                for statement in _SESSION:
                    _set(cursor, statement)
            self._connection = connection
        return self._connection

    @contextmanager
    def _closing_when_unavailable(self) -> Iterator[None]:
        try:
            with _translated(self._schema.names):
                yield
        except StoreUnavailable:
            self.close()
            raise


class MysqlTransaction:
    """Implements `Transaction`."""

    def __init__(self, store: MysqlStore, connection: "pymysql.Connection[Any]", schema: Schema, lane: str) -> None:
        self._store = store
        self._connection = connection
        self._schema = schema
        self._lane = lane
        self._is_open = True

    def load(self, reads: Sequence[Read]) -> list[list[Any]]:
        return [self._load(read) for read in reads]

    def scan(
        self, model: type[R], limit: int, after: int | str | None = None, where: tuple[str, int | str] | None = None
    ) -> list[R]:
        return self._rows(model, self._store.statements(model).first(limit, after, where))

    def backlog(self) -> list[Backlog]:
        with self._closing_when_unavailable(), self._connection.cursor() as cursor:
            cursor.execute(BACKLOG)
            return [Backlog(*map(aware, row)) for row in cursor.fetchall()]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        with self._closing_when_unavailable():
            with self._connection.cursor() as cursor:
                if cursor.execute(_FENCE, [sequence, self._lane, lease.epoch, lease.sequence, lease.revision]) != 1:
                    raise Fenced(f"epoch {lease.epoch} of lane {self._lane} is over")
            given = [*changes.updates, *changes.inserts]
            try:
                written = self._run(self._queries(changes))
            except pymysql.MySQLError as error:
                if depends_on_more(error) and (meaning := self._meaning_of_trigger(error)) is not None:
                    raise meaning from error
                raise
            if written != sum(map(len, given)):
                raise dropped(written, sum(map(len, given)), [rows[0].table for rows in given])
            self._commit()
            self._is_open = False

    def rollback(self) -> None:
        if not self._is_open or not self._connection.open:
            return
        self._is_open = False
        try:
            self._connection.rollback()
        except (pymysql.MySQLError, OSError):
            self._store.close()

    def _commit(self) -> None:
        """A refusal of the COMMIT itself, but for a known one, may be one of its answer only."""
        try:
            self._connection.commit()
        except pymysql.MySQLError as error:
            meaning = translated(error, self._schema.names)
            raise StoreUnavailable(str(meaning)) if isinstance(meaning, BatchRefused) else meaning from error

    def _meaning_of_trigger(self, error: pymysql.MySQLError) -> Refusal | None:
        """What the number of an error does not tell, the server does, on the same connection if there still is one."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(_STATE)
                cursor.execute("SELECT @lane_sqlstate")
                (state,) = cursor.fetchone() or (None,)
                if is_signaled(state or ""):
                    return BatchFault(f"{type(error).__name__}: {error}")
                if is_of_schema(error) and not self._store.lacks_schema(cursor):
                    return BatchRefused(f"MySQL: {type(error).__name__}: {error}")
        except (pymysql.MySQLError, OSError):
            # Then its number has to do.
            return None
        return None

    def _run(self, queries: Iterator[tuple[str, bool]]) -> int:
        """Write each statement while the server is at the one before: both take about as long.

        The driver's own `query` is these two calls, one after the other. Returns how many rows those wrote that count.
        """
        connection: Any = self._connection
        is_asked = counts = False
        written = 0
        try:
            for query, is_counted in queries:
                if is_asked:
                    is_asked = False
                    written += counts * connection._read_query_result()  # noqa: SLF001
                connection._execute_command(COMMAND.COM_QUERY, query)  # noqa: SLF001
                is_asked, counts = True, is_counted
        finally:
            if is_asked:
                written += counts * connection._read_query_result()  # noqa: SLF001
        return written

    def _load(self, read: Read) -> list[Any]:
        return self._rows(read.model, self._store.statements(read.model).by(read.column, read.values))

    def _queries(self, changes: Changes) -> Iterator[tuple[str, bool]]:
        """Each with whether it has to write all of its rows: what is to be deleted may be gone."""
        for rows in changes.deletes:
            yield self._store.statements(type(rows[0])).delete(rows), False
        for rows in changes.updates:
            yield from ((query, True) for query in self._store.statements(type(rows[0])).update(rows))
        for rows in changes.inserts:
            yield from ((query, True) for query in self._store.statements(type(rows[0])).insert(rows))

    def _rows(self, model: type[R], query: str) -> list[R]:
        columns = self._schema.of(model).columns
        with self._closing_when_unavailable(), self._connection.cursor() as cursor:
            cursor.execute(query)
            return [row_of(model, columns, tuple(map(aware, row))) for row in cursor.fetchall()]

    @contextmanager
    def _closing_when_unavailable(self) -> Iterator[None]:
        try:
            with _translated(self._schema.names):
                yield
        except StoreUnavailable:
            self._store.close()
            raise


def _end_stuck(connection: "pymysql.Connection[Any]") -> None:
    """End the connections that keep the lease row locked."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(_STUCK)
        except pymysql.MySQLError as error:
            if error.args[0] != _ACCESS_DENIED:
                raise
            cursor.execute(_OURS)
        for (number,) in cursor.fetchall():
            try:
                cursor.execute("KILL %s", [number])
            except pymysql.MySQLError as error:
                if error.args[0] != _NO_SUCH_THREAD:
                    raise


def _set(cursor: Any, statement: str) -> None:
    try:
        cursor.execute(statement)
    except pymysql.MySQLError as error:
        if error.args[0] != ER.UNKNOWN_SYSTEM_VARIABLE:
            raise
        # MariaDB before 11.1 knows transaction_isolation by its old name.
        cursor.execute(statement.replace("transaction_isolation", "tx_isolation"))
