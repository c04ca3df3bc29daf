"""Tables of MySQL and MariaDB whose rows are on another server, which may be this one: of the engine FEDERATED.

Each has what it needs to log in there. So whoever may write it writes as another account.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from coordinator.stores.writers import Writer, Writers

_TABLES: Final = text(
    "SELECT table_schema, table_name, engine FROM information_schema.tables "
    "WHERE engine IN ('FEDERATED', 'SPIDER', 'CONNECT') ORDER BY 1, 2"
)
_SERVERS: Final = text("SELECT server_name, host, db, username FROM mysql.servers")
_CONNECTION: Final = re.compile(r"\bCONNECTION='((?:[^'\\]|''|\\.)*+)'", re.DOTALL)
_ADDRESS: Final = re.compile(r"\w+://(?P<user>[^:@/]*)(?::.*)?@(?P<host>[^/@]*)/(?P<database>[^/]+)/(?P<table>[^/]+)")
_HIDDEN: Final = "Tables of which this cannot tell whether their rows are the lane's: {}."


class _Destination(NamedTuple):
    user: str
    host: str
    database: str
    table: str


def loopbacks(connection: Connection, here: str, names: Mapping[str, tuple[str, ...]]) -> Writers:
    """Those that this account may see. `names` has the lane's tables, and views by which these are written.

    What the engines SPIDER and CONNECT do, and a table that is not shown whole, is for somebody to judge.
    """
    found: list[Writer] = []
    hidden: list[str] = []
    tables = connection.execute(_TABLES).all()
    servers = _servers(connection) if tables else {}
    for schema, name, engine in tables:
        place = _destination_of(_made(connection, schema, name), name, servers) if engine == "FEDERATED" else None
        if place is None:
            hidden.append(f"{schema}.{name} ({engine})")
        else:
            found += _leading_here(f"{schema}.{name}", place, here, names)
    return Writers(tuple(found), (_HIDDEN.format(", ".join(hidden)),) if hidden else ())


def _servers(connection: Connection) -> dict[str, _Destination]:
    """Those that tables name; none where this account may not read them."""
    try:
        rows = connection.execute(_SERVERS).all()
    except DBAPIError:
        return {}
    return {name: _Destination(user, host, database, "") for name, host, database, user in rows}


def _made(connection: Connection, schema: str, name: str) -> str:
    """The statement that makes a table; empty: it is not shown."""
    shown = "SHOW CREATE TABLE " + ".".join("`" + part.replace("`", "``") + "`" for part in (schema, name))
    try:
        # Without a savepoint, which these engines have not. A statement that fails ends no transaction here.
        row = connection.exec_driver_sql(shown, execution_options={"no_parameters": True}).one()
    except DBAPIError:
        # The other server may be away, too: some engines ask it.
        return ""
    return str(row[1])


def _destination_of(made: str, own_name: str, servers: Mapping[str, _Destination]) -> _Destination | None:
    """Where a FEDERATED table leads; None: nobody can tell."""
    found = _CONNECTION.search(made)
    if found is None:
        return None
    to = found.group(1).replace("''", "'")
    if (address := _ADDRESS.fullmatch(to)) is not None:
        return _Destination(**address.groupdict())
    server, _, table = to.partition("/")
    return servers[server]._replace(table=table or own_name) if server in servers else None


def _leading_here(name: str, place: _Destination, here: str, names: Mapping[str, tuple[str, ...]]) -> Iterator[Writer]:
    # Which host leads back here nobody knows: what leads to a database of this name counts, wherever it is.
    if place.database == here and place.table in names:
        does = f"whoever may write it writes as {place.user}, at {place.host} in a database called {here}"
        yield Writer(kind="foreign table", name=name, does=does, tables=names[place.table])
