"""The tables of the audit: which rows a command has changed, from where on that is complete, and what operators did."""

from datetime import datetime
from typing import Final, Literal, TypeAlias

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from coordinator.service.rows import Row
from coordinator.stores.lane_columns import TIME, ascii_text, metadata

TABLE_CHARACTERS_MAX: Final = 63
KEY_CHARACTERS_MAX: Final = 200

How: TypeAlias = Literal["inserted", "updated", "removed"]


class RowChange(Row, table="row_changes", key=("sequence", "place"), index=(("row_table", "row_key", "sequence"),)):
    """What one command did to one row of an audited class. It goes with the command's entry in the log.

    `sequence` is that entry's, and `place` counts the rows of one command from 1. `row_key` is the row's key
    (`coordinator.stores.key_texts.key_text`). `how`: inserted, updated or removed, the command as a whole. `version` is
    the version that it left, or the last one of a removed row; None: the class has none.
    """

    sequence: int
    place: int
    row_table: str
    row_key: str
    how: How
    version: int | None = None


class AuditedTable(Row, table="audited_tables", key="row_table"):
    """From where on the changes of a table are complete: all commands from the sequence `since` on have theirs.

    `epoch` is the last one under which a lane kept it so. A later entry of the log with a higher epoch is of a process
    that does not audit this table: an older release, or one whose class is not audited.
    """

    row_table: str
    since: int
    epoch: int


class OperatorAct(Row, table="operator_acts", key="id"):
    """What an operator did to a lane, in the transaction in which it was done. It is kept for
    LANE_ACTS_RETENTION_DAYS, or for ever.

    `id` sorts acts by their time. `author` is who ran the command, as the operating system knows him, and his host;
    `account` the user of the database or of the broker with whom he came. `details` is JSON text: what was done to
    what.
    """

    id: str
    done_at: datetime
    author: str
    account: str | None
    act: str
    details: str
    reason: str | None = None


AUDIT_MODELS: Final[tuple[type[Row], ...]] = (RowChange, AuditedTable, OperatorAct)

Table(
    RowChange.table,
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("row_table", ascii_text(TABLE_CHARACTERS_MAX), nullable=False),
    Column("row_key", ascii_text(KEY_CHARACTERS_MAX), nullable=False),
    Column("how", ascii_text(20), nullable=False),
    Column("version", BigInteger),
    Index("row_changes_row", "row_table", "row_key", "sequence"),
)

Table(
    AuditedTable.table,
    metadata,
    Column("row_table", ascii_text(TABLE_CHARACTERS_MAX), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)

Table(
    OperatorAct.table,
    metadata,
    Column("id", ascii_text(64), primary_key=True),
    Column("done_at", TIME, nullable=False),
    Column("author", String(200), nullable=False),
    Column("account", String(200)),
    Column("act", ascii_text(100), nullable=False),
    Column("details", Text, nullable=False),
    Column("reason", String(500)),
)
