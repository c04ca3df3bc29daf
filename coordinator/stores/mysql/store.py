"""The store on MySQL and MariaDB: multi-row statements, one COMMIT a batch.

A deadlock (1213) rolls the whole transaction back, a lock timeout (1205) only the statement: either way the batch is
rolled back and run again. The fence is an UPDATE of the lease row in the batch's transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.constants import COMMAND, ER
from sqlalchemy import Connection

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection
from coordinator.service.service import Service
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mysql.account import USER
from coordinator.stores.mysql.collations import check_texts
from coordinator.stores.mysql.driver_arguments import connections_of
from coordinator.stores.mysql.durability import STATUS, VARIABLES, losses, warnings
from coordinator.stores.mysql.errors import column_without_value, depends_on_more, is_of_schema, is_signaled, translated
from coordinator.stores.mysql.lane_connection import LOCK_TIMEOUT, LOCK_TIMEOUT_S, open_lane_connection
from coordinator.stores.mysql.lock_holders import waited_for
from coordinator.stores.mysql.migration_lock import IS_MIGRATING, migration_lock
from coordinator.stores.mysql.narrow_texts import narrow_texts
from coordinator.stores.mysql.nodes import CATCH_UP, READS
from coordinator.stores.mysql.statements import UNFILLED, MysqlStatements
from coordinator.stores.port import (
    Backlog,
    BatchFault,
    BatchRefused,
    Changes,
    Conflict,
    Lease,
    Read,
    Refusal,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.row_makers import numbers_of, rows_of
from coordinator.stores.sql.schema import ByModel, TableOf, writes
from coordinator.stores.sql.store import BACKLOG, FENCE, LEASE, SqlStore, SqlTransaction, check_written, log
from coordinator.stores.times import read_utc, utc, without_zone

_CHARACTER_BYTES_MAX = 4
LEASE_TIMEOUT_S = 2
_TABLE_LOCK_TIMEOUT = "SET SESSION lock_wait_timeout = {}"
_OTHER_ENGINES = (
    "SELECT table_name, engine FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name IN %s AND NOT engine <=> 'InnoDB' LIMIT 1"
)
_INDEXES = (
    "SELECT GROUP_CONCAT(IFNULL(column_name, '') ORDER BY seq_in_index) FROM information_schema.statistics "
    "WHERE table_schema = DATABASE() AND table_name = %s AND index_type = 'BTREE' GROUP BY index_name"
)
# Seeing other transactions needs the right PROCESS; without it every other connection of ours is ended.
_STUCK = f"""
    SELECT process.id FROM information_schema.processlist AS process
    JOIN information_schema.innodb_trx AS trx ON trx.trx_mysql_thread_id = process.id
    WHERE process.db = DATABASE() AND process.id <> CONNECTION_ID()
    AND process.user = {USER} AND trx.trx_started < NOW() - INTERVAL 1 SECOND
"""  # noqa: S608  # a constant of ours
_OURS = f"""
    SELECT id FROM information_schema.processlist
    WHERE db = DATABASE() AND id <> CONNECTION_ID() AND user = {USER}
"""  # noqa: S608  # a constant of ours
_STATE = "GET DIAGNOSTICS CONDITION 1 @lane_sqlstate = RETURNED_SQLSTATE"
_ACCESS_DENIED = 1227
_NO_SUCH_THREAD = 1094


class MysqlStore(SqlStore["pymysql.Connection[Any]"]):
    """Implements `Store`."""

    title = "MySQL"
    quote = "`"
    reflecting_driver = "mysql+pymysql"
    unfilled_statement = UNFILLED
    take_over_statement = f"""
        INSERT INTO {LEASE_TABLE} (lane, epoch, sequence, batches, revision, holder, taken_at, lineage)
        VALUES (%s, %s, 0, 0, 0, %s, %s, %s)
        ON DUPLICATE KEY UPDATE
            epoch = CASE WHEN epoch < VALUES(epoch) THEN VALUES(epoch) ELSE epoch + 1 END,
            holder = VALUES(holder), taken_at = VALUES(taken_at), lineage = COALESCE(lineage, VALUES(lineage))
    """  # noqa: S608  # a constant of ours

    def __init__(self, address: Address, service: Service) -> None:
        super().__init__(service)
        self._hosts = connections_of(address)
        self._arguments: Mapping[str, Any] = self._hosts[0]
        """Those of the host to which the last connection was opened."""
        self._is_member = False
        """Whether that is a node of a Galera cluster."""
        self.statements = ByModel(self.schema, MysqlStatements)
        self.packet_bytes_max = 0
        """What the server takes at most in one statement, as it says at the connect."""

    def meaning(self, error: Exception) -> StoreError | None:
        if isinstance(error, pymysql.MySQLError):
            return self.unfilled(column_without_value(error)) or translated(error, self.schema.names)
        return None

    def first_row(self, statement: str, arguments: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        with self.connection().cursor() as cursor:
            cursor.execute(statement, [without_zone(value) for value in arguments])
            row: tuple[Any, ...] | None = cursor.fetchone()
        return row

    def _connect(self) -> "pymysql.Connection[Any]":
        taken = open_lane_connection(self._hosts)
        if taken.passed_over:
            log.warning("database_hosts_passed_over", host=taken.name, reason=taken.passed_over)
        self._arguments, self._is_member = taken.host, taken.is_member
        with taken.connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            (self.packet_bytes_max,) = cursor.fetchone()
        return taken.connection

    def _connect_for_reflection(self) -> "pymysql.Connection[Any]":
        return open_lane_connection(self._hosts, waits=READS).connection

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        # A migration may have come to its end on another node.
        with self._caught_up():
            return super().check(models, must_sync=must_sync)

    def current(self) -> Lease | None:
        with self._caught_up():
            return super().current()

    @contextmanager
    def _caught_up(self) -> Iterator[None]:
        """What is read within is no older than anything that was committed before on any node of a Galera cluster.

        A batch reads without that: its fence fails where another node has more of the lease.
        """
        with self.guarded():
            self.connection()
            if self._is_member:
                self.first_row(CATCH_UP.format(READS))
        if not self._is_member:
            yield
            return
        try:
            yield
        except Conflict as error:
            self.close()
            raise StoreUnavailable(f"MySQL: the node is too far behind the others of its cluster: {error}") from error
        with self.guarded():
            self.first_row(CATCH_UP.format("DEFAULT"))

    def explain_wait(self) -> str | None:
        connection = self._connection
        return None if connection is None else waited_for(self._arguments, connection.thread_id())  # type: ignore[no-untyped-call]

    def _disconnect(self, connection: "pymysql.Connection[Any]") -> None:
        # Without the COM_QUIT of close(), which can block on a stalled network.
        connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _begin(self, connection: "pymysql.Connection[Any]") -> Transaction:
        connection.begin()
        return MysqlTransaction(self, connection)

    def _is_migrating(self) -> bool:
        return self.first_row(IS_MIGRATING, [migration_lock(self._arguments["database"])]) == (1,)

    def _missing(self, table: TableOf) -> str | None:
        try:
            self.first_row(f"{MysqlStatements(table).select} LIMIT 0")
        except pymysql.MySQLError as error:
            if not is_of_schema(error):
                raise
            return str(error.args[1])
        return None

    def _check_transactions(self, tables: Sequence[TableOf], setting: str) -> None:
        other = self.first_row(_OTHER_ENGINES, [[table.name for table in tables]])
        if other is not None:
            name, engine = other
            raise ConfigurationError(
                f"table {name} in the database of {setting} has the engine {engine}, which knows no transactions: "
                f"ALTER TABLE {name} ENGINE = InnoDB"
            )

    def _check_collations(self, models: Sequence[type[Row]], setting: str) -> None:
        check_texts(self.first_row, models, setting)

    def _indexes(self, table: TableOf) -> Iterable[Sequence[str]]:
        with self.connection().cursor() as cursor:
            cursor.execute(_INDEXES, [table.name])
            return [columns.split(",") for (columns,) in cursor.fetchall()]

    def _check_writable(self, tables: Sequence[TableOf]) -> None:
        # Whoever changes a table locks it, and the lane may have nothing to do with it.
        self.first_row(_TABLE_LOCK_TIMEOUT.format(1))
        try:
            super()._check_writable(tables)
        except pymysql.MySQLError as error:
            if not isinstance(self.meaning(error), Conflict):
                raise
        finally:
            self.first_row(_TABLE_LOCK_TIMEOUT.format("DEFAULT"))

    def _narrow_columns(self, connection: Connection, models: Sequence[type[Row]]) -> Sequence[str]:
        return narrow_texts(connection, models)

    def _explained_writes(self, table: TableOf) -> Sequence[str]:
        return writes(table, "`")

    def _explain(self, statement: str) -> None:
        try:
            self.first_row(f"EXPLAIN {statement}")
        except pymysql.MySQLError as error:
            if column_without_value(error) is None:  # a trigger may fill it, and none runs here
                raise

    def _losses(self, tables: Sequence[TableOf]) -> Sequence[str]:  # noqa: ARG002
        return losses(self._shown("VARIABLES", VARIABLES), self._shown("STATUS", STATUS))

    def _warnings(self) -> Sequence[str]:
        return warnings(self._shown("VARIABLES", VARIABLES), self._shown("STATUS", STATUS))

    def _shown(self, what: str, names: Sequence[str]) -> dict[str, str]:
        """Those of the server's variables that it knows: asked for by `@@` one that it does not know is an error."""
        with self.connection().cursor() as cursor:
            cursor.execute(f"SHOW GLOBAL {what} WHERE Variable_name IN %s", [names])
            return dict(cursor.fetchall())

    def _raise_epoch(
        self, connection: "pymysql.Connection[Any]", statement: str, arguments: Sequence[Any]
    ) -> tuple[Any, ...] | None:
        connection.begin()
        with connection.cursor() as cursor:
            cursor.execute(LOCK_TIMEOUT.format(LEASE_TIMEOUT_S))
            is_raised = cursor.execute(statement, [without_zone(value) for value in arguments]) > 0
            # Under the row's lock.
            lease = self.first_row(LEASE, [self.lane])
            cursor.execute(LOCK_TIMEOUT.format(LOCK_TIMEOUT_S))
        connection.commit()
        return lease if is_raised else None

    def _is_lock_timeout(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] == ER.LOCK_WAIT_TIMEOUT

    def _end_stuck(self, connection: "pymysql.Connection[Any]") -> None:
        connection.rollback()
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


class MysqlTransaction(SqlTransaction["pymysql.Connection[Any]"]):
    """Implements `Transaction`."""

    _store: MysqlStore

    def __init__(self, store: MysqlStore, connection: "pymysql.Connection[Any]") -> None:
        super().__init__(store, connection)
        self._is_open = True

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        with self._store.guarded():
            return [self._load(read) for read in reads]

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        with self._store.guarded():
            return self._found(
                model, self._store.statements[model].first(limit, after, () if where is None else (where,))
            )

    def _load(self, read: Read | RowSelection[Row]) -> list[Any]:
        statements = self._store.statements[read.model]
        if isinstance(read, RowSelection):
            return self._found(read.model, statements.first(read.limit, read.after, read.where))
        first, *more = statements.by(read.column, read.values)
        found = self._found(read.model, first)
        for query in more:
            found += self._found(read.model, query)
        return found

    def last(self, model: type[R], limit: int) -> list[R]:
        with self._store.guarded():
            return self._found(model, self._store.statements[model].last(limit))

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        with self._store.guarded(), self._connection.cursor() as cursor:
            cursor.execute(self._store.statements[model].last_keys(limit))
            return numbers_of(model, cursor.fetchall())

    def backlog(self) -> list[Backlog]:
        with self._store.guarded(), self._connection.cursor() as cursor:
            cursor.execute(BACKLOG)
            return [Backlog(*map(utc, row)) for row in cursor.fetchall()]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        with self._store.guarded():
            with self._connection.cursor() as cursor:
                if cursor.execute(FENCE, self._fence(lease, sequence)) != 1:
                    raise self._store.fenced(lease.epoch)
            try:
                written = self._run(self._queries(changes))
            except pymysql.MySQLError as error:
                if depends_on_more(error) and (meaning := self._meaning_of_trigger(error)) is not None:
                    raise meaning from error
                raise
            check_written(written, [*changes.updates, *changes.inserts])
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
            meaning = translated(error, self._store.schema.names)
            raise StoreUnavailable(str(meaning)) if isinstance(meaning, BatchRefused) else meaning from error

    def _meaning_of_trigger(self, error: pymysql.MySQLError) -> Refusal | None:
        """Ask the server about an error whose number is no proof, on the same connection if there still is one."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(_STATE)
                cursor.execute("SELECT @lane_sqlstate")
                (state,) = cursor.fetchone() or (None,)
                if is_signaled(state or ""):
                    return BatchFault(f"{type(error).__name__}: {error}")
                if is_of_schema(error) and not self._store.lacks_schema():
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
                self._check_size(query)
                connection._execute_command(COMMAND.COM_QUERY, query)  # noqa: SLF001
                is_asked, counts = True, is_counted
        finally:
            if is_asked:
                written += counts * connection._read_query_result()  # noqa: SLF001
        return written

    def _check_size(self, query: str) -> None:
        """Raises BatchFault for what the server would not take: it breaks the connection, as if it were away."""
        bytes_max = self._store.packet_bytes_max
        if len(query) * _CHARACTER_BYTES_MAX < bytes_max:
            return
        if (size := len(query.encode(errors="surrogatepass"))) >= bytes_max:
            text = f"a statement of {size} bytes, and the server takes {bytes_max} (max_allowed_packet)"
            raise BatchFault(f"MySQL: {text}: a row of this batch is too large")

    def _queries(self, changes: Changes) -> Iterator[tuple[str, bool]]:
        """The statements, each with whether it must write all of its rows: a row to delete may be gone."""
        for kind, rows in self._store.write_order.steps(changes):
            is_counted = kind != "delete"
            yield from ((query, is_counted) for query in self._store.statements[type(rows[0])].write(kind, rows))

    def _found(self, model: type[R], query: str) -> list[R]:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return rows_of(model, cursor.fetchall(), read_utc)
