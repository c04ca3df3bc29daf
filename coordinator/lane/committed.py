"""The work of a batch's transactions so far; a settlement is made from it."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from coordinator.lane.basis import Fate
from coordinator.lane.request import Request
from coordinator.service.rows import Ref, Row, needs_review, ref_of
from coordinator.service.saga import SagaRow
from coordinator.stores.lane_tables import LANE_MODELS, OutboxEntry, Series, Timer
from coordinator.stores.port import Changes


class Committed(Struct):
    """`released` are commands that waited for their key; no delivery of the batch brought them.

    `saved` are rows as they are behind all of it, and as they were in between; `removed` are the keys of rows that are
    gone, or were gone before what `saved` has of them. `reviews` are rows that a person has to look at.
    """

    fates: list[Fate] = []
    released: list[tuple[Request, Fate]] = []
    withdrawn: list[int] = []
    timers: list[Timer] = []
    saved: list[Row] = []
    removed: list[Ref[Row]] = []
    reviews: list[Row] = []

    def add(self, requests: Sequence[Request], fates: Sequence[Fate], changes: Changes) -> list[int]:
        """Note the work of a committed transaction; return the emitted commands that it has withdrawn."""
        withdrawn: list[int] = []
        for request, fate in zip(requests, fates, strict=False):
            if request.parked_key is not None:
                self.released.append((request, fate))
            else:
                self.fates.append(fate)
        if self.saved or changes.added_again:
            self._forget_former((*changes.deletes, changes.added_again))
        for rows in (*changes.updates, *changes.inserts):
            if not isinstance(rows[0], LANE_MODELS):
                self.saved += rows
                if rows[0].__review__ is not None:
                    self.reviews += [
                        row for row in rows if needs_review(row) and not _needed_it(row, changes.before(row))
                    ]
            elif isinstance(rows[0], Timer):
                self.timers += [row for row in rows if isinstance(row, Timer)]
        for rows in changes.deletes:
            withdrawn += [row.id for row in rows if isinstance(row, OutboxEntry)]
            if not isinstance(rows[0], LANE_MODELS):
                self.removed += map(ref_of, rows)
        self.removed += map(ref_of, changes.added_again)
        self.withdrawn += withdrawn
        return withdrawn

    def _forget_former(self, gone: Iterable[Sequence[Row]]) -> None:
        """What an earlier transaction has saved of rows that were removed since."""
        refs = {ref_of(row) for rows in gone for row in rows if not isinstance(row, LANE_MODELS)}
        if refs:
            self.saved = [row for row in self.saved if ref_of(row) not in refs]


def _needed_it(row: Row, before: Row | None) -> bool:
    """Whether a row that needs a review has just got another value since it came to that."""
    if before is None or not needs_review(before):
        return False
    # A flow may have been taken up and have ended again between two transactions.
    return not (isinstance(row, SagaRow) and isinstance(before, SagaRow) and row.ended_at != before.ended_at)


def series_in(changes: Changes) -> dict[str, Series]:
    """The series that a transaction has written. The lane is their only writer, so it need not read them again."""
    written = [rows for rows in (*changes.updates, *changes.inserts) if isinstance(rows[0], Series)]
    return {row.name: row for rows in written for row in rows if isinstance(row, Series)}


def emitted_by(changes: Changes) -> list[OutboxEntry]:
    """The commands that a transaction has put into the outbox, in the order of their ids."""
    found = [row for rows in changes.inserts for row in rows if isinstance(row, OutboxEntry)]
    return sorted(found, key=lambda entry: entry.id)
