"""The audit: which audited rows each command has changed, and from where on that is complete."""

from collections.abc import Collection, Iterable, Sequence

from coordinator.lane.identity_map import IdentityMap
from coordinator.service.rows import Key, Row, VersionedRow
from coordinator.stores.audit_tables import AuditedTable, How, RowChange
from coordinator.stores.key_texts import key_text
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.port import Lease, Read, Transaction


def row_changes(sequence: int, changed: Iterable[tuple[type[Row], Key, Row | None, Row | None]]) -> Sequence[RowChange]:
    """The entries for the rows that one command has changed: each with its model, its key, as it was and as it is."""
    found: list[RowChange] = []
    for model, key, before, now in changed:
        how: How = "inserted" if before is None else "removed" if now is None else "updated"
        row = before if now is None else now
        found.append(
            RowChange(
                sequence=sequence,
                place=len(found) + 1,
                row_table=model.table,
                row_key=key_text(key),
                how=how,
                version=row.version if isinstance(row, VersionedRow) else None,
            )
        )
    return found


class AuditedTables:
    """From where on the changes of each audited table are complete: a row of its own says it in the database.

    A process that does not audit a table leaves that row alone, and its entries of the log have a higher epoch than the
    row. So the next process that does sees whether such entries came between.
    """

    def __init__(self, audited: Collection[type[Row]]) -> None:
        self._tables = [model.table for model in audited]
        self._there: dict[str, AuditedTable] = {}
        self._rows: list[AuditedTable] = []

    def read(self, transaction: Transaction, lease: Lease) -> None:
        """The lease is new: what is to be written of each table, with the next commit."""
        self._rows = []
        if not self._tables:
            return
        (found,) = transaction.load([Read(AuditedTable, AuditedTable.key, self._tables)])
        self._there = {row.row_table: row for row in found}
        settled: list[LogEntry] = transaction.scan(LogEntry, 1, where=("sequence", lease.sequence))
        # Where a loss was accepted, there is no entry of the last sequence.
        last = settled[0].epoch if settled else lease.epoch
        for table in self._tables:
            row = self._there.get(table)
            is_whole = row is not None and (last <= row.epoch or row.since > lease.sequence)
            since = row.since if row is not None and is_whole else lease.sequence + 1
            self._rows.append(AuditedTable(row_table=table, since=since, epoch=lease.epoch))

    def write(self, work: IdentityMap) -> None:
        """Have the rows written with the transaction, unless they are."""
        for row in self._rows:
            work.adopt(AuditedTable, row.row_table, self._there.get(row.row_table))
            work.keep(row)

    def committed(self) -> None:
        """They are."""
        self._rows = []
