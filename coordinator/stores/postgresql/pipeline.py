"""Statements in one round trip to PostgreSQL, by way of libpq's pipeline mode.

psycopg's own pipeline and cursors cost several times what libpq does for the few, always equal statements of a batch:
here each is prepared once, under a name, and its parameters are sent as they are.
"""

import itertools
import select
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult

from coordinator.stores.row_makers import Undecodable

Statement = tuple[bytes, Sequence[bytes]]
"""SQL with `$1`, `$2` … and the values for them as text."""

_DONE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_DISCONNECTED = select.POLLERR | select.POLLHUP


class StatementRefused(Exception):
    """Raised when the server refuses a statement: `position` says which, `error` is psycopg's for it.

    Those before it are rolled back, and those after it were skipped. The connection is ready for more.
    """

    def __init__(self, position: int, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.position = position
        self.error = error


class Pipeline:
    """Runs statements on a connection that nobody else uses meanwhile, and that is not within a transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._names: dict[bytes, bytes] = {}
        self._numbers = itertools.count(1)
        self._transformer = Transformer(connection)
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)

    def run(self, statements: Sequence[Statement]) -> list[PGresult]:
        """Run the statements as one transaction: what they did is committed when this returns.

        Without a BEGIN the server takes them as one transaction, up to the synchronization point that ends the
        pipeline. It commits there, and only if nothing was refused (PostgreSQL's documentation, 34.5.1.3: "the
        operations following one sync point and before the next are an implicit transaction").

        Raises StatementRefused; nothing is committed then. After any other error it is not known whether something was,
        and the connection is of no use any more.
        """
        pgconn = self.connection.pgconn
        fresh: dict[int, bytes] = {}
        pgconn.enter_pipeline_mode()
        for position, (sql, values) in enumerate(statements):
            name = self._names.get(sql)
            if name is None:
                name = f"lane_{next(self._numbers)}".encode()
                pgconn.send_prepare(name, sql)
                self._names[sql] = name
                fresh[position] = sql
            pgconn.send_query_prepared(name, values)
        pgconn.pipeline_sync()
        self._flush()
        results: list[PGresult] = []
        refused: StatementRefused | None = None
        for position, (sql, _) in enumerate(statements):
            if position in fresh:
                prepared = self._answer()
                if prepared.status not in _DONE:
                    # Refused, or skipped behind what was: the server knows no statement of this name.
                    self._names.pop(sql, None)
                    refused = refused or self._refused(position, prepared)
            result = self._answer()
            if result.status not in _DONE:
                refused = refused or self._refused(position, result)
            results.append(result)
        refused = self._end(len(statements), refused)
        if refused is not None:
            raise refused
        return results

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of a statement's answer."""
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def rows_with_gaps(self, result: PGresult) -> list[list[Any]]:
        """The same where a value cannot be decoded, with an Undecodable in its place."""
        self._transformer.set_pgresult(result)
        return [
            [self._decoded(result, row, column) for column in range(result.nfields)] for row in range(result.ntuples)
        ]

    def _decoded(self, result: PGresult, row: int, column: int) -> Any:
        value = result.get_value(row, column)
        try:
            loader = self._transformer.get_loader(result.ftype(column), Format(result.fformat(column)))
            return None if value is None else loader.load(value)
        except psycopg.DataError:
            return Undecodable()

    def _end(self, position: int, refused: StatementRefused | None) -> StatementRefused | None:
        """Read up to the synchronization point: the commit itself may be refused, for a deferred constraint say."""
        while (result := self._next()) is None or result.status != ExecStatus.PIPELINE_SYNC:
            if result is not None and result.status == ExecStatus.FATAL_ERROR:
                refused = refused or self._refused(position, result)
        self.connection.pgconn.exit_pipeline_mode()
        return refused

    def _answer(self) -> PGresult:
        """The one result of a statement, which an empty one follows."""
        result = self._next()
        if result is None or result.status == ExecStatus.PIPELINE_SYNC or self._next() is not None:
            raise psycopg.InterfaceError("PostgreSQL's answers are not those to the statements sent")
        return result

    def _next(self) -> PGresult | None:
        pgconn = self.connection.pgconn
        while pgconn.is_busy():
            self._poll.poll()
            pgconn.consume_input()
        return pgconn.get_result()

    def _flush(self) -> None:
        """Send everything; read meanwhile what comes, or both sides might wait for the other to read."""
        pgconn = self.connection.pgconn
        while pgconn.flush():
            self._poll.modify(self.connection.fileno(), select.POLLIN | select.POLLOUT)
            ready = self._poll.poll()
            self._poll.modify(self.connection.fileno(), select.POLLIN)
            if any(event & (select.POLLIN | _DISCONNECTED) for _, event in ready):
                pgconn.consume_input()

    def _refused(self, position: int, result: PGresult) -> StatementRefused:
        if result.error_field(DiagnosticField.SQLSTATE) is None:
            # Of libpq and not of the server: the connection is lost.
            raise psycopg.OperationalError(result.get_error_message())
        return StatementRefused(position, errors.error_from_result(result))
