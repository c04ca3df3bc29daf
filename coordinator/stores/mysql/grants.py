"""The rights of the accounts of a lane and of its readers, as statements: for `coordinator migrate`, and for people."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

READERS_PART: Final = (3, 4)
"""Of a server's connections, as many may be a reader's."""
READERS_DEFAULT: Final = 113
"""That of the 151 which a server has where nobody says otherwise."""

_MAY_NOT_GRANT: Final = "it may not pass its own rights on, which takes WITH GRANT OPTION"
_REFUSED: Final = {
    1044: _MAY_NOT_GRANT,
    1142: _MAY_NOT_GRANT,
    1227: "it may not make accounts, which takes CREATE USER",
}
"""By the number of an error."""


@contextmanager
def naming_what_the_owner_lacks(connection: Connection, database: str) -> Iterator[None]:
    """Around giving an account its rights: a refusal says, beside the server's words, which right is missing."""
    try:
        yield
    except DBAPIError as error:
        refused = _REFUSED.get(error.orig.args[0]) if error.orig is not None and error.orig.args else None
        if error.orig is not None and refused is not None:
            user, _, host = str(connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one()).rpartition("@")
            owner = account(user, host)
            every = f"GRANT ALL PRIVILEGES ON {pattern(database)}.* TO {owner} WITH GRANT OPTION"
            hint = f"{refused}. As an administrator: GRANT CREATE USER ON *.* TO {owner}; {every}"
            error.orig.args = (*error.orig.args, hint)
        raise


def readers_max(connection: Connection) -> int:
    """Not all of the server's connections: the lane needs one, too."""
    return int(connection.execute(text("SELECT @@max_connections")).scalar_one()) * READERS_PART[0] // READERS_PART[1]


def account(name: str, host: str = "%") -> str:
    """An account as it stands in a statement, of whatever host where none is named."""
    escaped = name.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'@'{host}'"


def grant(user: str, database: str) -> str:
    """What lets an account read and write every table of a database."""
    return f"GRANT SELECT, INSERT, UPDATE, DELETE ON {pattern(database)}.* TO {account(user)}"


def reading(user: str, database: str, table: str) -> str:
    """What lets an account read a table, which is there."""
    return f"GRANT SELECT ON {_table(database, table)} TO {account(user)}"


def not_reading(user: str, database: str, table: str) -> str:
    """What takes that back, and fails where it is not given."""
    return f"REVOKE SELECT ON {_table(database, table)} FROM {account(user)}"  # noqa: S608  # no query


def no_longer(right: str, user: str, database: str) -> str:
    """What takes a right on all tables of a database from an account, and fails where it has none on all of them."""
    return f"REVOKE {right} ON {pattern(database)}.* FROM {account(user)}"


def _table(database: str, table: str) -> str:
    """With a table, a database is no pattern."""
    return ".".join(f"`{name.replace('`', '``')}`" for name in (database, table))


def pattern(database: str) -> str:
    """A database as a GRANT takes it, where _ and % stand for other characters, and \\ takes that from the next one."""
    escaped = re.sub(r"([_%\\])", r"\\\1", database)
    return f"`{escaped.replace('`', '``')}`"
