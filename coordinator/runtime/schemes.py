"""The schemes that a setting's address may have, of the pattern that its field has."""

import re
from typing import Final

_PATTERN: Final = re.compile(r"\^(?:\(([^()]+)\)|([a-z]+))(?:s\?|\(\\\+srv\)\?)?://")
_DRIVERS: Final = {
    "postgresql": ("asyncpg", "pg8000", "psycopg", "psycopg2", "psycopg_async"),
    "mysql": ("aiomysql", "asyncmy", "mysqlconnector", "mysqldb", "pymysql"),
    "mariadb": ("aiomysql", "asyncmy", "mariadbconnector", "mysqlconnector", "mysqldb", "pymysql"),
    "sqlite": ("aiosqlite", "pysqlite"),
}
"""Which an address of SQLAlchemy names behind its kind of database; here nobody chooses one."""
_SERVER: Final = "postgresql://"
"""An address that may be of it, and may be of no file, is one for readers."""
OWN_WORDS: Final = {"postgres": "postgresql"} | {
    f"{kind}+{driver}": kind for kind, drivers in _DRIVERS.items() for driver in drivers
}
"""What others call some schemes, and what they are called here."""


def schemes_of(pattern: str) -> tuple[str, ...]:
    """`^amqps?://` has `amqp://` and `amqps://`; empty: the pattern is none of an address."""
    alternatives = _PATTERN.fullmatch(pattern)
    if alternatives is None:
        return ()
    listed, one = alternatives.groups()
    names = listed.replace("\\", "").split("|") if listed else [one, f"{one}s"] if "s?" in pattern else [one]
    return tuple(f"{name}://" for name in names)


def begins_wrongly(schemes: tuple[str, ...], value: str) -> str:
    """What is wrong with an address that has none of these schemes, and what to write in the place of its own."""
    *others, last = schemes
    named = f"{', '.join(others)} or {last}" if others else last
    scheme = value.partition("://")[0]
    own = OWN_WORDS.get(scheme)
    hint = f": write {own}://" if own is not None and f"{own}://" in schemes else ""
    if (own or scheme) == "sqlite" and _SERVER in schemes and "sqlite://" not in schemes:
        hint = ": leave this unset for a file, which is read by its DATABASE_URL"
    return f"it must begin with {named}{hint}"
