"""A store whose calls can be seen from outside while they last.

No limit of time is right for all of them: a COMMIT waits for as long as the synchronous standby is away, and giving it
up would not make it undone. So a call that lasts is visible instead (coordinator/runtime/late_answers.py).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from coordinator.runtime.awaited import Awaited
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection
from coordinator.stores.port import Backlog, Changes, Lease, Read, Store, Transaction

_CHECK = "the database (check)"
_LEASE = "the database (lease)"
_LOOK = "the database (look)"
_BEGIN = "the database (begin)"
READ = "the database (read)"
COMMIT = "the database (commit)"
_ROLLBACK = "the database (rollback)"
_CLOSE = "the database (close)"


class WatchedStore:
    """Implements `Store` by another one, and notes each call while it lasts."""

    def __init__(self, store: Store, awaited: Awaited) -> None:
        self._store = store
        self._awaited = awaited

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        before = self._awaited.begin(_CHECK)
        try:
            return self._store.check(models, must_sync=must_sync)
        finally:
            self._awaited.end(before)

    def take_over(self, holder: str, now: datetime, above: int = 0) -> Lease:
        before = self._awaited.begin(_LEASE)
        try:
            return self._store.take_over(holder, now, above)
        finally:
            self._awaited.end(before)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        before = self._awaited.begin(_LEASE)
        try:
            return self._store.renew(holder, now, epoch)
        finally:
            self._awaited.end(before)

    def current(self) -> Lease | None:
        before = self._awaited.begin(_LEASE)
        try:
            return self._store.current()
        finally:
            self._awaited.end(before)

    def look(self) -> Lease | None:
        before = self._awaited.begin(_LOOK)
        try:
            return self._store.look()
        finally:
            self._awaited.end(before)

    def begin(self) -> Transaction:
        before = self._awaited.begin(_BEGIN)
        try:
            return _WatchedTransaction(self._store.begin(), self._awaited)
        finally:
            self._awaited.end(before)

    def close(self) -> None:
        before = self._awaited.begin(_CLOSE)
        try:
            self._store.close()
        finally:
            self._awaited.end(before)


class _WatchedTransaction:
    """Implements `Transaction` likewise."""

    __slots__ = ("_awaited", "_transaction")

    def __init__(self, transaction: Transaction, awaited: Awaited) -> None:
        self._transaction = transaction
        self._awaited = awaited

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        before = self._awaited.begin(READ)
        try:
            return self._transaction.load(reads)
        finally:
            self._awaited.end(before)

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        before = self._awaited.begin(READ)
        try:
            return self._transaction.scan(model, limit, after, where)
        finally:
            self._awaited.end(before)

    def last(self, model: type[R], limit: int) -> list[R]:
        before = self._awaited.begin(READ)
        try:
            return self._transaction.last(model, limit)
        finally:
            self._awaited.end(before)

    def backlog(self) -> list[Backlog]:
        before = self._awaited.begin(READ)
        try:
            return self._transaction.backlog()
        finally:
            self._awaited.end(before)

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        before = self._awaited.begin(COMMIT)
        try:
            self._transaction.commit(lease, sequence, changes)
        finally:
            self._awaited.end(before)

    def rollback(self) -> None:
        before = self._awaited.begin(_ROLLBACK)
        try:
            self._transaction.rollback()
        finally:
            self._awaited.end(before)
