"""What else can write a lane's tables on MySQL and MariaDB.

Only a role that may read the server's own tables (`mysql.*`) sees the rights of others, and only one with PROCESS their
connections.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError

from coordinator.stores.mysql.account import GRANTEE, is_role, user_of
from coordinator.stores.mysql.global_rights import global_rights
from coordinator.stores.mysql.loopbacks import loopbacks
from coordinator.stores.mysql.views import View, views_upon
from coordinator.stores.writers import Writer, Writers, WritersQuery, gathered, naming

RIGHTS: Final = ("INSERT", "UPDATE", "DELETE", "DROP", "ALTER", "INDEX", "TRIGGER")
"""INDEX, since it takes a table's key away, by which there is one of each row; TRIGGER, since a trigger runs with its
definer's rights within the lane's transactions.
"""


def _of_tables(statement: str) -> TextClause:
    return text(statement).bindparams(bindparam("tables", expanding=True), bindparam("rights", expanding=True))


# A grant's name of a database is a pattern.
_OF_THE_DATABASE: Final = text(
    "SELECT grantee, privilege_type, NULL FROM information_schema.schema_privileges "
    "WHERE DATABASE() LIKE table_schema AND privilege_type IN :rights"
).bindparams(bindparam("rights", expanding=True))
_OF_TABLES: Final = _of_tables(
    "SELECT grantee, privilege_type, table_name FROM information_schema.table_privileges "
    "WHERE table_schema = DATABASE() AND table_name IN :tables AND privilege_type IN :rights"
)
_OF_COLUMNS: Final = _of_tables(
    "SELECT grantee, privilege_type, table_name FROM information_schema.column_privileges "
    "WHERE table_schema = DATABASE() AND table_name IN :tables AND privilege_type IN :rights"
)
_OTHERS_ARE_SHOWN: Final = (
    text("SELECT 1 FROM mysql.db LIMIT 1"),
    # A right on that table alone does not make the server show them. Each has accounts of its own.
    text(f"SELECT 1 FROM information_schema.user_privileges WHERE grantee <> {GRANTEE} LIMIT 1"),  # noqa: S608
)
_SESSIONS: Final = text(
    "SELECT user, COUNT(*) FROM information_schema.processlist "
    "WHERE db = DATABASE() AND id <> CONNECTION_ID() GROUP BY user"
)
_MAY_SEE_SESSIONS: Final = text(
    f"SELECT 1 FROM information_schema.user_privileges WHERE grantee = {GRANTEE} "  # noqa: S608  # a constant of ours
    "AND privilege_type IN ('PROCESS', 'SUPER')"
)
_TRIGGERS: Final = text(
    "SELECT trigger_name, event_object_table, action_timing, event_manipulation FROM information_schema.triggers "
    "WHERE event_object_schema = DATABASE() AND event_object_table IN :tables ORDER BY 2, 1"
).bindparams(bindparam("tables", expanding=True))
_FOREIGN_KEYS: Final = text(
    "SELECT constraint_name, table_name, referenced_table_name, delete_rule, update_rule "
    "FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE() AND table_name IN :tables "
    "AND (delete_rule NOT IN ('NO ACTION', 'RESTRICT') OR update_rule NOT IN ('NO ACTION', 'RESTRICT')) ORDER BY 2, 1"
).bindparams(bindparam("tables", expanding=True))
_EVENTS: Final = text(
    "SELECT event_name, event_definition FROM information_schema.events "
    "WHERE event_schema = DATABASE() AND status = 'ENABLED' ORDER BY 1"
)
_ROUTINES: Final = text(
    "SELECT routine_name, routine_definition FROM information_schema.routines "
    "WHERE routine_schema = DATABASE() AND routine_definition IS NOT NULL ORDER BY 1"
)
_OTHER_TRIGGERS: Final = text(
    "SELECT trigger_name, action_statement FROM information_schema.triggers "
    "WHERE event_object_schema = DATABASE() AND event_object_table NOT IN :tables ORDER BY 1"
).bindparams(bindparam("tables", expanding=True))
# What stands in another database writes with its definer's rights, whoever may use it there.
_ELSEWHERE: Final = text("""
    SELECT 'routine', routine_schema, routine_name, routine_definition FROM information_schema.routines
        WHERE routine_schema <> DATABASE()
    UNION ALL SELECT 'event', event_schema, event_name, event_definition FROM information_schema.events
        WHERE event_schema <> DATABASE() AND status = 'ENABLED'
    UNION ALL SELECT 'trigger', trigger_schema, trigger_name, action_statement FROM information_schema.triggers
        WHERE trigger_schema <> DATABASE()
    ORDER BY 1, 2, 3
""")
_OF_DEFINERS: Final = text(
    "SELECT routine_schema, routine_name, definer, routine_definition FROM information_schema.routines "
    "WHERE security_type = 'DEFINER' AND routine_schema NOT IN ('mysql', 'sys') ORDER BY 1, 2"
)
_MAKES_STATEMENTS: Final = re.compile(r"\b(PREPARE|EXECUTE\s+IMMEDIATE|EXECUTE_PREPARED_STMT)\b", re.IGNORECASE)
"""The last is a procedure of the server's own."""
_SEES_ELSEWHERE: Final = ("SELECT", "SHOW VIEW", "EVENT", "TRIGGER")
_MAY_SEE_ELSEWHERE: Final = text(
    f"SELECT COUNT(*) FROM information_schema.user_privileges WHERE grantee = {GRANTEE} "  # noqa: S608
    "AND privilege_type IN :rights"
).bindparams(bindparam("rights", expanding=True))


def writers(connection: Connection, query: WritersQuery) -> Writers:
    """The lane's role is shown with all of its connections."""
    tables, role = query.tables, query.role or ""
    views = views_upon(connection, tables)
    names: dict[str, tuple[str, ...]] = {table: (table,) for table in tables}
    names |= {name: roots for (schema, name), roots in views.items() if schema == query.database}
    given = {"tables": list(tables)}
    unseen: list[str] = []
    sessions = {str(user): int(count) for user, count in connection.execute(_SESSIONS)}
    if connection.execute(_MAY_SEE_SESSIONS).first() is None:
        unseen.append("Connections of other accounts are not shown to this one: it lacks PROCESS.")
        sessions = {user: count for user, count in sessions.items() if user == role}
    is_shown_others = sees_others(connection)
    if not is_shown_others:
        unseen.append("Rights of other accounts are not shown to this one: it may not read mysql.*.")
    if int(connection.execute(_MAY_SEE_ELSEWHERE, {"rights": _SEES_ELSEWHERE}).scalar_one()) < len(_SEES_ELSEWHERE):
        lacked = f"it may not {', '.join(_SEES_ELSEWHERE)} on all of them"
        unseen.append(
            f"Views, routines, events and triggers of other databases may be hidden from this account: {lacked}."
        )
    everywhere = [
        (each.grantee, each.right, None)
        for each in global_rights(connection, with_roles=is_shown_others)
        if each.right in RIGHTS
    ]
    found = list(_roles(connection, tables, role, sessions, everywhere))
    for name, table, timing, event in connection.execute(_TRIGGERS, given):
        found.append(Writer(kind="trigger", name=name, does=f"{timing} {event}", tables=(table,)))
    for name, table, other, on_delete, on_update in connection.execute(_FOREIGN_KEYS, given):
        does = ", ".join(
            f"ON {event} {action}"
            for event, action in (("DELETE", on_delete), ("UPDATE", on_update))
            if action not in ("NO ACTION", "RESTRICT")
        )
        found.append(Writer(kind="foreign key", name=name, does=f"{does} of {other}", tables=(table,)))
    for name, body in connection.execute(_EVENTS):
        found += _naming(Writer(kind="event", name=name, does="its text names the table", tables=()), body, names)
    for name, body in connection.execute(_ROUTINES):
        found += _naming(Writer(kind="routine", name=name, does="its text names the table", tables=()), body, names)
    for name, body in connection.execute(_OTHER_TRIGGERS, given):
        writer = Writer(kind="trigger", name=name, does="of another table: its text names this one", tables=())
        found += _naming(writer, body, names)
    found += _elsewhere(connection, query.database, views, names)
    leading_back = loopbacks(connection, query.database, names)
    found += leading_back.found
    found += _namesakes(found, role)
    named = {each.name for each in found if each.kind == "routine"}
    found += [each for each in _making_statements(connection, query) if each.name not in named]
    return Writers(gathered(found), (*unseen, *leading_back.unseen))


def _namesakes(found: Sequence[Writer], role: str) -> list[Writer]:
    """Accounts of the lane's name at several hosts. Each has a password of its own, and which one the lane uses no
    address says: so the rights of all of them stay."""
    same = [each for each in found if each.kind == "role" and user_of(each.name) == role and not is_role(each.name)]
    does = "one of several with the name of the lane's role, each with a password of its own: keep one"
    are_several = len({each.name for each in same}) > 1
    return [Writer(kind="account", name=each.name, does=does, tables=each.tables) for each in same if are_several]


def _elsewhere(
    connection: Connection,
    here: str,
    views: Mapping[View, tuple[str, ...]],
    names: Mapping[str, tuple[str, ...]],
) -> Iterator[Writer]:
    for (schema, name), roots in views.items():
        if schema != here:
            does = f"of the database {schema}: it is made of the table"
            yield Writer(kind="view", name=f"{schema}.{name}", does=does, tables=roots)
    for kind, schema, name, body in connection.execute(_ELSEWHERE):
        does = f"of the database {schema}: its text names the table"
        yield from _naming(Writer(kind=kind, name=f"{schema}.{name}", does=does, tables=()), body or "", names, here)


def _making_statements(connection: Connection, query: WritersQuery) -> Iterator[Writer]:
    """Routines that write what their texts need not name."""
    for schema, name, definer, body in connection.execute(_OF_DEFINERS):
        if _MAKES_STATEMENTS.search(body or "") is not None:
            whole = name if schema == query.database else f"{schema}.{name}"
            does = f"runs as {definer}, and makes statements: its text names none of them"
            yield Writer(kind="routine", name=whole, does=does, tables=query.tables)


def _naming(
    writer: Writer, body: str, names: Mapping[str, tuple[str, ...]], database: str | None = None
) -> Iterator[Writer]:
    """A writer by what its text names: tables, or views by which they are written."""
    for each in naming(writer, body, names, database):
        yield msgspec.structs.replace(each, tables=names[each.tables[0]])


def _roles(
    connection: Connection,
    tables: Sequence[str],
    role: str,
    sessions: dict[str, int],
    everywhere: Sequence[tuple[str, str, str | None]],
) -> Iterator[Writer]:
    given = {"tables": list(tables), "rights": list(RIGHTS)}
    rights: dict[tuple[str, str], set[str]] = {}
    queries = (_OF_THE_DATABASE, _OF_TABLES, _OF_COLUMNS)
    narrower = (row for query in queries for row in connection.execute(query, given))
    for grantee, right, table in (*everywhere, *narrower):
        for each in tables if table is None else [table]:
            rights.setdefault((str(grantee), each), set()).add(str(right))
    for (grantee, table), names in sorted(rights.items()):
        user = user_of(grantee)
        note = "the lane's own role, with the lane's connections: " if user == role else ""
        shown = ", ".join(name for name in RIGHTS if name in names)
        yield Writer(kind="role", name=grantee, does=f"{note}{shown}", tables=(table,), connections=sessions.get(user))


def sees_others(connection: Connection) -> bool:
    """Whether this account is shown the rights of others."""
    try:
        with connection.begin_nested():
            *_, shown = [connection.execute(each).first() for each in _OTHERS_ARE_SHOWN]
    except DBAPIError:
        return False
    return shown is not None
