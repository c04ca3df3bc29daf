"""What a lane's reader may beyond what gateways need on PostgreSQL, as its catalogues have it, and what ends it."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight, together
from coordinator.stores.postgresql.grants import (
    FUNCTIONS_PATTERN,
    NO_FUNCTIONS,
    READ_TIMEOUT_S,
    READERS_PART,
    limits,
    quoted,
)
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery

_SUPERUSERS: Final = "only a superuser may run it"
_OF_ALL: Final = "it ends that for every role"

_ATTRIBUTES: Final = ("superuser", "createrole", "createdb", "replication", "bypassrls")
_ROLE: Final = text(f"""
    SELECT role.rolsuper, role.rolcreaterole, role.rolcreatedb, role.rolreplication, role.rolbypassrls,
        role.rolconnlimit BETWEEN 0 AND current_setting('max_connections')::int * {READERS_PART[0]} / {READERS_PART[1]},
        EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = role.oid AND setdatabase = 0
            AND 'statement_timeout={READ_TIMEOUT_S}s' = ANY (setconfig))
        AND NOT EXISTS (SELECT FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
            WHERE setrole = role.oid AND datname = current_database()
            AND array_to_string(setconfig, ' ') LIKE '%statement_timeout=%'),
        own.rolsuper
    FROM pg_roles AS role JOIN pg_roles AS own ON own.rolname = current_user WHERE role.rolname = :role
""")  # noqa: S608  # constants of ours
# `grantee` 0 is PUBLIC. A role has what PUBLIC has, and what the roles have whose member it is.
_GRANTS: Final = text("""
    SELECT place, grantee = 0, CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, privilege_type FROM (
        SELECT 'DATABASE' AS place, (aclexplode(coalesce(datacl, acldefault('d', datdba)))).* FROM pg_database
            WHERE datname = current_database()
        UNION ALL SELECT 'SCHEMA', (aclexplode(coalesce(nspacl, acldefault('n', nspowner)))).* FROM pg_namespace
            WHERE oid = quote_ident(current_schema())::regnamespace
    ) AS granted WHERE privilege_type IN ('CREATE', 'TEMPORARY')
        AND (grantee = 0 OR pg_has_role(:role, grantee, 'USAGE')) ORDER BY 1, 2, 3, 4
""")
_READS: Final = text("""
    SELECT relname, grantee = 0, CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END FROM (
        SELECT relname, (aclexplode(relacl)).* FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
        UNION ALL SELECT relname, (aclexplode(attacl)).* FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
    ) AS granted WHERE privilege_type = 'SELECT' AND (grantee = 0 OR pg_has_role(:role, grantee, 'USAGE'))
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""").bindparams(bindparam("tables", expanding=True))
_READS_ALL: Final = text("""
    SELECT held.rolname FROM pg_roles AS held WHERE held.rolname IN ('pg_read_all_data', 'pg_write_all_data')
        AND pg_has_role(:role, held.oid, 'USAGE') AND NOT :is_super ORDER BY 1
""")
_FUNCTIONS: Final = text(f"""
    SELECT string_agg(DISTINCT proname, ', ' ORDER BY proname) FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '{FUNCTIONS_PATTERN}'
        AND has_function_privilege(:role, oid, 'EXECUTE')
""")  # noqa: S608  # a constant of ours
_HERE: Final = text("SELECT current_schema()")


def reader_excess(connection: Connection, query: ReaderQuery) -> ReaderExcess:
    """Whatever role looks, it is shown all of it."""
    role = connection.execute(_ROLE, {"role": query.role}).one_or_none()
    if role is None:
        why = "`coordinator database-accounts --apply` makes it"
        return (ForeignRight(who=query.role, does="there is no such role", tables=(), why=why),)
    *attributes, has_limit, has_timeout, looks_as_super = role
    schema = str(connection.execute(_HERE).scalar_one())
    found = [
        *_of_attributes(query, attributes, looks_as_super=looks_as_super),
        *_reads(connection, query, schema, is_super=attributes[0]),
        *_of_limits(query, has_limit=has_limit, has_timeout=has_timeout),
        *_of_places(connection, query, schema),
    ]
    functions = connection.execute(_FUNCTIONS, {"role": query.role}).scalar()
    if functions is not None:
        found.append(
            ForeignRight(
                who=query.role,
                does=f"may fill the disk, or the table of locks, by {functions}",
                tables=(),
                statements=(NO_FUNCTIONS,) if looks_as_super else (),
                why=_OF_ALL if looks_as_super else f"{_SUPERUSERS}: {NO_FUNCTIONS}",
                is_wide=True,
            )
        )
    return together(found)


def _of_attributes(query: ReaderQuery, has: list[Any], *, looks_as_super: bool) -> Iterator[ForeignRight]:
    for name, is_given in zip(_ATTRIBUTES, has, strict=True):
        if is_given:
            statement = f"ALTER ROLE {quoted(query.role)} NO{name.upper()}"
            may = looks_as_super or name == "createdb"
            yield ForeignRight(
                who=query.role,
                does=f"has {name.upper()}",
                # A superuser may read everything.
                tables=query.withheld if name == "superuser" else (),
                statements=(statement,) if may else (),
                why="the role may be an administrator's" if may else f"{_SUPERUSERS}: {statement}",
                is_wide=True,
            )


def _of_limits(query: ReaderQuery, *, has_limit: bool, has_timeout: bool) -> Iterator[ForeignRight]:
    statements = tuple(limits(query.role, query.database))
    lacking = [
        words
        for words, is_there in (
            ("may have more than three quarters of the server's connections", has_limit),
            (f"may read for longer than {READ_TIMEOUT_S} s", has_timeout),
        )
        if not is_there
    ]
    if lacking:
        yield ForeignRight(who=query.role, does=" and ".join(lacking), tables=(), statements=statements)


def _of_places(connection: Connection, query: ReaderQuery, schema: str) -> Iterator[ForeignRight]:
    for place, is_public, grantee, right in connection.execute(_GRANTS, {"role": query.role}):
        name = quoted(query.database if place == "DATABASE" else schema)
        yield _granted(query, f"{right} on the {place.lower()}", f"{right} ON {place} {name}", (), is_public, grantee)


def _reads(connection: Connection, query: ReaderQuery, schema: str, *, is_super: bool) -> Iterator[ForeignRight]:
    for held in connection.execute(_READS_ALL, {"role": query.role, "is_super": is_super}).scalars():
        yield ForeignRight(
            who=query.role,
            does=f"member of {held}",
            tables=query.withheld,
            statements=(f"REVOKE {held} FROM {quoted(query.role)}",),
            why=f"it ends all that {query.role} may as {held}",
            is_wide=True,
        )
    if is_super or not query.withheld:
        return
    given = {"role": query.role, "tables": list(query.withheld)}
    for table, is_public, grantee in connection.execute(_READS, given):
        place = f"SELECT ON TABLE {quoted(schema)}.{quoted(table)}"
        yield _granted(query, "SELECT", place, (table,), is_public, grantee)


def _granted(
    query: ReaderQuery, does: str, right: str, tables: tuple[str, ...], is_public: bool, grantee: str | None
) -> ForeignRight:
    if is_public:
        statement, why = f"REVOKE {right} FROM PUBLIC", _OF_ALL
        does = f"{does}, as everybody has (PUBLIC)"
    elif grantee == query.role:
        statement, why = f"REVOKE {right} FROM {quoted(query.role)}", None
    else:
        held = quoted(grantee or "")
        statement, why = f"REVOKE {held} FROM {quoted(query.role)}", f"it ends all that {query.role} may as {grantee}"
        does = f"{does}, as a member of {grantee}"
    return ForeignRight(
        who=query.role, does=does, tables=tables, statements=(statement,), why=why, is_wide=why is not None
    )
