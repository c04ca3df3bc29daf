"""Which dead letters an operator means, on every kind of SQL database."""

from typing import Final

from sqlalchemy import Column, ColumnElement, LargeBinary, false, literal

from coordinator.stores.admin import LetterQuery
from coordinator.stores.lane_tables import DeadLetter, metadata
from coordinator.stores.sql.dialect import Dialect

_LETTERS = metadata.tables[DeadLetter.table]
_ASCII: Final = frozenset({"target", "command_id", "origin"})
"""Columns that MySQL compares with nothing else."""


def conditions_of(query: LetterQuery, dialect: Dialect) -> list[ColumnElement[bool]]:
    """The conditions that all hold for those that a query chooses."""
    letters = _LETTERS.c
    found: list[ColumnElement[bool]] = []
    for column, value in (
        (letters.target, query.target),
        (letters.command_id, query.command_id),
        (letters.type, query.type),
        (letters.code, query.code),
        (letters.origin, query.origin),
    ):
        if value is not None:
            found.append(column == value if _may_hold(column, value) else false())
    if query.since is not None:
        found.append(letters.dead_at >= query.since)
    if query.until is not None:
        found.append(letters.dead_at < query.until)
    if query.contains is not None:
        # Byte by byte everywhere: with LIKE, SQLite would not be, and each has signs of its own to escape.
        found.append(dialect.position(letters.arguments, literal(query.contains, LargeBinary())) > 0)
    return found


def _may_hold(column: Column[str], text: str) -> bool:
    """Whether a column may have a text at all. Asked for one that it cannot have, databases answer with an error, which
    would read as an outage."""
    return "\0" not in text and (text.isascii() or column.name not in _ASCII)
