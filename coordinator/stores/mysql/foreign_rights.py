"""What lets others write a lane's tables on MySQL and MariaDB, and how its owner ends it.

Only an account that may read the server's own tables (`mysql.*`) sees the rights of others.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight, ForeignRights, listed, together
from coordinator.stores.mysql.account import USER, account_of, is_role, user_of
from coordinator.stores.mysql.global_rights import global_rights
from coordinator.stores.mysql.memberships import Membership, memberships, reached_from, system_tables
from coordinator.stores.mysql.views import views_upon
from coordinator.stores.mysql.writers import RIGHTS, sees_others
from coordinator.stores.writers import WritersQuery

_UNSEEN: Final = (
    "the rights of other accounts are not shown to this one: it may not read mysql.*. Name one that may as "
    "MIGRATION_URL, with the rights to revoke theirs"
)
_ADMINISTRATORS: Final = (
    *("SUPER", "CREATE USER", "ROLE_ADMIN"),
    # By a routine of its own that runs as another account: of MariaDB, and of MySQL before 8.2 and since.
    *("SET USER", "SET_USER_ID", "SET_ANY_DEFINER"),
    # By BINLOG, which looks at no right on a table.
    *("BINLOG REPLAY", "BINLOG_ADMIN", "REPLICATION_APPLIER"),
    # By `init_connect`, which each session runs with its own rights: of MariaDB, and of MySQL.
    *("CONNECTION ADMIN", "SYSTEM_VARIABLES_ADMIN"),
    # By another server, whose changes are taken over, or whose data take the place of all that is here.
    *("REPLICATION SLAVE ADMIN", "REPLICATION_SLAVE_ADMIN", "GROUP_REPLICATION_ADMIN", "CLONE_ADMIN"),
)
"""With any of these an account may give itself any right, log in or act as another one, or write past all rights."""
_WRITES_FILES: Final = "FILE"
"""Where nothing confines it to a folder: a trigger, or settings of the server, are files beside its data."""
_OF_THE_SERVER: Final = (
    *("user", "global_priv", "db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "global_grants"),
    *("roles_mapping", "role_edges", "default_roles", "proc", "event", "func", "plugin", "component", "servers"),
)
"""The tables of `mysql` in which rights stand, and what runs as somebody."""
_MAKES_RIGHTS: Final = ("INSERT", "UPDATE")

# None stands for no limit on MariaDB, and for no files at all on MySQL.
_UNCONFINED: Final = text("SELECT @@secure_file_priv, @@datadir")
_MANDATORY: Final = text("SELECT @@GLOBAL.mandatory_roles")
_MANDATORY_ROLE: Final = re.compile(
    r"""(?:`((?:[^`]++|``)*+)`|'([^']*+)'|"([^"]*+)"|([^@,\s`'"]++))(?:@(?:`[^`]*+`|'[^']*+'|"[^"]*+"|[^,\s]*+))?"""
)
_USER: Final = text(f"SELECT {USER}")  # a constant of ours
_HERE: Final = text("SELECT DATABASE()")
# A grant's name of a database is a pattern.
_OF_DATABASES: Final = text(
    "SELECT grantee, table_schema, privilege_type FROM information_schema.schema_privileges "
    "WHERE DATABASE() LIKE table_schema AND privilege_type IN :rights"
).bindparams(bindparam("rights", expanding=True))
_OF_TABLES: Final = text(
    "SELECT grantee, table_name, privilege_type, NULL FROM information_schema.table_privileges "
    "WHERE table_schema = DATABASE() AND table_name IN :tables AND privilege_type IN :rights "
    "UNION ALL SELECT grantee, table_name, privilege_type, column_name FROM information_schema.column_privileges "
    "WHERE table_schema = DATABASE() AND table_name IN :tables AND privilege_type IN :rights"
).bindparams(bindparam("tables", expanding=True), bindparam("rights", expanding=True))
_OF_SERVERS_TABLES: Final = text(
    "SELECT grantee, table_schema, '', privilege_type FROM information_schema.schema_privileges "
    "WHERE 'mysql' LIKE table_schema AND NOT DATABASE() LIKE table_schema AND privilege_type IN :rights "
    "UNION SELECT grantee, 'mysql', table_name, privilege_type FROM information_schema.table_privileges "
    "WHERE table_schema = 'mysql' AND table_name IN :names AND privilege_type IN :rights "
    "UNION SELECT grantee, 'mysql', table_name, privilege_type FROM information_schema.column_privileges "
    "WHERE table_schema = 'mysql' AND table_name IN :names AND privilege_type IN :rights ORDER BY 1, 2, 3, 4"
).bindparams(bindparam("names", expanding=True), bindparam("rights", expanding=True))
_OTHERS: Final = text(
    "SELECT table_name FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_type <> 'VIEW' AND table_name NOT IN :tables LIMIT 1"
).bindparams(bindparam("tables", expanding=True))
_MATCHED: Final = text("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE :pattern")
# An empty name stands for every account. A server's first accounts leave such a row behind when they are dropped.
_PROXIES: Final = text(
    "SELECT user, host, proxied_user, proxied_host FROM mysql.proxies_priv AS proxies "
    "WHERE proxied_user <> '' OR EXISTS (SELECT 1 FROM mysql.user AS known "
    "WHERE known.user = proxies.user AND known.host = proxies.host) ORDER BY 1, 2, 3, 4"
)


def foreign_rights(connection: Connection, query: WritersQuery) -> ForeignRights:
    """The lane's and the looking account's rights are theirs at every host."""
    if not sees_others(connection):
        return ForeignRights((), _UNSEEN)
    looking = str(connection.execute(_USER).scalar_one())
    here = str(connection.execute(_HERE).scalar_one())
    kept = {looking, query.role or looking}
    held = memberships(connection)
    has_roles = "roles_mapping" in system_tables(connection)
    # Whoever makes a role on MariaDB has it.
    given = [each for each in held if each.is_admin != "Y"]
    needed = reached_from(held, query.role or looking) | reached_from(given, looking)
    needed |= {each.of_user for each in given if each.user == each.of_user}
    everywhere = _everywhere(connection, query.tables)
    administrators = {right.who for right in everywhere if right.is_administrators}
    rights = [*everywhere, *_of_database(connection, query.tables), *_of_tables(connection, here, query.tables)]
    rights += _of_servers_tables(connection, query.tables)
    found = [
        _kept_for(right, needed)
        for right in rights
        if (user_of(right.who) not in kept or (has_roles and is_role(right.who)))
        and (right.is_administrators or right.who not in administrators)
    ]
    found += _members(held, kept, query.tables)
    if "role_edges" in system_tables(connection):
        found += _mandatory(connection, kept, query.tables)
    if "proxies_priv" in system_tables(connection):
        proxies = _proxies(connection, kept, query.tables)
        found += [right for right in proxies if right.who not in map(account_of, administrators)]
    return ForeignRights(together(found))


def _kept_for(right: ForeignRight, needed: set[str]) -> ForeignRight:
    if user_of(right.who) not in needed or right.is_administrators:
        return right
    why = "the lane, or whoever migrates it, has this role: give them their rights themselves, and take it from them"
    return ForeignRight(who=right.who, does=right.does, tables=right.tables, why=why)


def _everywhere(connection: Connection, tables: tuple[str, ...]) -> list[ForeignRight]:
    rights: dict[str, set[str]] = {}
    powers: dict[str, set[str]] = {}
    writes_files: set[str] = set()
    for each in global_rights(connection, with_roles=True):
        if each.right in RIGHTS:
            rights.setdefault(each.grantee, set()).add(each.right)
        if each.right == _WRITES_FILES:
            writes_files.add(each.grantee)
        if each.right in _ADMINISTRATORS:
            powers.setdefault(each.grantee, set()).add(each.right)
        if each.is_grantable and each.right in RIGHTS:
            powers.setdefault(each.grantee, set()).add("GRANT OPTION on all databases")
    found: list[ForeignRight] = []
    for who, names in sorted(powers.items()):
        does, why = ", ".join(sorted(names)), "nothing that is revoked keeps it out"
        found.append(ForeignRight(who=who, does=does, tables=tables, why=why, is_administrators=True))
    if writes_files and _writes_anywhere(connection):
        found += [_of_files(who, tables) for who in sorted(writes_files)]
    for who, names in sorted(rights.items()):
        shown = listed(names, RIGHTS)
        found.append(
            ForeignRight(
                who=who,
                does=f"{shown} on all databases",
                tables=tables,
                statements=(f"REVOKE {shown} ON *.* FROM {account_of(who)}",),
                why="it ends them on every database of the server",
                is_wide=True,
            )
        )
    return found


def _of_files(who: str, tables: tuple[str, ...]) -> ForeignRight:
    return ForeignRight(
        who=who,
        does="FILE: writes files beside the server's data, by which it may do anything",
        tables=tables,
        statements=(f"REVOKE FILE ON *.* FROM {account_of(who)}",),
        why="it ends that it reads and writes the server's files (secure_file_priv confines it, too)",
        is_wide=True,
    )


def _writes_anywhere(connection: Connection) -> bool:
    """Whether files may be written beside the server's data."""
    confined_to, data = connection.execute(_UNCONFINED).one()
    if confined_to is None:
        return "roles_mapping" in system_tables(connection)
    return str(data).startswith(str(confined_to))


def _of_database(connection: Connection, tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """A right on the whole database is one on the lane's tables where it has no others."""
    rights: dict[tuple[str, str], set[str]] = {}
    for grantee, pattern, right in connection.execute(_OF_DATABASES, {"rights": list(RIGHTS)}):
        rights.setdefault((str(grantee), str(pattern)), set()).add(right)
    other = connection.execute(_OTHERS, {"tables": list(tables)}).scalar() if rights else None
    for (grantee, pattern), names in sorted(rights.items()):
        shown = listed(names, RIGHTS)
        databases = len(connection.execute(_MATCHED, {"pattern": pattern}).all())
        why = None
        if databases > 1:
            why = f"it ends them on {databases} databases"
        elif other is not None:
            why = f"it ends them on the database's other tables, too, such as {other}"
        yield ForeignRight(
            who=grantee,
            does=f"{shown} on {pattern}.*",
            tables=tables,
            statements=(f"REVOKE {shown} ON {_quoted(pattern)}.* FROM {account_of(grantee)}",),
            why=why,
            is_wide=why is not None,
        )


def _of_servers_tables(connection: Connection, tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """Rights to write the server's own tables, by which an account may give itself any other."""
    given = {"names": list(_OF_THE_SERVER), "rights": list(_MAKES_RIGHTS)}
    rights: dict[tuple[str, str, str], set[str]] = {}
    for grantee, schema, table, right in connection.execute(_OF_SERVERS_TABLES, given):
        rights.setdefault((str(grantee), str(schema), str(table)), set()).add(str(right))
    for (grantee, schema, table), names in rights.items():
        shown = listed(names, _MAKES_RIGHTS)
        place = f"{_quoted(schema)}.{_quoted(table) if table else '*'}"
        yield ForeignRight(
            who=grantee,
            does=f"{shown} on {schema}.{table or '*'}, where all rights stand",
            tables=tables,
            statements=(f"REVOKE {shown} ON {place} FROM {account_of(grantee)}",),
            why="it ends them on tables of the server's own",
            is_wide=True,
        )


def _of_tables(connection: Connection, here: str, tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """Rights on tables, on their columns, and on views that write them with their definer's rights."""
    reached: dict[str, tuple[str, ...]] = {table: (table,) for table in tables}
    reached |= {name: roots for (schema, name), roots in views_upon(connection, tables).items() if schema == here}
    given = {"tables": list(reached), "rights": list(RIGHTS)}
    whole: dict[tuple[str, str], set[str]] = {}
    columns: dict[tuple[str, str], dict[str, set[str]]] = {}
    for grantee, table, right, column in connection.execute(_OF_TABLES, given):
        key = (str(grantee), str(table))
        whole.setdefault(key, set())
        if column is None:
            whole[key].add(right)
        else:
            columns.setdefault(key, {}).setdefault(right, set()).add(str(column))
    for (grantee, table), names in sorted(whole.items()):
        name = f"{_quoted(here)}.{_quoted(table)}"
        of_columns = columns.get((grantee, table), {})
        shown: list[str] = [right for right in RIGHTS if right in names]
        statements = [f"REVOKE {', '.join(shown)} ON {name} FROM {account_of(grantee)}"] if shown else []
        if of_columns:
            parts = [f"{right} ({', '.join(map(_quoted, sorted(of)))})" for right, of in sorted(of_columns.items())]
            statements.insert(0, f"REVOKE {', '.join(parts)} ON {name} FROM {account_of(grantee)}")
            shown += [f"{right} of columns" for right in sorted(of_columns)]
        is_view = table not in tables
        does = ", ".join(shown) + (f" by the view {table}" if is_view else "")
        why = f"other tables may be written by the view {table}, too" if is_view else None
        yield ForeignRight(
            who=grantee, does=does, tables=reached[table], statements=tuple(statements), why=why, is_wide=is_view
        )


def _members(known: Sequence[Membership], kept: set[str], tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """On MySQL an account may be another one's role."""
    for each in known:
        if each.of_user in kept and each.of_host and each.user not in kept:
            held, member = each.role, each.account
            yield ForeignRight(
                who=member,
                does=f"has the role {held}",
                tables=tables,
                statements=(f"REVOKE {held} FROM {member}",),
                why=f"it ends all that {member} may as {held}",
                is_wide=True,
            )


def _mandatory(connection: Connection, kept: set[str], tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """On MySQL every account may be told to have a role."""
    named = str(connection.execute(_MANDATORY).scalar() or "")
    for parts in _MANDATORY_ROLE.findall(named):
        role = next(filter(None, parts), "").replace("``", "`")
        if role in kept:
            yield ForeignRight(
                who="every account",
                does=f"has the role {role}, which mandatory_roles names",
                tables=tables,
                why=f"SET PERSIST mandatory_roles to others than {role}",
            )


def _proxies(connection: Connection, kept: set[str], tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    for user, host, of_user, of_host in connection.execute(_PROXIES):
        if (of_user in kept or not of_user) and user not in kept:
            held, member = _account(of_user, of_host) if of_user else "''@''", _account(user, host)
            yield ForeignRight(
                who=member,
                does=f"may log in as {held if of_user else 'every account'} (PROXY)",
                tables=tables,
                why=f"only who may give it may take it, mostly root: REVOKE PROXY ON {held} FROM {member}",
            )


def _account(user: str, host: str) -> str:
    return account_of(f"'{user}'@'{host}'")


def _quoted(name: str) -> str:
    return "`" + re.sub("`", "``", name) + "`"
