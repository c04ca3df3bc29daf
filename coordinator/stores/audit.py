"""What operators ask of the audit: of a row, or of an actor, which commands changed what."""

from datetime import datetime

import msgspec
from msgspec import Struct

from coordinator.stores.audit_tables import AuditedTable, How


class ChangeQuery(Struct, frozen=True, kw_only=True):
    """Chooses settled commands: those that match every given field.

    With `row_table` and `row_key` those that have changed this row. `actor` is the subject of who asked for them.
    `since` is included, `until` is not. The log has no index by the others: `after` bounds how far back it is looked
    through, to the sequence behind this one.
    """

    row_table: str | None = None
    row_key: str | None = None
    actor: str | None = None
    type: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int = 0

    @property
    def is_of_row(self) -> bool:
        """Whether it asks for the changes of one row."""
        return self.row_table is not None and self.row_key is not None


class ActQuery(Struct, frozen=True, kw_only=True):
    """Chooses operators' acts: those that match every given field. `since` is included, `until` is not."""

    author: str | None = None
    act: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class ChangedRow(Struct, frozen=True, kw_only=True):
    """A row that a command has changed: the fields of `RowChange`."""

    row_table: str
    row_key: str
    how: How
    version: int | None


class AuditedCommand(Struct, frozen=True, kw_only=True):
    """A command of the log, and what it changed of audited rows: of the row that was asked for, or of all."""

    sequence: int
    command_id: str
    type: str
    status: str
    settled_at: datetime
    actor: str | None
    changes: list[ChangedRow]


class AuditBounds(Struct, frozen=True, kw_only=True):
    """How far back the log goes, and the audit of one table: see `AuditedTable`.

    `first` is the lowest sequence in the log, settled at `first_at`; None: the log is empty. `last_epoch` is that of
    its latest entry. `audited` is None where no lane has ever audited the table.
    """

    first: int | None
    first_at: datetime | None
    last_epoch: int
    audited: AuditedTable | None

    @property
    def is_interrupted(self) -> bool:
        """Whether commands were applied last by a process that does not audit the table."""
        return self.audited is not None and self.last_epoch > self.audited.epoch


def actor_texts(subject: str) -> tuple[str, str]:
    """How the log has an actor of this subject: as this whole text, or as one that begins with the other."""
    begun = f'{{"subject":{msgspec.json.encode(subject).decode()}'
    return begun + "}", begun + ","
