"""The statements by which a lane reads and writes a table of SQLite. Those of every batch are made once for a table."""

from collections.abc import Iterable

from coordinator.stores.sql.schema import TableOf


class Statements:
    """Those of one table."""

    __slots__ = ("delete", "insert", "select", "table", "update")

    def __init__(self, table: TableOf) -> None:
        """The arguments of `insert` and `update` are the values of all columns, those of `delete` the key's."""
        self.table = table
        self.select = select(table)
        # By number: the values come in the order of the columns.
        marks = {name: f"?{number}" for number, name in enumerate(table.columns, 1)}
        self.insert = f'INSERT INTO "{table.name}" ({quoted(marks)}) VALUES ({", ".join(marks.values())})'  # noqa: S608
        # Of a table that is its key, the key is set to what it is.
        assignments = ", ".join(f'"{name}" = {marks[name]}' for name in table.others or table.keys)
        only = " AND ".join(f'"{name}" = {marks[name]}' for name in table.keys)
        self.update = f'UPDATE "{table.name}" SET {assignments} WHERE {only}'  # noqa: S608
        only = " AND ".join(f'"{name}" = ?' for name in table.keys)
        self.delete = f'DELETE FROM "{table.name}" WHERE {only}'  # noqa: S608


def marked(statement: str) -> str:
    """A statement of all stores with SQLite's marks for its arguments."""
    return statement.replace("%s", "?")


def quoted(names: Iterable[str]) -> str:
    """Names of columns in a row."""
    return ", ".join(f'"{name}"' for name in names)


def select(table: TableOf, joined: str = "") -> str:
    """All columns of a table; `joined` stands before its name."""
    # With the table's name: SQLite would take a quoted name alone for a text, if there is no such column.
    names = ", ".join(f'"{table.name}"."{name}"' for name in table.columns)
    return f'SELECT {names} FROM {joined}"{table.name}"'  # noqa: S608
