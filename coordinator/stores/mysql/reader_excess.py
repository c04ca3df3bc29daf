"""What a lane's reader may beyond what gateways need on MySQL and MariaDB, and what ends it.

Only an account that may read the server's own tables (`mysql.*`) sees the rights of others.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight, together
from coordinator.stores.mysql.account import account_of, user_of
from coordinator.stores.mysql.global_rights import global_rights
from coordinator.stores.mysql.grants import account, not_reading, readers_max
from coordinator.stores.mysql.memberships import Membership, memberships, reached_from
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery

# A grant's name of a database is a pattern.
_OF_DATABASES: Final = text(
    "SELECT grantee, table_schema, privilege_type FROM information_schema.schema_privileges "
    "WHERE DATABASE() LIKE table_schema"
)
_OF_TABLES: Final = text(
    "SELECT DISTINCT grantee, table_name, '' FROM information_schema.table_privileges "
    "WHERE table_schema = DATABASE() AND table_name IN :tables AND privilege_type = 'SELECT' "
    "UNION SELECT grantee, table_name, column_name FROM information_schema.column_privileges "
    "WHERE table_schema = DATABASE() AND table_name IN :tables AND privilege_type = 'SELECT' ORDER BY 1, 2, 3"
).bindparams(bindparam("tables", expanding=True))
_LIMITS: Final = text("SELECT host, max_user_connections FROM mysql.user WHERE user = :role ORDER BY host")


def reader_excess(connection: Connection, query: ReaderQuery) -> ReaderExcess:
    """Raises the driver's errors where the account may not read `mysql.*`."""
    known = memberships(connection)
    hosts: dict[str, int] = {str(host): int(most) for host, most in connection.execute(_LIMITS, {"role": query.role})}
    if not hosts:
        why = "`coordinator database-accounts --apply` makes it"
        return (ForeignRight(who=query.role, does="there is no such account", tables=(), why=why),)
    held = {query.role, *reached_from(known, query.role)}
    found = [*_everywhere(connection, query, held), *_of_database(connection, query, held)]
    found += _of_tables(connection, query, held)
    own = [each for each in known if each.user == query.role]
    found = [each for right in found for each in _by_role(right, query, own, known)]
    most = readers_max(connection)
    for host, limit in sorted(hosts.items()):
        if not 0 < limit <= most:
            who = account_of(f"'{query.role}'@'{host}'")
            statement = f"ALTER USER {who} WITH MAX_USER_CONNECTIONS {most}"
            does = "may have more than three quarters of the server's connections"
            found.append(ForeignRight(who=who, does=does, tables=(), statements=(statement,)))
    return together(found)


def _everywhere(connection: Connection, query: ReaderQuery, held: set[str]) -> Iterator[ForeignRight]:
    rights: dict[str, list[str]] = {}
    for each in global_rights(connection, with_roles=True):
        if user_of(each.grantee) in held:
            rights.setdefault(each.grantee, []).append(each.right)
    yield from _whole(query, rights, "*.*", "all databases")


def _of_database(connection: Connection, query: ReaderQuery, held: set[str]) -> Iterator[ForeignRight]:
    of_pattern: dict[str, dict[str, list[str]]] = {}
    for grantee, pattern, right in connection.execute(_OF_DATABASES):
        if user_of(str(grantee)) in held:
            of_pattern.setdefault(str(pattern), {}).setdefault(str(grantee), []).append(str(right))
    for pattern, rights in sorted(of_pattern.items()):
        yield from _whole(query, rights, f"`{pattern.replace('`', '``')}`.*", f"{pattern}.*")


def _whole(query: ReaderQuery, rights: Mapping[str, list[str]], place: str, of: str) -> Iterator[ForeignRight]:
    for grantee, names in sorted(rights.items()):
        shown = ", ".join(sorted(names))
        yield ForeignRight(
            who=grantee,
            does=f"{shown} on {of}",
            tables=query.withheld if "SELECT" in names else (),
            statements=(f"REVOKE {shown} ON {place} FROM {account_of(grantee)}",),
            why="it ends them on other tables, too" if "SELECT" in names else None,
            is_wide="SELECT" in names,
        )


def _of_tables(connection: Connection, query: ReaderQuery, held: set[str]) -> Iterator[ForeignRight]:
    for grantee, table, column in connection.execute(_OF_TABLES, {"tables": list(query.withheld)}):
        if user_of(str(grantee)) not in held:
            continue
        whole = not_reading(query.role, query.database, str(table))
        statement = whole.replace(account(query.role), account_of(str(grantee)))
        if column:
            statement = statement.replace("SELECT", f"SELECT (`{str(column).replace('`', '``')}`)", 1)
        does = "SELECT of columns" if column else "SELECT"
        yield ForeignRight(who=str(grantee), does=does, tables=(str(table),), statements=(statement,))


def _by_role(
    right: ForeignRight, query: ReaderQuery, own: Sequence[Membership], known: Sequence[Membership]
) -> Iterator[ForeignRight]:
    """What a role of the reader's may: the role is taken from the reader, and keeps its rights."""
    if user_of(right.who) == query.role:
        yield right
        return
    for each in own:
        if user_of(right.who) not in {each.of_user, *reached_from(known, each.of_user)}:
            continue
        role, member = each.role, each.account
        yield ForeignRight(
            who=member,
            does=f"{right.does}, by the role {user_of(right.who)}",
            tables=right.tables,
            statements=(f"REVOKE {role} FROM {member}",),
            why=f"it ends all that {member} may as {role}",
            is_wide=True,
        )
