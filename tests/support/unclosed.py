"""Connections to SQLite files that nobody closes are found on every Python: those before 3.13 say nothing of them."""

import sqlite3
import sys
import warnings
from typing import Any

_connect: Any = sqlite3.connect


class _Watched(sqlite3.Connection):
    def __del__(self) -> None:
        try:
            _ = self.total_changes
        except sqlite3.ProgrammingError:
            # It is closed, or never was open.
            return
        warnings.warn(f"unclosed database in {self!r}", ResourceWarning, stacklevel=1)


def _watched(*arguments: Any, **options: Any) -> Any:
    return _connect(*arguments, **{"factory": _Watched, **options})


def warn_of_unclosed_databases() -> None:
    if sys.version_info < (3, 13):
        for module in (sqlite3, sqlite3.dbapi2):
            vars(module)["connect"] = _watched
