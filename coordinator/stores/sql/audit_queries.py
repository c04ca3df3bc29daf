"""What operators ask of the audit, on every kind of SQL database."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select

from coordinator.stores.audit import ActQuery, AuditBounds, AuditedCommand, ChangedRow, ChangeQuery, actor_texts
from coordinator.stores.audit_tables import AuditedTable, OperatorAct, RowChange
from coordinator.stores.kept_entries import ORDERS, cutoff_of_orders
from coordinator.stores.lane_tables import DeadLetter, LogEntry, OutboxEntry, Timer, metadata
from coordinator.stores.personal_tables import PersonalEntry
from coordinator.stores.row_makers import row_of_mapping
from coordinator.stores.times import utc

_LOG = metadata.tables[LogEntry.table]
_CHANGES = metadata.tables[RowChange.table]
_PERSONAL = metadata.tables[PersonalEntry.table]
_TABLES = metadata.tables[AuditedTable.table]
_ACTS = metadata.tables[OperatorAct.table]
_LETTERS, _TIMERS, _OUTBOX = (metadata.tables[model.table] for model in (DeadLetter, Timer, OutboxEntry))
_IS_NOWHERE = (
    ~exists().where(_LETTERS.c.command_id == _PERSONAL.c.command_id),
    ~exists().where(_TIMERS.c.about == _PERSONAL.c.command_id),
    # Without an index by the id: read once for all of them.
    _PERSONAL.c.command_id.not_in(select(_OUTBOX.c.command_id)),
)
"""Of a command's personal data: no dead letter, no timer and no entry of the outbox has it."""
_SHOWN = ("sequence", "command_id", "type", "status", "settled_at", "actor")


def commands_of(connection: Connection, query: ChangeQuery, before: int, limit: int) -> list[AuditedCommand]:
    """The last commands below a sequence that the query chooses, the last one first."""
    meant: list[ColumnElement[bool]] = [_LOG.c.sequence < before, *_conditions(query)]
    wanted = select(*(_LOG.c[name] for name in _SHOWN))
    if query.is_of_row:
        # By the index of the row: then the log is asked for those sequences only.
        wanted = wanted.join(_CHANGES, _CHANGES.c.sequence == _LOG.c.sequence)
        meant += [*_row(query), _CHANGES.c.sequence < before]
        wanted = wanted.where(*meant).order_by(_CHANGES.c.sequence.desc())
    else:
        wanted = wanted.where(*meant).order_by(_LOG.c.sequence.desc())
    found = connection.execute(wanted.limit(limit)).mappings().all()
    changes = _changes(connection, query, [row["sequence"] for row in found])
    return [
        AuditedCommand(**{name: utc(value) for name, value in row.items()}, changes=changes.get(row["sequence"], []))
        for row in found
    ]


def bounds_of(connection: Connection, table: str | None) -> AuditBounds:
    """How far back the log goes, and the audit of a table."""
    ends = select(_LOG.c.sequence, _LOG.c.settled_at, _LOG.c.epoch).limit(1)
    first = connection.execute(ends.order_by(_LOG.c.sequence)).first()
    last = connection.execute(ends.order_by(_LOG.c.sequence.desc())).first()
    row = connection.execute(select(_TABLES).where(_TABLES.c.row_table == table)).mappings().first()
    return AuditBounds(
        first=None if first is None else int(first[0]),
        first_at=None if first is None else utc(first[1]),
        last_epoch=0 if last is None else int(last[2]),
        audited=None if row is None else row_of_mapping(AuditedTable, row),
    )


def acts_of(connection: Connection, query: ActQuery, before: str | None, limit: int) -> list[OperatorAct]:
    """The last acts before one that the query chooses, the last one first."""
    wanted = select(_ACTS).order_by(_ACTS.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(_ACTS.c.id < before)
    if query.author is not None:
        wanted = wanted.where(_ACTS.c.author == query.author)
    if query.act is not None:
        wanted = wanted.where(_ACTS.c.act == query.act)
    if query.since is not None:
        wanted = wanted.where(_ACTS.c.done_at >= query.since)
    if query.until is not None:
        wanted = wanted.where(_ACTS.c.done_at < query.until)
    return [row_of_mapping(OperatorAct, row) for row in connection.execute(wanted).mappings()]


def is_old(cutoff: datetime) -> ColumnElement[bool]:
    """Whether an entry of the log was settled before, and no order is kept for longer."""
    is_of_others = _LOG.c.type.not_in(ORDERS)
    return and_(_LOG.c.settled_at < cutoff, or_(is_of_others, _LOG.c.settled_at < cutoff_of_orders(cutoff)))


def forget_changes(connection: Connection, after: int, last: int) -> None:
    """Delete what is kept beside the entries of commands that are no longer in the log, behind one sequence and up to
    another: the rows that they changed, and whose personal data they had.

    What they emitted may still wait, or be a dead letter: whose data that has stays known, and is looked at again. An
    older release deletes entries without them: behind 0 they go with the next ones.
    """
    these = and_(_CHANGES.c.sequence > after, _CHANGES.c.sequence <= last)
    logged = select(_LOG.c.sequence).where(_LOG.c.sequence > after, _LOG.c.sequence <= last)
    connection.execute(delete(_CHANGES).where(these, _CHANGES.c.sequence.not_in(logged)))
    their = and_(_PERSONAL.c.sequence > after, _PERSONAL.c.sequence <= last)
    connection.execute(delete(_PERSONAL).where(their, _PERSONAL.c.sequence.not_in(logged), *_IS_NOWHERE))


def _row(query: ChangeQuery) -> list[ColumnElement[bool]]:
    return [_CHANGES.c.row_table == query.row_table, _CHANGES.c.row_key == query.row_key]


def _conditions(query: ChangeQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.after:
        found.append(_LOG.c.sequence > query.after)
    if query.type is not None:
        found.append(_LOG.c.type == query.type)
    if query.status is not None:
        found.append(_LOG.c.status == query.status)
    if query.since is not None:
        found.append(_LOG.c.settled_at >= query.since)
    if query.until is not None:
        found.append(_LOG.c.settled_at < query.until)
    if query.actor is not None:
        whole, begun = actor_texts(query.actor)
        found.append(or_(_LOG.c.actor == whole, func.substr(_LOG.c.actor, 1, len(begun)) == begun))
    return found


def _changes(connection: Connection, query: ChangeQuery, sequences: list[int]) -> dict[int, list[ChangedRow]]:
    """By sequence: what these commands changed."""
    meant = _CHANGES.c.sequence.in_(sequences)
    wanted = select(_CHANGES).where(meant, *(_row(query) if query.is_of_row else ()))
    found: dict[int, list[ChangedRow]] = {}
    for row in connection.execute(wanted.order_by(_CHANGES.c.sequence, _CHANGES.c.place)).mappings():
        fields: dict[str, Any] = {name: row[name] for name in ChangedRow.__struct_fields__}
        found.setdefault(row["sequence"], []).append(ChangedRow(**fields))
    return found
