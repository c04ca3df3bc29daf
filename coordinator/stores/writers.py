"""What can change a service's rows beside its lane: roles, triggers, foreign keys and other programs in the database.

A lane keeps rows in memory from batch to batch only within a batch, and reads them again in the next: another writer
does not break it, but its changes have no order, no log entry and no version, and may be lost under the lane's.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

WriterKind: TypeAlias = Literal[
    "role",
    "account",
    "view",
    "trigger",
    "foreign key",
    "rule",
    "event",
    "routine",
    "subscription",
    "foreign server",
    "foreign table",
    "job",
    "process",
    "file",
]


class Writer(Struct, frozen=True, kw_only=True):
    """Something that can change rows of `tables` without a command.

    `does` says how, in words. `connections`: how many it has open at this database now; None: it has none of its own,
    or nobody can tell. `is_shared`: it is the role of the lane or of whoever looks, which keeps its rights, and these
    connections are none of this system's.
    """

    kind: WriterKind
    name: str
    does: str
    tables: tuple[str, ...]
    connections: int | None = None
    is_shared: bool = False


class Writers(Struct, frozen=True):
    """All that was found. `unseen` says in sentences what the role that looked was not shown."""

    found: tuple[Writer, ...]
    unseen: tuple[str, ...] = ()


class WritersQuery(Struct, frozen=True):
    """Whose tables are meant: those of a lane and its role; `database` is the address's, a name or a path."""

    tables: tuple[str, ...]
    lane: str
    role: str | None
    database: str


def naming(writer: Writer, body: str, tables: Iterable[str], database: str | None = None) -> Iterator[Writer]:
    """A writer by what its text says: for each of these tables that the text names, as those of `database` if given."""
    qualified = "" if database is None else rf"`?{re.escape(database)}`?\s*\.\s*`?"
    for table in tables:
        if re.search(rf"(?<![\w$]){qualified}{re.escape(table)}(?![\w$])", body, re.IGNORECASE):
            yield Writer(kind=writer.kind, name=writer.name, does=writer.does, tables=(table,))


def gathered(found: Iterable[Writer]) -> tuple[Writer, ...]:
    """Those that differ in their tables only, as one."""
    tables: dict[Writer, list[str]] = {}
    for each in found:
        key = msgspec.structs.replace(each, tables=())
        tables.setdefault(key, []).extend(each.tables)
    return tuple(msgspec.structs.replace(each, tables=tuple(sorted(set(names)))) for each, names in tables.items())
