"""What else can write a lane's tables on SQLite: whoever may write the file, and the file's own triggers."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from coordinator.stores.sqlite.file import Identity, file_of, identity_of
from coordinator.stores.writers import Writer, Writers, WritersQuery, gathered, naming

_PROCESSES: Final = Path("/proc")
_TRIGGERS: Final = text("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY 2, 1")
_FOREIGN_KEYS: Final = text('SELECT "table", on_delete, on_update FROM pragma_foreign_key_list(:table)')
_FOLLOWING: Final = ("CASCADE", "SET NULL", "SET DEFAULT")


def writers(connection: Connection, query: WritersQuery) -> Writers:
    """The lane's own process is among those that have the file open: nothing in the file tells which it is."""
    found: list[Writer] = []
    unseen = ["Whatever runs as the file's owner may write it: a file has no rights by table."]
    tables, path = query.tables, file_of(query.database)
    mode = os.stat(path).st_mode  # noqa: PTH116  # as its identity is asked for
    for who, right in (("group", stat.S_IWGRP), ("everybody", stat.S_IWOTH)):
        if mode & right:
            found.append(Writer(kind="file", name=path, does=f"{who} may write it", tables=tables))
    if _PROCESSES.is_dir():
        found += _open_in(path, tables)
        if os.geteuid() != 0:
            unseen.append("Processes of others are not shown to this one.")
    else:
        unseen.append("This system does not say which processes have the file open.")
    for name, table, body in connection.execute(_TRIGGERS):
        if table in tables:
            found.append(Writer(kind="trigger", name=name, does="runs with each change", tables=(table,)))
        else:
            writer = Writer(kind="trigger", name=name, does="of another table: its text names this one", tables=())
            found += naming(writer, body, tables)
    for table in tables:
        for other, on_delete, on_update in connection.execute(_FOREIGN_KEYS, {"table": table}):
            does = [
                f"ON {event} {action}"
                for event, action in (("DELETE", on_delete), ("UPDATE", on_update))
                if action in _FOLLOWING
            ]
            if does:
                found.append(
                    Writer(kind="foreign key", name=table, does=f"{', '.join(does)} of {other}", tables=(table,))
                )
    return Writers(gathered(found), tuple(unseen))


def _open_in(path: str, tables: tuple[str, ...]) -> Iterator[Writer]:
    wanted = identity_of(path)
    for process in sorted(_PROCESSES.glob("[0-9]*"), key=lambda each: int(each.name)):
        if process.name == str(os.getpid()):
            continue
        count = _times_open(process, wanted)
        if count:
            does = f"has it open: {_title(process)}"
            yield Writer(kind="process", name=process.name, does=does, tables=tables, connections=count)


def _times_open(process: Path, wanted: Identity | None) -> int:
    """How often a process has the file open; 0 for one that is gone, or another user's."""
    try:
        return sum(identity_of(str(each)) == wanted for each in (process / "fd").iterdir())
    except OSError:
        return 0


def _title(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(word.decode(errors="replace") for word in words[:4]).strip()
