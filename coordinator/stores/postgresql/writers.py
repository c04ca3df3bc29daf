"""What else can write a lane's tables on PostgreSQL, as its catalogues have it: every role may read these."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, TextClause, bindparam, text

from coordinator.stores.postgresql.driver_arguments import APPLICATION
from coordinator.stores.postgresql.loopbacks import loopbacks
from coordinator.stores.writers import Writer, Writers, WritersQuery, gathered, naming

# A partition, or a child, has rows of the lane's, and whatever hangs on it alone runs as on the whole.
_FAMILY: Final = """
    WITH RECURSIVE family (oid, root, part) AS (
        SELECT oid, relname::text, NULL::text FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
        UNION SELECT inhrelid, root, inhrelid::regclass::text FROM family JOIN pg_inherits ON inhparent = family.oid
    )
"""


def _of_family(statement: str) -> TextClause:
    return text(_FAMILY + statement).bindparams(bindparam("tables", expanding=True))


# Rights that come by a role of which another is a member, and those of PUBLIC, count: `has_…_privilege` follows both.
_ROLES: Final = text("""
    SELECT role.rolname, role.rolsuper, role.rolname = :lane, role.rolname = current_user, owned.relname,
        pg_get_userbyid(owned.relowner) = role.rolname AS is_owner,
        concat_ws(', ',
            CASE WHEN has_any_column_privilege(role.oid, owned.oid, 'INSERT') THEN 'INSERT' END,
            CASE WHEN has_any_column_privilege(role.oid, owned.oid, 'UPDATE') THEN 'UPDATE' END,
            CASE WHEN has_table_privilege(role.oid, owned.oid, 'DELETE') THEN 'DELETE' END,
            CASE WHEN has_table_privilege(role.oid, owned.oid, 'TRUNCATE') THEN 'TRUNCATE' END
        ),
        (SELECT count(*) FROM pg_stat_activity AS session WHERE session.usesysid = role.oid
            AND session.datname = current_database() AND session.pid <> pg_backend_pid()
            AND NOT (session.application_name = :lanes OR starts_with(session.application_name, :lanes || ' (')
                OR role.rolname IN (:lane, current_user) AND session.application_name = :system))
    FROM pg_roles AS role CROSS JOIN pg_class AS owned
    WHERE owned.relnamespace = quote_ident(current_schema())::regnamespace AND owned.relname IN :tables
        AND (role.rolcanlogin OR role.rolsuper) AND has_database_privilege(role.oid, current_database(), 'CONNECT')
        AND has_schema_privilege(role.oid, owned.relnamespace, 'USAGE')
    ORDER BY role.rolname, owned.relname
""").bindparams(bindparam("tables", expanding=True))
# A partition has a copy of each trigger of the whole.
_TRIGGERS: Final = _of_family("""
    SELECT tgname, root, tgfoid::regproc::text, part FROM pg_trigger JOIN family ON family.oid = tgrelid
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND coalesce(to_jsonb(pg_trigger) ->> 'tgparentid', '0') = '0'
    ORDER BY 2, 4 NULLS FIRST, 1
""")
_FOREIGN_KEYS: Final = _of_family("""
    SELECT conname, root, confrelid::regclass::text, confdeltype::text, confupdtype::text, part
    FROM pg_constraint JOIN family ON family.oid = conrelid
    WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')) AND conparentid = 0
    ORDER BY 2, 6 NULLS FIRST, 1
""")
# What follows a row of the lane's is changed in the lane's transaction, and its table's triggers run there.
_FOLLOWERS: Final = _of_family("""
    SELECT conname, conrelid::regclass::text, pg_get_userbyid(other.relowner), root
    FROM pg_constraint AS own JOIN family ON family.oid = confrelid JOIN pg_class AS other ON other.oid = conrelid
    WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
        AND conrelid NOT IN (SELECT oid FROM family)
        AND NOT EXISTS (SELECT FROM pg_constraint AS whole
            WHERE whole.oid = own.conparentid AND whole.conrelid = own.conrelid) ORDER BY 2, 1
""")
# What a table of the lane's calls runs as the lane, whoever may put another function in its place.
_CALLED: Final = _of_family("""
    SELECT DISTINCT routine.oid::regprocedure::text, pg_get_userbyid(proowner), pg_describe_object(classid, objid, 0),
        root
    FROM (
        SELECT 'pg_constraint'::regclass AS class, oid AS part, conrelid AS relation FROM pg_constraint
        UNION ALL SELECT 'pg_attrdef'::regclass, oid, adrelid FROM pg_attrdef
        UNION ALL SELECT 'pg_class'::regclass, indexrelid, indrelid FROM pg_index
        UNION ALL SELECT 'pg_policy'::regclass, oid, polrelid FROM pg_policy
    ) AS parts JOIN pg_depend ON classid = class AND objid = part AND refclassid = 'pg_proc'::regclass
        JOIN pg_proc AS routine ON routine.oid = refobjid JOIN pg_roles AS owner ON owner.oid = proowner
        JOIN family ON family.oid = relation JOIN pg_class AS owned ON owned.oid = relation
    WHERE NOT rolsuper AND rolname NOT IN (:lane, current_user) AND proowner <> relowner ORDER BY 1, 3
""")
_RULES: Final = text("""
    SELECT rulename, owned.relname FROM pg_rewrite JOIN pg_class AS owned ON owned.oid = ev_class
    WHERE ev_type <> '1'
        AND owned.relnamespace = quote_ident(current_schema())::regnamespace AND owned.relname IN :tables ORDER BY 2, 1
""").bindparams(bindparam("tables", expanding=True))
# The rules of other tables write with the rights of these tables' owners, by themselves, or by views and other rules.
_OTHER_RULES: Final = text("""
    WITH RECURSIVE reached (oid, root, name) AS (
        SELECT oid, oid, relname::text FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
        UNION SELECT ev_class, root, name FROM reached JOIN pg_depend ON refclassid = 'pg_class'::regclass
            AND refobjid = reached.oid AND classid = 'pg_rewrite'::regclass JOIN pg_rewrite ON pg_rewrite.oid = objid
    )
    SELECT DISTINCT rulename, ev_class::regclass::text, pg_get_userbyid(relowner), name
    FROM reached JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = reached.oid
        AND classid = 'pg_rewrite'::regclass JOIN pg_rewrite AS rule ON rule.oid = objid
        JOIN pg_class AS relation ON relation.oid = ev_class
    WHERE ev_type <> '1' AND ev_enabled <> 'D' AND ev_class NOT IN (SELECT root FROM reached)
        AND (has_any_column_privilege(relowner, root, 'INSERT, UPDATE')
            OR has_table_privilege(relowner, root, 'DELETE, TRUNCATE'))
    ORDER BY 2, 1, 4
""").bindparams(bindparam("tables", expanding=True))
_SUBSCRIPTIONS: Final = text("""
    SELECT srsubid::text, owned.relname FROM pg_subscription_rel JOIN pg_class AS owned ON owned.oid = srrelid
    WHERE owned.relnamespace = quote_ident(current_schema())::regnamespace AND owned.relname IN :tables ORDER BY 1, 2
""").bindparams(bindparam("tables", expanding=True))
# Other functions run with the rights of whoever calls them. What an extension has brought is its own affair. Event
# triggers, aggregates, types and classes of operators call theirs for whoever uses them, also where he may not.
_ROUTINES: Final = text("""
    SELECT routine.oid::regprocedure::text, pg_get_userbyid(proowner),
        concat_ws(' and ', callers || ' may call it', uses || ' calls it'), pg_get_functiondef(routine.oid),
        array_agg(owned.relname::text ORDER BY owned.relname)
    FROM pg_proc AS routine CROSS JOIN LATERAL (
        SELECT string_agg(DISTINCT CASE WHEN grantee = 0 THEN 'everybody' ELSE pg_get_userbyid(grantee)::text END, ', ')
            FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
            WHERE grantee <> proowner AND (grantee = 0 OR pg_get_userbyid(grantee) NOT IN (:lane, current_user))
    ) AS called (callers) CROSS JOIN LATERAL (
        SELECT string_agg(DISTINCT pg_describe_object(classid, objid, 0), ', ') FROM pg_depend
            WHERE refclassid = 'pg_proc'::regclass AND refobjid = routine.oid AND classid IN ('pg_proc'::regclass,
                'pg_event_trigger'::regclass, 'pg_amproc'::regclass, 'pg_type'::regclass)
    ) AS used (uses) CROSS JOIN pg_class AS owned
    WHERE prosecdef AND prokind IN ('f', 'p') AND (callers IS NOT NULL OR uses IS NOT NULL)
        AND pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = routine.oid
            AND deptype = 'e')
        AND owned.relnamespace = quote_ident(current_schema())::regnamespace AND owned.relname IN :tables
        AND (has_any_column_privilege(proowner, owned.oid, 'INSERT, UPDATE')
            OR has_table_privilege(proowner, owned.oid, 'DELETE, TRUNCATE'))
    GROUP BY routine.oid, proowner, callers, uses ORDER BY 1
""").bindparams(bindparam("tables", expanding=True))
# What a trigger calls runs with its owner's rights, too, and who fires it needs no right to call it.
_OTHER_TRIGGERS: Final = text("""
    SELECT tgname, tgrelid::regclass::text, routine.oid::regprocedure::text, pg_get_userbyid(proowner),
        pg_get_functiondef(routine.oid), array_agg(owned.relname::text ORDER BY owned.relname)
    FROM pg_trigger JOIN pg_proc AS routine ON routine.oid = tgfoid CROSS JOIN pg_class AS owned
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND prosecdef
        AND owned.relnamespace = quote_ident(current_schema())::regnamespace AND owned.relname IN :tables
        AND tgrelid NOT IN (SELECT oid FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables)
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = routine.oid
            AND deptype = 'e')
        AND (has_any_column_privilege(proowner, owned.oid, 'INSERT, UPDATE')
            OR has_table_privilege(proowner, owned.oid, 'DELETE, TRUNCATE'))
    GROUP BY tgname, tgrelid, routine.oid, proowner ORDER BY 2, 1
""").bindparams(bindparam("tables", expanding=True))
_ACTIONS: Final = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def writers(connection: Connection, query: WritersQuery) -> Writers:
    """The lane's role is shown where it has connections that are neither the lane's own nor of this system's pages,
    gateways and operators' commands, which change rows by commands only."""
    given = {"tables": list(query.tables)}
    found: list[Writer] = []
    known = given | {"lane": query.role, "system": APPLICATION, "lanes": f"lane {query.lane}"}
    for name, is_super, is_lane, is_looking, table, is_owner, rights, connections in connection.execute(_ROLES, known):
        if not rights:
            continue
        if is_lane and connections == 0:
            continue
        note = "the lane's own role, used by others: " if is_lane else "superuser: " if is_super else ""
        owns = " (owner)" if is_owner else ""
        is_shared = connections > 0 and (is_lane or (is_looking and not is_super))
        does = f"{note}{rights}{owns}"
        found.append(
            Writer(kind="role", name=name, does=does, tables=(table,), connections=connections, is_shared=is_shared)
        )
    for name, table, function, part in connection.execute(_TRIGGERS, given):
        found.append(Writer(kind="trigger", name=name, does=f"calls {function}" + _on(part), tables=(table,)))
    for name, table, other, on_delete, on_update, part in connection.execute(_FOREIGN_KEYS, given):
        does = _follows(other, on_delete, on_update) + _on(part)
        found.append(Writer(kind="foreign key", name=name, does=does, tables=(table,)))
    for name, table in connection.execute(_RULES, given):
        found.append(Writer(kind="rule", name=name, does="rewrites statements", tables=(table,)))
    for name, table in connection.execute(_SUBSCRIPTIONS, given):
        found.append(Writer(kind="subscription", name=name, does="replicates rows into it", tables=(table,)))
    roles = given | {"lane": query.role or ""}
    for name, owner, callers, body, written in connection.execute(_ROUTINES, roles):
        writer = Writer(kind="routine", name=name, does=f"runs as {owner}, and {callers}", tables=())
        found += _by_text(writer, body, written)
    found += _within_transactions(connection, roles)
    found += _by_other_tables(connection, given)
    leading_back = loopbacks(connection, query)
    unseen = "Functions that other tables' triggers call as whoever changes these are not looked into."
    return Writers(gathered((*found, *leading_back.found)), (unseen, *leading_back.unseen))


def _within_transactions(connection: Connection, roles: Mapping[str, object]) -> Iterator[Writer]:
    """What of others runs in the lane's transactions, beside triggers."""
    for name, other, owner, table in connection.execute(_FOLLOWERS, {"tables": roles["tables"]}):
        does = f"of {other}, which follows it and is {owner}'s: its triggers run in the lane's transactions"
        yield Writer(kind="foreign key", name=name, does=does, tables=(table,))
    for name, owner, part, table in connection.execute(_CALLED, roles):
        does = f"{owner} may put another in its place, and {part} calls it as the lane"
        yield Writer(kind="routine", name=name, does=does, tables=(table,))


def _by_other_tables(connection: Connection, given: Mapping[str, Sequence[str]]) -> Iterator[Writer]:
    for name, other, owner, table in connection.execute(_OTHER_RULES, given):
        does = f"of {other}: its text names the table, and it writes as {owner}"
        yield Writer(kind="rule", name=name, does=does, tables=(table,))
    for name, other, function, owner, body, written in connection.execute(_OTHER_TRIGGERS, given):
        does = f"of {other}: calls {function}, which runs as {owner}"
        yield from _by_text(Writer(kind="trigger", name=name, does=does, tables=()), body, written)


def _by_text(writer: Writer, body: str, tables: Sequence[str]) -> Iterator[Writer]:
    """A function that runs with its owner's rights, who may write these tables. One whose text names none of them may
    write them all the same, by a text that it makes or another function."""
    named = list(naming(writer, body, tables))
    unnamed = msgspec.structs.replace(writer, does=f"{writer.does}: its text names none of them", tables=tuple(tables))
    yield from named or [unnamed]


def _on(part: str | None) -> str:
    return "" if part is None else f", on {part}, which has rows of it"


def _follows(other: str, on_delete: str, on_update: str) -> str:
    actions = [
        f"ON {event} {_ACTIONS[action]}"
        for event, action in (("DELETE", on_delete), ("UPDATE", on_update))
        if action in _ACTIONS
    ]
    return f"{', '.join(actions)} of {other}"
