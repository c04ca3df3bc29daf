"""A migration that was interrupted goes on where it stopped, although each DDL statement of MySQL commits by itself.

While a revision runs, a table notes which of its statements have begun, and the next migration skips what is done. Each
note is written just before its statement, in the same transaction:

- A statement that writes rows commits together with its note, so it is done if the note is there.
- DDL first commits what is open, the note included. So the last note may be there without its statement. The schema
  tells: if the objects that the statement names are as they were before it, the statement runs again. If not, it is
  done, since the server carries out a DDL statement whole or not at all.

The lock of a migration belongs to the session that executes the statements. A server that still carries out the last
statement of a killed migration keeps the next one waiting, and so the schema does not change while it is looked at.
"""

# ruff: noqa: S608  # the only name that statements are made of is a constant

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, Final

from pymysql.constants import ER
from pymysql.err import OperationalError
from sqlalchemy import Connection, event

from coordinator.service.errors import ConfigurationError

_TABLE: Final = "migration_progress"
_VERB: Final = re.compile(r"(?:\s|\(|/\*.*?\*/|(?:--|#)[^\n]*\n)*([a-z]*)", re.IGNORECASE | re.DOTALL)
_OF_READS: Final = frozenset(("SELECT", "VALUES", "TABLE", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "DO"))
_OF_THE_SESSION: Final = _OF_READS | frozenset(
    ("SET", "USE", "LOCK", "UNLOCK", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
)
_OF_ROWS: Final = frozenset(("INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD"))
# What some of them do is no part of a table's definition: rights, statistics, an end of all rows. It may be done twice.
_OF_THE_SCHEMA: Final = frozenset(("ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "GRANT", "REVOKE", "ANALYZE"))
# Tables that change places may look as before; of several a crash of the server may leave some.
_OF_SEVERAL_TABLES: Final = re.compile(r"\W*(RENAME|DROP)\b[^,]*,|.*\bEXCHANGE\b", re.IGNORECASE | re.DOTALL)
# A part of SHOW CREATE TABLE that changes with the rows.
_NEXT_NUMBER: Final = re.compile(r" AUTO_INCREMENT=\d+")
_VIEWS_AND_PROGRAMS: Final = """
SELECT table_name, view_definition FROM information_schema.views WHERE table_schema = DATABASE()
UNION ALL SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = DATABASE()
UNION ALL SELECT routine_name, routine_definition FROM information_schema.routines WHERE routine_schema = DATABASE()
UNION ALL SELECT event_name, event_definition FROM information_schema.events WHERE event_schema = DATABASE()
"""


class _ToldBy(Enum):
    """What tells of a statement that it is done."""

    NOTHING_NEEDED = auto()
    """It leaves nothing behind that outlasts the session, and runs each time."""
    NOTE = auto()
    """It writes rows, in the transaction of its note."""
    SCHEMA = auto()
    NOTHING = auto()
    """Nothing tells, if it is the last one."""


@contextmanager
def resumable(connection: Connection, history: str) -> Iterator[Callable[[], None]]:
    """Run one history up to its head in it, and call what it yields in the transaction that writes a new version.

    Raises ConfigurationError when it cannot be told what an interrupted migration has done.
    """
    notes = _Notes(connection.connection.driver_connection, history)
    hooks: dict[str, Callable[..., bool]] = {
        "do_execute": notes.is_done,
        "do_executemany": notes.is_done,
        "do_execute_no_params": notes.is_done_without_parameters,
    }
    for name, hook in hooks.items():
        event.listen(connection.engine, name, hook)
    try:
        yield notes.forget
    finally:
        for name, hook in hooks.items():
            event.remove(connection.engine, name, hook)
    notes.remove_table()


class _Notes:
    """Those of one history. They use the driver alone: what passes through SQLAlchemy would come back to it."""

    def __init__(self, driver: Any, history: str) -> None:
        self._driver = driver
        self._history = history
        self._exists = (_TABLE,) in self._rows("SHOW TABLES")
        self._done: Counter[str] = Counter()
        self._done_to_rows: set[str] = set()
        if self._exists:
            self._settle_doubt()
            written = f"SELECT digest, statement FROM {_TABLE} WHERE history = %s"
            for digest, statement in self._rows(written, history):
                self._done[digest] += 1
                if _told_by(statement) is _ToldBy.NOTE:
                    self._done_to_rows.add(digest)

    def is_done(self, cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        """SQLAlchemy asks before each statement, and executes it if the answer is no."""
        if _told_by(statement) is _ToldBy.NOTHING_NEEDED:
            return False
        digest = _digest((statement, parameters))
        if self._done[digest]:
            self._done[digest] -= 1
            # It gives the cursor what SQLAlchemy reads of a statement without rows.
            cursor.execute("DO 0")
            return True
        self._check_same_revision()
        self._note(statement, digest)
        return False

    def is_done_without_parameters(self, cursor: Any, statement: str, context: Any) -> bool:
        return self.is_done(cursor, statement, None, context)

    def forget(self) -> None:
        """With the new version the notes belong to no revision that is still to be done."""
        self._done.clear()
        if self._exists:
            self._rows(f"DELETE FROM {_TABLE} WHERE history = %s", self._history)

    def remove_table(self) -> None:
        """At the head the schema is as if there had never been such a table. Another history may still need it."""
        if self._exists and not self._rows(f"SELECT 1 FROM {_TABLE} LIMIT 1"):
            try:
                self._rows(f"DROP TABLE {_TABLE}")
            except OperationalError as error:
                # The role may make tables and not remove them: the empty table stays.
                if error.args[0] != ER.TABLEACCESS_DENIED_ERROR:
                    raise

    def _check_same_revision(self) -> None:
        """A revision that was changed, or that issues what it has computed, would write rows twice.

        It may leave DDL out, since a careful one looks first whether it is needed.
        """
        if any(self._done[digest] for digest in self._done_to_rows):
            raise ConfigurationError(
                "a migration was interrupted, and its revision no longer issues the statements that have written rows "
                f"(see the table {_TABLE}): bring it back as it was, or restore the database"
            )

    def _note(self, statement: str, digest: str) -> None:
        if not self._exists:
            self._rows(
                f"CREATE TABLE {_TABLE} (number BIGINT AUTO_INCREMENT PRIMARY KEY, history VARCHAR(255) NOT NULL, "
                "digest CHAR(64) NOT NULL, statement LONGTEXT NOT NULL, schema_before CHAR(64)) "
                "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
            )
            self._exists = True
        before = self._schema(statement) if _told_by(statement) is _ToldBy.SCHEMA else None
        insert = f"INSERT INTO {_TABLE} (history, digest, statement, schema_before) VALUES (%s, %s, %s, %s)"
        self._rows(insert, self._history, digest, statement, before)

    def _settle_doubt(self) -> None:
        """The last note's, whatever its history is: nothing has run since."""
        last = self._rows(f"SELECT number, statement, schema_before FROM {_TABLE} ORDER BY number DESC LIMIT 1")
        for number, statement, before in last:
            if before is None and _told_by(statement) is _ToldBy.NOTHING:
                # It has committed on its way, as a procedure with DDL does.
                raise ConfigurationError(
                    "a migration was interrupted in a statement of which the schema does not tell whether it is done, "
                    f"in row {number} of the table {_TABLE}: if it is done, set schema_before of the row to 'done'; "
                    "if not, delete the row"
                )
            if before is not None and before == self._schema(statement):
                self._rows(f"DELETE FROM {_TABLE} WHERE number = %s", number)

    def _schema(self, statement: str) -> str:
        """A digest of the tables, views and programs that a statement names."""
        words = f" {statement.lower()} "

        def is_named(name: str) -> bool:
            return re.search(rf"[^\w$]{re.escape(name.lower())}[^\w$]", words) is not None

        tables = sorted(name for name, kind in self._rows("SHOW FULL TABLES") if kind != "VIEW" and is_named(name))
        created = [self._rows(f"SHOW CREATE TABLE `{name.replace('`', '``')}`")[0][1] for name in tables]
        others = sorted((row for row in self._rows(_VIEWS_AND_PROGRAMS) if is_named(row[0])), key=repr)
        return _digest(([_NEXT_NUMBER.sub("", each) for each in created], others))

    def _rows(self, statement: str, *parameters: object) -> list[Any]:
        with self._driver.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())


def _told_by(statement: str) -> _ToldBy:
    found = _VERB.match(statement)
    verb = "" if found is None else found[1].upper()
    if verb == "WITH":
        return _ToldBy.NOTE if re.search(r"\b(UPDATE|DELETE)\b", statement, re.IGNORECASE) else _ToldBy.NOTHING_NEEDED
    if verb in _OF_ROWS:
        return _ToldBy.NOTE
    if verb in _OF_THE_SCHEMA and not _OF_SEVERAL_TABLES.match(statement):
        return _ToldBy.SCHEMA
    return _ToldBy.NOTHING_NEEDED if verb in _OF_THE_SESSION else _ToldBy.NOTHING


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
