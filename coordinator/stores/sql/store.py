"""The base of the stores on SQL: the schema's check, the lease, and a connection that is opened when needed.

A store says how its driver connects and runs a statement, and where its server's SQL differs.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

import structlog
from sqlalchemy import Connection

from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.guarded import GuardedStore
from coordinator.stores.lane_tables import LANE_MODELS, LogEntry, OutboxEntry, metadata
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.moves import decode_move
from coordinator.stores.one_lane import WrongDatabase, check_lane, check_still_own
from coordinator.stores.port import (
    LOOKS,
    BatchFault,
    Fenced,
    Lease,
    NotAdmitted,
    Refusal,
    StoreUnavailable,
    Transaction,
    UnfitTables,
)
from coordinator.stores.sql.constraints import write_order
from coordinator.stores.sql.declared_tables import missing_indexes, tables_of
from coordinator.stores.sql.defaulted_columns import defaulted_columns
from coordinator.stores.sql.schema import Schema, TableOf
from coordinator.stores.sql.table_differences import connected, differences
from coordinator.stores.write_order import WriteOrder

_LEASE_COLUMNS = "epoch, sequence, revision, paused, loss_accepted, holder, move, proved, lineage, supersedes"
LEASE = f"SELECT {_LEASE_COLUMNS} FROM {LEASE_TABLE} WHERE lane = %s"  # noqa: S608  # constants of ours
FENCE = (
    f"UPDATE {LEASE_TABLE} SET sequence = %s, batches = batches + 1 "  # noqa: S608
    "WHERE lane = %s AND epoch = %s AND sequence = %s AND revision = %s"
)
BACKLOG = f"SELECT lane, COUNT(*), MIN(created_at) FROM {OutboxEntry.table} GROUP BY lane"  # noqa: S608
"""Counts the entries that wait in the outbox, by target."""

_COMMAND_AT = f"SELECT command_id FROM {LogEntry.table} WHERE sequence = %s"  # noqa: S608
_DRY_WRITE = f"UPDATE {LEASE_TABLE} SET revision = revision WHERE lane = ''"  # noqa: S608
_OTHER_LANES = f"SELECT lane FROM {LEASE_TABLE} WHERE lane <> %s LIMIT 1"  # noqa: S608
_LEASE_ROWS = TableOf(
    LEASE_TABLE, ("lane",), tuple(metadata.tables[LEASE_TABLE].columns.keys()), metadata.tables[LEASE_TABLE]
)

log = structlog.get_logger("store")

C = TypeVar("C")
"""A connection of the driver's."""


class SqlStore(GuardedStore, ABC, Generic[C]):
    """Implements `Store`. Statements have `%s` for their arguments, in all stores."""

    quote: ClassVar[str] = '"'
    """Stands around the names of tables and columns."""
    reflecting_driver: ClassVar[str]
    """SQLAlchemy's name of the dialect and the driver."""
    take_over_statement: ClassVar[str] = f"""
        INSERT INTO {LEASE_TABLE} AS lease (lane, epoch, sequence, batches, revision, holder, taken_at, lineage)
        VALUES (%s, %s, 0, 0, 0, %s, %s, %s)
        ON CONFLICT (lane) DO UPDATE SET
            epoch = CASE WHEN lease.epoch < excluded.epoch THEN excluded.epoch ELSE lease.epoch + 1 END,
            holder = excluded.holder, taken_at = excluded.taken_at,
            lineage = COALESCE(lease.lineage, excluded.lineage)
    """  # noqa: S608
    renew_statement: ClassVar[str] = f"""
        UPDATE {LEASE_TABLE} SET epoch = epoch + 1, holder = %s, taken_at = %s WHERE lane = %s AND epoch = %s
    """  # noqa: S608

    unfilled_statement: ClassVar[str]
    """Finds a column of a table, given both names, that no insert may leave out."""

    def __init__(self, service: Service) -> None:
        self.lane = service.lane
        self.schema = Schema(tables_of(service))
        self._models = service.models
        self._to_look_at: deque[TableOf] = deque()
        """All tables of the lane: the next look is at the first ones."""
        self._connection: C | None = None
        self.write_order = WriteOrder()
        """What `check` has found of it."""

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        setting = f"{settings_prefix(self.lane)}DATABASE_URL"
        with self.guarded():
            self._check_session(setting)
        with self.guarded(), self._waiting_for_a_migration():
            tables = [*(self.schema.of(model) for model in (*models, *LANE_MODELS)), _LEASE_ROWS]
            if self._missing(_LEASE_ROWS) is None:
                # First: another lane's database lacks the tables of this one, and must not be migrated for it.
                self._check_lane()
            problems = [(table, problem) for table in tables if (problem := self._missing(table)) is not None]
            self._check_differences(models, setting)
            for table, problem in problems:
                raise ConfigurationError(
                    f"table {table.name} is not as it must be in the database of {setting}: "
                    f"run `coordinator migrate` ({problem})"
                )
            self._check_transactions(tables, setting)
            self._check_collations(models, setting)
            self._check_indexes(models, setting)
            self._check_rights(tables)
            if must_sync and (losses := self._losses(tables)):
                raise ConfigurationError(
                    f"the database of {setting} may lose commits with the power of its machine: {'; '.join(losses)}; "
                    "change it, or accept the loss of acknowledged commands with LANE_ALLOW_UNSYNCED=true"
                )
            return self._warnings()

    @contextmanager
    def _waiting_for_a_migration(self) -> Iterator[None]:
        """What is not there while a migration runs may be what it is about to make, so its lane has to wait."""
        was_migrating = self._is_migrating()
        try:
            yield
        except WrongDatabase:
            raise
        except Exception as error:
            meaning = self.meaning(error) or error
            if isinstance(meaning, ConfigurationError | NotAdmitted) and (was_migrating or self._is_migrating()):
                raise StoreUnavailable(f"{self.title}: a migration of the database is running ({meaning})") from error
            raise

    def _is_migrating(self) -> bool:
        """Whether a migration of this database is running now."""
        return False

    def _check_differences(self, models: Sequence[type[Row]], setting: str) -> None:
        """Raise ConfigurationError, with all of them, where tables are not as their rows' classes say.

        What they have of constraints says in which order rows are written.
        """
        # On a connection of its own: SQLAlchemy changes what the driver's session does.
        with connected(self.reflecting_driver, self._connect_for_reflection) as connection:
            found = differences(connection, self.schema, models)
            for line in self._narrow_columns(connection, models):
                log.warning("column_too_narrow", why=line)
            self.write_order = write_order(connection, self.schema, models)
            for line in () if found else defaulted_columns(connection, models):
                log.warning("column_may_be_null", why=line)
        if found:
            head = f"the tables in the database of {setting} are not as the rows of {self.lane} need them; change them "
            raise UnfitTables("\n  ".join((f"{head}(`coordinator migrate` runs your migrations):", *found)))

    def _narrow_columns(self, connection: Connection, models: Sequence[type[Row]]) -> Sequence[str]:  # noqa: ARG002
        """As `Dialect.narrow_columns`."""
        return ()

    def _check_lane(self) -> None:
        check_lane(self._others(), self.lane)

    def _others(self) -> Sequence[str]:
        """Another lane that has a lease here, if one has."""
        return self.first_row(_OTHER_LANES, [self.lane]) or ()

    def _check_writable(self, tables: Sequence[TableOf]) -> None:
        """Raise StoreUnavailable where the database takes no writes, or none of these tables; nothing is written."""
        # There is no such row, and a server that only reads refuses it all the same.
        self.first_row(_DRY_WRITE)
        self._check_rights(tables)

    def _check_rights(self, tables: Sequence[TableOf]) -> None:
        """Raise NotAdmitted where this role may not write one of the tables; nothing is written by that."""
        for statement in (statement for table in tables for statement in self._explained_writes(table)):
            try:
                self._explain(statement)
            except Exception as error:
                meaning = self.meaning(error)
                # A view may not be explained, and written all the same.
                if not isinstance(meaning, Refusal):
                    raise

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:
        with self.guarded():
            check_still_own(self._others(), self.lane)
        row = self._lease(self.take_over_statement, [self.lane, above + 1, holder, now, lineage])
        if row is None:
            raise StoreUnavailable(f"{self.title} returned no lease")
        return _lease_of(row)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        row = self._lease(self.renew_statement, [holder, now, self.lane, epoch])
        if row is None:
            raise self.fenced(epoch)
        return _lease_of(row)

    def current(self) -> Lease | None:
        with self.guarded():
            row = self.first_row(LEASE, [self.lane])
            if row is None:
                # Before anything is taken for lost.
                check_still_own(self._others(), self.lane)
        return None if row is None else _lease_of(row)

    def look(self) -> Lease | None:
        lease = self.current()
        with self.guarded():
            tables = self._to_look_at
            if not tables:
                tables.extend(self.all_tables())
            count = -(-len(tables) // LOOKS)
            self._check_writable(list(islice(tables, count)))
            # After a problem the next look is at the same tables: it shows whether that is mended.
            tables.rotate(-count)
        return lease

    def command_at(self, sequence: int) -> str | None:
        with self.guarded():
            row = self.first_row(_COMMAND_AT, [sequence])
        return None if row is None else str(row[0])

    def begin(self) -> Transaction:
        with self.guarded():
            return self._begin(self.connection())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._disconnect(connection)

    def connection(self) -> C:
        """The connection, which is opened if there is none."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def fenced(self, epoch: int) -> Fenced:
        """Somebody has raised this epoch, or changed the lease under it."""
        return Fenced(f"epoch {epoch} of lane {self.lane} is over")

    def all_tables(self) -> Sequence[TableOf]:
        """The lane's own tables and those of the service's rows."""
        return [_LEASE_ROWS, *map(self.schema.of, (*LANE_MODELS, *self._models))]

    def lacks_schema(self) -> bool:
        """Whether a table or column of ours is really missing: a trigger may use others of the same names."""
        return any(self._missing(table) is not None for table in self.schema.used)

    def unfilled(self, column: str | None) -> StoreUnavailable | None:
        """After a NULL was refused in this column: the outage, if a table has got it, no row has it, and it has no
        default. A trigger may be refused one elsewhere.

        No command is at fault then, and a start refuses such a table of the service's.
        """
        others = [] if column is None else [table for table in self.all_tables() if column not in table.columns]
        try:
            for table in others:
                if self.first_row(self.unfilled_statement, [table.name, column]) is not None:
                    return StoreUnavailable(
                        f"{self.title}: {table.name} has the column {column}, which no row fills: give it a DEFAULT, "
                        "or make it nullable"
                    )
        except Exception:  # noqa: BLE001  # then the error's number has to do
            return None
        return None

    @abstractmethod
    def first_row(self, statement: str, arguments: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Run a statement, and return the first row of its answer."""

    @abstractmethod
    def _connect(self) -> C:
        """Open a connection, and set its session up."""

    def _connect_for_reflection(self) -> C:
        """Another one, for SQLAlchemy."""
        return self._connect()

    @abstractmethod
    def _disconnect(self, connection: C) -> None:
        """Close it, without waiting for the network. Never raises."""

    @abstractmethod
    def _begin(self, connection: C) -> Transaction:
        """A transaction, begun."""

    @abstractmethod
    def _missing(self, table: TableOf) -> str | None:
        """The server's message if this table, or a column of it, is missing."""

    def _explained_writes(self, table: TableOf) -> Sequence[str]:  # noqa: ARG002
        """Statements that write a table: the server plans none that this role may not run. Empty: it has no roles."""
        return ()

    def _explain(self, statement: str) -> None:
        """Have the server make a plan."""

    @abstractmethod
    def _losses(self, tables: Sequence[TableOf]) -> Sequence[str]:
        """Why commits to these tables may be lost with the machine's power, if they may be."""

    def _warnings(self) -> Sequence[str]:
        """What may cost commits all the same, and is no reason to refuse the database."""
        return ()

    def _check_session(self, setting: str) -> None:
        """Raise ConfigurationError where the database, or its session, is none in which a lane can keep its rows."""

    def _check_transactions(self, tables: Sequence[TableOf], setting: str) -> None:
        """Raise ConfigurationError for a table that knows no transactions, where there are such."""

    def _check_collations(self, models: Sequence[type[Row]], setting: str) -> None:
        """Raise ConfigurationError for a key or unique column whose texts the database does not compare as we do."""

    def _check_indexes(self, models: Sequence[type[Row]], setting: str) -> None:
        """Raise ConfigurationError unless the database has the indexes by which rows are selected."""
        missing: list[str] = []
        for model in filter(lambda model: model.index, models):
            statements = list(missing_indexes(model, self._indexes(self.schema.of(model)), self.quote))
            if model.__index_is_needed__:
                missing += statements
            elif statements:
                log.warning("index_missing", table=model.table, what_to_do=" ".join(statements))
        if missing:
            raise UnfitTables(
                f"the database of {setting} lacks indexes by which rows are selected: {' '.join(missing)}"
            )

    @abstractmethod
    def _indexes(self, table: TableOf) -> Iterable[Sequence[str]]:
        """The columns of each index that has all rows of a table, and compares texts byte by byte."""

    def _raise_epoch(self, connection: C, statement: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:  # noqa: ARG002
        """Run a statement that raises the epoch, and return the lease as it is then; None if it raised none.

        On a server, it waits only briefly for a connection that has the lease row locked.
        """
        return self.first_row(f"{statement} RETURNING {_LEASE_COLUMNS}", arguments)

    def _is_lock_timeout(self, error: Exception) -> bool:  # noqa: ARG002
        return False

    def _end_stuck(self, connection: C) -> None:
        """End the connections that keep the lease row locked."""

    def _lease(self, statement: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
        """Raise the epoch: wait for a transaction that has passed its fence, but not for ever.

        A consumer that was stopped, or cut off, before its COMMIT would hold the row's lock for as long as the server
        keeps its connection. So a consumer that waits too long ends that connection, and has to try again.
        """
        with self.guarded():
            connection = self.connection()
            try:
                return self._raise_epoch(connection, statement, arguments)
            except Exception as error:
                try:
                    if self._is_lock_timeout(error):
                        self._end_stuck(connection)
                finally:
                    # Its session may wait for locks as briefly as a takeover does.
                    self.close()
                raise


def _lease_of(row: Sequence[Any]) -> Lease:
    epoch, sequence, revision, paused, loss_accepted, holder, move, proved, lineage, supersedes = row
    told = decode_move(move), proved, lineage, supersedes
    return Lease(epoch, sequence, revision, paused, loss_accepted, holder, *told)


class SqlTransaction(ABC, Generic[C]):
    """The part of a transaction that all stores on SQL have alike."""

    def __init__(self, store: SqlStore[C], connection: C) -> None:
        self._store = store
        self._connection = connection

    def _fence(self, lease: Lease, sequence: int) -> tuple[Any, ...]:
        """The arguments of `FENCE`."""
        return sequence, self._store.lane, lease.epoch, lease.sequence, lease.revision


def check_written(written: int, rows: Sequence[Sequence[Row]]) -> None:
    """Raise BatchFault unless all of these rows were written: a rule of the database's may drop some silently."""
    given = sum(map(len, rows))
    if written != given:
        names = dict.fromkeys(of_one[0].table for of_one in rows)
        raise BatchFault(f"wrote {written} of {given} rows of {', '.join(names)}")
