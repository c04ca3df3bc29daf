"""Notes of the rows that a lane changes while it is being copied to another database (`coordinator.stores.moves`)."""

from collections.abc import Sequence
from typing import Final

import msgspec

from coordinator.service.rows import Key, Row, key_of
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.moves import is_noting
from coordinator.stores.port import Changes, Lease

ROWS_OF_NOTE: Final = 1000
"""The most rows of one note: a note of longest keys has less than 1 MB."""

_decoder = msgspec.json.Decoder(list[tuple[str, int | str | list[int | str]]])


class MoveNotes:
    """Adds notes to the changes of transactions, while a move is under way."""

    def __init__(self) -> None:
        self._number = 0

    def added(self, changes: Changes, lease: Lease) -> Changes:
        """The changes, and a note of their rows where the lease says that these are copied."""
        if not is_noting(lease.move):
            return changes
        rows = [row for group in (changes.deletes, changes.updates, changes.inserts) for rows in group for row in rows]
        return msgspec.structs.replace(changes, inserts=[*changes.inserts, self._notes(rows, lease.epoch)])

    def _notes(self, rows: Sequence[Row], epoch: int) -> list[Row]:
        notes: list[Row] = []
        # One without rows says that its transaction changed none.
        for start in range(0, len(rows) or 1, ROWS_OF_NOTE):
            self._number += 1
            changed = msgspec.json.encode([(row.table, key_of(row)) for row in rows[start : start + ROWS_OF_NOTE]])
            notes.append(MoveNote(epoch=epoch, number=self._number, batches=0 if notes else 1, changed=changed))
        return notes


def noted(note: MoveNote) -> list[tuple[str, Key]]:
    """The rows of a note: the table of each, and its key, in which a UUID is text."""
    return [(table, tuple(key) if isinstance(key, list) else key) for table, key in _decoder.decode(note.changed)]
