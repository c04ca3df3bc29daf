"""What lets others write a lane's tables on SQLite: the rights on the file, which whoever runs its processes judges."""

import os
import stat
from typing import Final

from sqlalchemy import Connection

from coordinator.stores.foreign_rights import ForeignRight, ForeignRights
from coordinator.stores.sqlite.file import file_of
from coordinator.stores.writers import WritersQuery

_WHY: Final = "a gateway that runs as another user may need it: where none does, chmod go-w {path} {path}-*"


def foreign_rights(_: Connection, query: WritersQuery) -> ForeignRights:
    """The file's owner is the lane's; root is root."""
    path = file_of(query.database)
    mode = os.stat(path).st_mode  # noqa: PTH116  # as its identity is asked for
    writing = (("its group", stat.S_IWGRP), ("everybody", stat.S_IWOTH))
    return ForeignRights(
        tuple(
            ForeignRight(who=who, does=f"may write {path}", tables=query.tables, why=_WHY.format(path=path))
            for who, right in writing
            if mode & right
        )
    )
