"""The store on PostgreSQL: set-wise statements, two round trips a batch: all reads, then all writes and their commit.

The fence is an UPDATE of the lease row in the batch's transaction: it takes the row's lock, so that a takeover waits
for the commit, and finds no row once the epoch was raised. By then the rest of the pipeline, whose end commits, is
under way, so a fence that finds no row is an error: it aborts the transaction, and the server skips the rest.

A COMMIT may wait for a synchronous standby. If somebody cancels that wait, the server says that the transaction is
committed, and warns that the standby may not have it. A standby that is promoted would not know it, so its outcome is
unknown: the lane renews its lease, by a commit that waits for the standby too, and the log then shows what is safe.
Others see the commit meanwhile, so each commit tells them up to where the ones before it are safe (`Lease.proved`).
A server that is told to wait for no standby any more ends all waits as if the standby had the commits, and warns of
nothing. So where a standby is needed, a commit is unknown, too, if the server has read its settings since the fence.

Reads are outside the transaction. Under READ COMMITTED it would not show them anything else, and the fence, which
compares the sequence too, finds out whether anything was committed since.
"""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.pq.abc import PGresult
from psycopg.types.json import JsonLoader
from psycopg.types.string import TextLoader

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection
from coordinator.service.service import Service
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.port import (
    Backlog,
    Changes,
    Lease,
    NotAdmitted,
    Read,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.postgresql.direct_tls import explained
from coordinator.stores.postgresql.driver_arguments import connection_of, with_session
from coordinator.stores.postgresql.durability import WAIT_FOR_STANDBY, losses
from coordinator.stores.postgresql.errors import NULL_REFUSED, is_of_right, is_of_schema, translated
from coordinator.stores.postgresql.indexes import check_texts, columns_of_indexes
from coordinator.stores.postgresql.lock_holders import waited_for
from coordinator.stores.postgresql.migration_lock import IS_MIGRATING
from coordinator.stores.postgresql.missing_rights import LACKING, check_shown, in_words
from coordinator.stores.postgresql.pipeline import Pipeline, Statement, StatementRefused
from coordinator.stores.postgresql.policies import Policies
from coordinator.stores.postgresql.pooler import pooler_between
from coordinator.stores.postgresql.session import OF_LANE, defect_of_encoding
from coordinator.stores.postgresql.statements import PostgresqlStatements, parameter
from coordinator.stores.row_makers import numbers_of, rows_of, unreadable_of
from coordinator.stores.sql.schema import ByModel, TableOf, writes
from coordinator.stores.sql.store import BACKLOG, SqlStore, SqlTransaction

CONNECT_TIMEOUT_S = 5
LEASE_TIMEOUT_MS = 2_000
_TCP: Final[dict[str, Any]] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""So that a connection whose network is gone ends after some ten seconds."""

_WAITS_FOR_STANDBY: Final = "current_setting('synchronous_standby_names') <> ''"
# Divides by zero unless it finds the row. On the right of an assignment stands the sequence of before.
_FENCE: Final = """
    WITH current_lease AS (
        UPDATE {table} SET sequence = $1, batches = batches + 1, proved = CASE WHEN {waits} THEN sequence END
        WHERE lane = $2 AND epoch = $3 AND sequence = $4 AND revision = $5 AND {condition} RETURNING 1
    ) SELECT 1 / count(*){loaded} FROM current_lease
"""
_LOADED: Final = "pg_conf_load_time()"
_ASK_LOADED: Final = f"SELECT {_LOADED}"
_LEASE_TIMEOUT = f"SET LOCAL lock_timeout = {LEASE_TIMEOUT_MS}".encode()
# A client that was stopped before the end of its pipeline is `active`: no timeout of idle transactions ends it.
_END_STUCK = b"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = %s AND pid <> pg_backend_pid()
    AND state <> 'idle' AND xact_start < now() - interval '1 second'
"""

_Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresStore(SqlStore[_Connection]):
    """Implements `Store`."""

    title = "PostgreSQL"
    reflecting_driver = "postgresql+psycopg"
    unfilled_statement = """
        SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(%s)) AND attname = %s
        AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attidentity = ''
    """

    def __init__(self, address: Address, service: Service, *, needs_standby: bool = False) -> None:
        """`needs_standby`: it commits nothing unless the server makes each commit wait for a synchronous standby."""
        super().__init__(service)
        self._needs_standby = needs_standby
        condition = _WAITS_FOR_STANDBY if needs_standby else "true"
        loaded = f", {_LOADED}" if needs_standby else ""
        self.fence = _FENCE.format(
            table=LEASE_TABLE, waits=_WAITS_FOR_STANDBY, condition=condition, loaded=loaded
        ).encode()
        self._application = f"lane {self.lane}"
        self._arguments = {
            **with_session(connection_of(address), OF_LANE),
            "application_name": self._application,
        }
        self._of_look = {
            **connection_of(address),
            **_TCP,
            "application_name": f"lane {self.lane} (asks whom it waits for)",
        }
        self.statements = ByModel(self.schema, PostgresqlStatements)
        self._pipeline: Pipeline | None = None
        self._unreplicated: str | None = None
        self._policies = Policies()

    def meaning(self, error: Exception) -> StoreError | None:
        refused = error.error if isinstance(error, StatementRefused) else error
        if not isinstance(refused, psycopg.Error):
            return None
        if refused.sqlstate == NULL_REFUSED and (outage := self.unfilled(refused.diag.column_name)) is not None:
            return outage
        if self._policies.have_ended(refused):
            return StoreUnavailable(f"PostgreSQL: {' '.join(str(refused).split())}")
        meaning = translated(refused)
        if isinstance(meaning, NotAdmitted | StoreUnavailable) and (is_of_right(refused) or is_of_schema(refused)):
            lacking = self._lacking_in_words()
            return meaning if lacking is None else NotAdmitted(f"{lacking} ({' '.join(str(refused).split())})")
        return meaning

    def first_row(self, statement: str, arguments: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        return self.connection().execute(statement.encode(), arguments).fetchone()

    def pipeline(self, connection: _Connection) -> Pipeline:
        """The pipeline of a connection, which knows what was prepared on it."""
        if self._pipeline is None or self._pipeline.connection is not connection:
            self._pipeline = Pipeline(connection)
        return self._pipeline

    def _connect(self) -> _Connection:
        try:
            connection: _Connection = psycopg.connect(
                **self._arguments, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, **_TCP, prepare_threshold=0
            )
        except psycopg.OperationalError as error:
            raise explained(error, self._arguments) from None
        for name in ("json", "jsonb"):
            # As text: a field's own type says how it is read.
            connection.adapters.register_loader(name, TextLoader)
        self._unreplicated = None
        connection.add_notice_handler(self._take_notice)
        try:
            problem = pooler_between(connection)
            self._policies.set_up(connection)
            if problem is None:
                self._policies.check(connection, self.all_tables)
        except BaseException:
            connection.close()
            raise
        if problem is not None:
            connection.close()
            raise NotAdmitted(problem)
        return connection

    def _connect_for_reflection(self) -> _Connection:
        connection = self._connect()
        connection.adapters.register_loader("json", JsonLoader)
        return connection

    def _take_notice(self, notice: errors.Diagnostic) -> None:
        if notice.source_function == WAIT_FOR_STANDBY:
            self._unreplicated = notice.message_primary or "the wait for a synchronous standby was cancelled"

    def explain_wait(self) -> str | None:
        connection = self._connection
        return None if connection is None else waited_for(self._of_look, connection.info.backend_pid)

    def check_replicated(self) -> None:
        """Raise StoreUnavailable if the server has given up waiting for a synchronous standby."""
        if self._unreplicated is not None:
            raise StoreUnavailable(f"PostgreSQL: a commit may not be on its synchronous standby: {self._unreplicated}")

    def check_standby(self) -> None:
        """Raise StoreUnavailable where one is needed, and the server lets commits go on without."""
        if self._needs_standby and self.first_row(f"SELECT {_WAITS_FOR_STANDBY}") != (True,):
            raise StoreUnavailable(
                "PostgreSQL: commits wait for no synchronous standby (synchronous_standby_names is empty), and "
                "LANE_REQUIRE_SYNC_STANDBY wants one"
            )

    @property
    def needs_standby(self) -> bool:
        """Whether it commits nothing unless the server makes each commit wait for a synchronous standby."""
        return self._needs_standby

    def check_settings(self, before: Any, now: Any) -> None:
        """Raise StoreUnavailable if the server has read its settings during a commit that needs a standby."""
        if before != now:
            raise StoreUnavailable(
                "PostgreSQL: it has read its settings during a commit, which may not be on its synchronous standby: "
                "a server that is told to wait for none ends the waits without a warning"
            )

    def _disconnect(self, connection: _Connection) -> None:
        connection.close()

    def _begin(self, connection: _Connection) -> Transaction:
        self._policies.check(connection, self.all_tables)
        return PostgresTransaction(self, connection)

    def _check_session(self, setting: str) -> None:
        if (defect := defect_of_encoding(self.connection())) is not None:
            raise ConfigurationError(f"the database of {setting} {defect}")
        (firing,) = self.first_row("SELECT current_setting('session_replication_role')") or (None,)
        if firing == "replica":
            raise ConfigurationError(
                f"session_replication_role is replica for the role of {setting}: the database would check no foreign "
                "key, and run no trigger: ALTER ROLE … RESET session_replication_role"
            )
        self.check_standby()

    def _is_migrating(self) -> bool:
        return self.first_row(IS_MIGRATING) == (True,)

    def _missing(self, table: TableOf) -> str | None:
        try:
            self.pipeline(self.connection()).run([PostgresqlStatements(table).first(0, None)])
        except StatementRefused as refused:
            if not is_of_schema(refused.error) or self._lacking_in_words() is not None:
                raise
            return str(refused).splitlines()[0]
        return None

    def _check_writable(self, tables: Sequence[TableOf]) -> None:
        # Takes no lock: whoever changes a table must not make the lane wait, which may have nothing to do with it.
        only_reads, is_whole, role, lacking = self._ask_lacking(tables)
        if only_reads:
            raise StoreUnavailable("PostgreSQL: it only reads (transaction_read_only is on): is this the primary?")
        self.check_standby()
        if lacking:
            raise NotAdmitted(in_words(role, lacking, self.lane))
        check_shown(self.connection(), tables)
        if not is_whole:
            # The server says what is missing.
            super()._check_rights(tables)

    def _check_rights(self, tables: Sequence[TableOf]) -> None:
        _, _, role, lacking = self._ask_lacking(tables)
        if lacking:
            raise NotAdmitted(in_words(role, lacking, self.lane))
        super()._check_rights(tables)

    def _ask_lacking(self, tables: Sequence[TableOf]) -> tuple[Any, ...]:
        names = [table.name for table in tables for _ in table.columns]
        return self.first_row(LACKING, [names, [column for table in tables for column in table.columns]]) or ()

    def _lacking_in_words(self) -> str | None:
        """After an error: what the role lacks, if that is a reason."""
        if self._connection is None:
            return None
        try:
            _, _, role, lacking = self._ask_lacking(self.all_tables())
        except psycopg.Error:
            return None
        return in_words(role, lacking, self.lane) if lacking else None

    def _check_collations(self, models: Sequence[type[Row]], setting: str) -> None:
        check_texts(self.first_row, models, setting)

    def _indexes(self, table: TableOf) -> Sequence[Sequence[str]]:
        return columns_of_indexes(self.first_row, table.name)

    def _explained_writes(self, table: TableOf) -> Sequence[str]:
        return writes(table, '"')

    def _explain(self, statement: str) -> None:
        # Not prepared: it would stay so on the lane's connection.
        self.connection().execute(f"EXPLAIN {statement}".encode(), prepare=False)

    def _losses(self, tables: Sequence[TableOf]) -> Sequence[str]:
        return losses(self.first_row, [table.name for table in tables])

    def _raise_epoch(self, connection: _Connection, statement: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
        with connection.transaction():
            connection.execute(_LEASE_TIMEOUT)
            loaded = self.first_row(_ASK_LOADED) if self._needs_standby else None
            self.check_standby()
            lease = super()._raise_epoch(connection, statement, arguments)
        self.check_replicated()
        self.check_settings(loaded, self.first_row(_ASK_LOADED) if self._needs_standby else None)
        return lease

    def _is_lock_timeout(self, error: Exception) -> bool:
        return isinstance(error, errors.LockNotAvailable)

    def _end_stuck(self, connection: _Connection) -> None:
        connection.execute(_END_STUCK, [self._application])


class PostgresTransaction(SqlTransaction[_Connection]):
    """Implements `Transaction`."""

    _store: PostgresStore

    def __init__(self, store: PostgresStore, connection: _Connection) -> None:
        super().__init__(store, connection)
        self._pipeline = store.pipeline(connection)
        self._is_spoiled = False

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        with self._store.guarded():
            results = self._run([self._asking(read) for read in reads])
            return [self._found(read.model, result) for read, result in zip(reads, results, strict=True)]

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        with self._store.guarded():
            (result,) = self._run(
                [self._store.statements[model].first(limit, after, () if where is None else (where,))]
            )
            return self._found(model, result)

    def last(self, model: type[R], limit: int) -> list[R]:
        with self._store.guarded():
            return self._found(model, *self._run([self._store.statements[model].last(limit)]))

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        with self._store.guarded():
            (result,) = self._run([self._store.statements[model].last_keys(limit)])
            return numbers_of(model, self._pipeline.rows(result))

    def backlog(self) -> list[Backlog]:
        with self._store.guarded():
            (result,) = self._run([(BACKLOG.encode(), [])])
            return [Backlog(*row) for row in self._pipeline.rows(result)]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        of = self._store.statements
        with self._store.guarded():
            try:
                fenced, *_ = self._run(
                    [
                        (self._store.fence, [parameter(value) for value in self._fence(lease, sequence)]),
                        *(of[type(rows[0])].write(kind, rows) for kind, rows in self._store.write_order.steps(changes)),
                    ]
                )
            except StatementRefused as refused:
                if refused.position == 0 and isinstance(refused.error, errors.DivisionByZero):
                    self._store.check_standby()
                    raise self._store.fenced(lease.epoch) from None
                raise
            self._store.check_replicated()
            if self._store.needs_standby:
                ((_, loaded),) = self._pipeline.rows(fenced)
                ((now,),) = self._pipeline.rows(*self._run([(_ASK_LOADED.encode(), [])]))
                self._store.check_settings(loaded, now)

    def rollback(self) -> None:
        if self._is_spoiled:
            self._store.close()

    def _asking(self, read: Read | RowSelection[Row]) -> Statement:
        statements = self._store.statements[read.model]
        if isinstance(read, Read):
            return statements.by(read.column, read.values)
        return statements.first(read.limit, read.after, read.where)

    def _run(self, statements: Sequence[Statement]) -> list[PGresult]:
        """Run statements. After anything but an answer to all of them the connection is of no use."""
        self._is_spoiled = True
        try:
            results = self._pipeline.run(statements)
        except StatementRefused:
            self._is_spoiled = False
            raise
        self._is_spoiled = False
        return results

    def _found(self, model: type[R], result: PGresult) -> list[R]:
        try:
            found = self._pipeline.rows(result)
        except psycopg.DataError as error:
            # The server has values that Python has none for.
            raise unreadable_of(model, self._pipeline.rows_with_gaps(result)) from error
        return rows_of(model, found)
