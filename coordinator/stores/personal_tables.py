"""The table by which a lane finds what it keeps of a person's data: whose the settled commands are."""

from sqlalchemy import BigInteger, Column, Index, Table

from coordinator.service.rows import Row
from coordinator.stores.lane_columns import ascii_text, metadata


class PersonalEntry(Row, table="personal_entries", key="id"):
    """One command that left personal data of one subject, in the log, in a dead letter or in a timer.

    `id` begins with a digest of the subject and goes on with the sequence, so that the entries of a subject are the
    rows behind its digest, in the order of the lane. `sequence` is that of the command itself, or of the command that
    has emitted it. The table has neither the subject nor any value of his.
    """

    id: str
    sequence: int
    command_id: str


Table(
    PersonalEntry.table,
    metadata,
    Column("id", ascii_text(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("command_id", ascii_text(64), nullable=False),
    Index("personal_entries_sequence", "sequence"),
)
