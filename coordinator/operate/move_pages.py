"""Reading all rows of a table while its lane goes on: each page is read in a transaction of its own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from coordinator.service.rows import Key, R, Row, key_of
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, ParkedCommand, Timer
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.port import Conflict, RowFault, Store, Transaction

PAGE_ROWS: Final = 500
LARGE_PAGE_ROWS: Final = 20
"""Of models whose rows may have a megabyte each."""
CONFLICT_TRIES: Final = 100
_LARGE: Final[tuple[type[Row], ...]] = (DeadLetter, MoveNote, OutboxEntry, ParkedCommand, Timer)

T = TypeVar("T")

PassOver = Callable[[Key, RowFault], None]
"""Told of each row that cannot be read, with its key. What it raises ends the reading."""


def pages(
    store: Store, model: type[R], after: Key | None = None, pass_over: PassOver | None = None
) -> Iterator[list[R]]:
    """The rows that are there now. Those that the lane adds behind them meanwhile are noted, and may be without end:
    the last row of now ends it, unless that one goes.

    Raises RowFault for a row that cannot be read, unless it is told to pass it over; for one without a readable key
    always.
    """
    last = _last_keys(store, model, pass_over)
    most = limit = page_rows(model)
    while after not in last:
        try:
            rows = in_transaction(store, partial(_scanned, model, limit, after))
        except RowFault as fault:
            if pass_over is None or fault.key is None:
                raise
            if limit > 1:
                # Those before it come first.
                limit //= 2
                continue
            pass_over(fault.key, fault)
            after, limit = fault.key, most
            continue
        if not rows:
            return
        keys = [key_of(row) for row in rows]
        end = keys.index(last[0]) + 1 if last and last[0] in keys else len(rows)
        yield rows[:end]
        # What could not be read may have been mended meanwhile, or be gone.
        after, limit = keys[end - 1], min(2 * limit, most)


def page_rows(model: type[Row]) -> int:
    """How many rows of it are read and written at once."""
    return LARGE_PAGE_ROWS if model in _LARGE else PAGE_ROWS


def in_transaction(store: Store, work: Callable[[Transaction], T]) -> T:
    """The result of a transaction, which is tried again where it conflicts with another one."""
    for _ in range(CONFLICT_TRIES):
        transaction = store.begin()
        try:
            return work(transaction)
        except Conflict as error:
            conflict = error
        finally:
            transaction.rollback()
    raise conflict


def last_rows(store: Store, model: type[R], limit: int) -> list[R]:
    """The last ones in the order of their keys."""
    return in_transaction(store, partial(_last, model, limit))


def _last_keys(store: Store, model: type[Row], pass_over: PassOver | None) -> list[Key]:
    """That of the last row, if there is one."""
    try:
        return [key_of(row) for row in last_rows(store, model, 1)]
    except RowFault as fault:
        if pass_over is None or fault.key is None:
            raise
        return [fault.key]


def _scanned(model: type[R], limit: int, after: Key | None, transaction: Transaction) -> list[R]:
    return transaction.scan(model, limit, after)


def _last(model: type[R], limit: int, transaction: Transaction) -> list[R]:
    return transaction.last(model, limit)
