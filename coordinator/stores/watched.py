"""A store whose calls can be seen from outside while they last.

No limit of time is right for all of them: a COMMIT waits for as long as the synchronous standby is away, and giving it
up would not make it undone. So a call that lasts is visible instead (coordinator/runtime/late_answers.py).
"""

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

from coordinator.runtime.awaited import Awaited
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection
from coordinator.stores.port import Backlog, Changes, Conflict, Lease, Read, Store, Transaction

_CHECK = "the database (check)"
_LEASE = "the database (lease)"
_LOOK = "the database (look)"
_BEGIN = "the database (begin)"
READ = "the database (read)"
COMMIT = "the database (commit)"
_ROLLBACK = "the database (rollback)"
_CLOSE = "the database (close)"
CALLS = frozenset({_CHECK, _LEASE, _LOOK, _BEGIN, READ, COMMIT, _ROLLBACK, _CLOSE})
"""All that may be waited for."""


class _Noted:
    """One call: noted while it lasts. A conflict says why the call had to wait, if somebody has seen it meanwhile."""

    __slots__ = ("_awaited", "_before", "_what")

    def __init__(self, awaited: Awaited, what: str) -> None:
        self._awaited = awaited
        self._what = what

    def __enter__(self) -> None:
        self._before = self._awaited.begin(self._what)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait = self._awaited.now if isinstance(error, Conflict) else None
        self._awaited.end(self._before)
        if wait is not None and wait.why is not None:
            raise Conflict(f"{error}: {wait.why}") from error


class WatchedStore:
    """Implements `Store` by another one, and notes each call while it lasts."""

    def __init__(self, store: Store, awaited: Awaited) -> None:
        self._store = store
        self._awaited = awaited

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        with _Noted(self._awaited, _CHECK):
            return self._store.check(models, must_sync=must_sync)

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:
        with _Noted(self._awaited, _LEASE):
            return self._store.take_over(holder, now, above, lineage)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        with _Noted(self._awaited, _LEASE):
            return self._store.renew(holder, now, epoch)

    def current(self) -> Lease | None:
        with _Noted(self._awaited, _LEASE):
            return self._store.current()

    def look(self) -> Lease | None:
        with _Noted(self._awaited, _LOOK):
            return self._store.look()

    def command_at(self, sequence: int) -> str | None:
        with _Noted(self._awaited, _LOOK):
            return self._store.command_at(sequence)

    def begin(self) -> Transaction:
        with _Noted(self._awaited, _BEGIN):
            return _WatchedTransaction(self._store.begin(), self._awaited)

    def close(self) -> None:
        with _Noted(self._awaited, _CLOSE):
            self._store.close()


class _WatchedTransaction:
    """Implements `Transaction` likewise."""

    __slots__ = ("_awaited", "_transaction")

    def __init__(self, transaction: Transaction, awaited: Awaited) -> None:
        self._transaction = transaction
        self._awaited = awaited

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        with _Noted(self._awaited, READ):
            return self._transaction.load(reads)

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        with _Noted(self._awaited, READ):
            return self._transaction.scan(model, limit, after, where)

    def last(self, model: type[R], limit: int) -> list[R]:
        with _Noted(self._awaited, READ):
            return self._transaction.last(model, limit)

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        with _Noted(self._awaited, READ):
            return self._transaction.last_numbers(model, limit)

    def backlog(self) -> list[Backlog]:
        with _Noted(self._awaited, READ):
            return self._transaction.backlog()

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        with _Noted(self._awaited, COMMIT):
            self._transaction.commit(lease, sequence, changes)

    def rollback(self) -> None:
        with _Noted(self._awaited, _ROLLBACK):
            self._transaction.rollback()
