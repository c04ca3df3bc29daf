"""The table of a move: which rows the lane has changed while it is being copied to another database."""

from sqlalchemy import BigInteger, Column, Table

from coordinator.service.rows import Row
from coordinator.stores.lane_columns import BYTES, metadata


class MoveNote(Row, table="move_notes", key=("epoch", "number")):
    """The rows that one transaction of the lane has changed while the lane is being copied to another database.

    `number` counts the notes of a process. `batches` is 1 in the first note of a transaction, and 0 in its others.
    `changed` is JSON: of each row its table and its key (`coordinator/lane/move_notes.py`).
    """

    epoch: int
    number: int
    batches: int
    changed: bytes


Table(
    MoveNote.table,
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("batches", BigInteger, nullable=False),
    Column("changed", BYTES, nullable=False),
)
