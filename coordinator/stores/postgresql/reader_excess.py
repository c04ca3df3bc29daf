"""What a lane's reader may beyond what gateways need on PostgreSQL, as its catalogues have it, and what ends it."""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct
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
from coordinator.stores.postgresql.memberships import RoleMemberships, memberships
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
# `grantee` 0 is PUBLIC. A role has what PUBLIC has, what the roles have as which it may act, and what it owns: an owner
# gives himself every right.
_PLACES: Final = text("""
    SELECT place, grantee = owner, CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, privilege_type FROM (
        SELECT 'DATABASE' AS place, datdba AS owner, (aclexplode(coalesce(datacl, acldefault('d', datdba)))).*
            FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT 'SCHEMA', nspowner, (aclexplode(coalesce(nspacl, acldefault('n', nspowner)))).*
            FROM pg_namespace WHERE oid = quote_ident(current_schema())::regnamespace
    ) AS granted WHERE privilege_type IN ('CREATE', 'TEMPORARY')
        AND (grantee = 0 OR pg_get_userbyid(grantee) IN :roles) ORDER BY 1, 2, 3, 4
""").bindparams(bindparam("roles", expanding=True))
_READS: Final = text("""
    SELECT relname, bool_or(is_owner), grantee FROM (
        SELECT relname, FALSE AS is_owner, CASE WHEN (given).grantee <> 0 THEN pg_get_userbyid((given).grantee) END
                AS grantee
            FROM (
                SELECT relname, aclexplode(relacl) AS given FROM pg_class
                    WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
                UNION ALL SELECT relname, aclexplode(attacl) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                    WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
            ) AS granted WHERE (given).privilege_type = 'SELECT'
        UNION ALL SELECT relname, TRUE, pg_get_userbyid(relowner) FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
    ) AS reads WHERE grantee IS NULL OR grantee IN :roles GROUP BY 1, 3 ORDER BY 1, 3
""").bindparams(bindparam("tables", expanding=True), bindparam("roles", expanding=True))
_READ_ALL: Final = text("""
    SELECT rolname FROM pg_roles WHERE rolname IN :roles AND rolname <> :role
        AND (rolsuper OR rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files',
            'pg_write_server_files', 'pg_execute_server_program')) ORDER BY 1
""").bindparams(bindparam("roles", expanding=True))
_FUNCTIONS: Final = text(f"""
    SELECT CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END,
        string_agg(DISTINCT proname, ', ' ORDER BY proname),
        string_agg(DISTINCT oid::regprocedure::text, ', ' ORDER BY oid::regprocedure::text)
    FROM (
        SELECT oid, proname, proowner, (aclexplode(coalesce(proacl, acldefault('f', proowner)))).* FROM pg_proc
            WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '{FUNCTIONS_PATTERN}'
    ) AS granted WHERE grantee = 0 OR (grantee <> proowner AND pg_get_userbyid(grantee) IN :roles)
    GROUP BY 1 ORDER BY 1 NULLS FIRST
""").bindparams(bindparam("roles", expanding=True))  # noqa: S608  # a constant of ours
_ELSEWHERE: Final = text("""
    SELECT datname FROM pg_database WHERE datallowconn AND datname <> current_database()
        AND has_database_privilege(:role, oid, 'CONNECT') ORDER BY 1
""")
_HERE: Final = text("SELECT current_schema()")


class _Reader(Struct, frozen=True):
    """Whose excess is looked for, and by which memberships it may act as others."""

    query: ReaderQuery
    schema: str
    acts: RoleMemberships
    is_super: bool
    looks_as_super: bool

    @property
    def roles(self) -> list[str]:
        return sorted(self.acts.acting_as(self.query.role))


def reader_excess(connection: Connection, query: ReaderQuery) -> ReaderExcess:
    """Whatever role looks, it is shown all of it."""
    role = connection.execute(_ROLE, {"role": query.role}).one_or_none()
    if role is None:
        why = "`coordinator database-accounts --apply` makes it"
        return (ForeignRight(who=query.role, does="there is no such role", tables=(), why=why),)
    *attributes, has_limit, has_timeout, looks_as_super = role
    schema = str(connection.execute(_HERE).scalar_one())
    reader = _Reader(query, schema, memberships(connection), attributes[0], looks_as_super)
    return together(
        (
            *_of_attributes(query, attributes, looks_as_super=looks_as_super),
            *_reads(connection, reader),
            *_of_limits(query, has_limit=has_limit, has_timeout=has_timeout),
            *_of_places(connection, reader),
            *_of_functions(connection, reader),
        )
    )


def entered_elsewhere(connection: Connection, query: ReaderQuery) -> list[str]:
    """The other databases that it may enter: the table of locks, and the disk, are the server's. Whether `pg_hba.conf`
    lets it in no catalogue says. A role that is not there enters none."""
    if connection.execute(_ROLE, {"role": query.role}).one_or_none() is None:
        return []
    return list(connection.execute(_ELSEWHERE, {"role": query.role}).scalars())


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


def _of_places(connection: Connection, reader: _Reader) -> Iterator[ForeignRight]:
    for place, is_owner, grantee, right in connection.execute(_PLACES, {"roles": reader.roles}):
        name = f"{place} {quoted(reader.query.database if place == 'DATABASE' else reader.schema)}"
        does = f"{right} on the {place.lower()}"
        yield from _granted(reader, does, f"{right} ON {name}", (), name if is_owner else None, grantee)


def _reads(connection: Connection, reader: _Reader) -> Iterator[ForeignRight]:
    query, tables = reader.query, reader.query.withheld
    if reader.is_super:
        return
    for held in connection.execute(_READ_ALL, {"role": query.role, "roles": reader.roles}).scalars():
        yield from _by_membership(reader, "reads everything", tables, held)
    if not tables:
        return
    for table, is_owner, grantee in connection.execute(_READS, {"tables": list(tables), "roles": reader.roles}):
        name = f"TABLE {quoted(reader.schema)}.{quoted(table)}"
        yield from _granted(reader, "SELECT", f"SELECT ON {name}", (table,), name if is_owner else None, grantee)


def _of_functions(connection: Connection, reader: _Reader) -> Iterator[ForeignRight]:
    for grantee, names, functions in connection.execute(_FUNCTIONS, {"roles": reader.roles}):
        does = f"may fill the disk, or the table of locks, by {names}"
        if grantee not in (None, reader.query.role):
            yield from _by_membership(reader, does, (), grantee)
            continue
        own = f"REVOKE EXECUTE ON FUNCTION {functions} FROM {quoted(reader.query.role)}"
        statement, why = (NO_FUNCTIONS, _OF_ALL) if grantee is None else (own, None)
        yield ForeignRight(
            who=reader.query.role,
            does=does,
            tables=(),
            statements=(statement,) if reader.looks_as_super else (),
            why=why if reader.looks_as_super else f"{_SUPERUSERS}: {statement}",
            is_wide=grantee is None,
        )


def _granted(
    reader: _Reader, does: str, right: str, tables: tuple[str, ...], owned: str | None, grantee: str | None
) -> Iterator[ForeignRight]:
    """`owned`: what is the grantee's own, as ALTER has it; None: it is not."""
    role = reader.query.role
    if grantee is None:
        does, ending = f"{does}, as everybody has (PUBLIC)", (f"REVOKE {right} FROM PUBLIC",)
        yield ForeignRight(who=role, does=does, tables=tables, statements=ending, why=_OF_ALL, is_wide=True)
    elif grantee != role:
        yield from _by_membership(reader, does, tables, grantee)
    elif owned is not None:
        why = f"an owner gives himself every right: ALTER {owned} OWNER TO whoever migrates the lane"
        yield ForeignRight(who=role, does=f"{does}, as its owner", tables=tables, why=why)
    else:
        yield ForeignRight(who=role, does=does, tables=tables, statements=(f"REVOKE {right} FROM {quoted(role)}",))


def _by_membership(reader: _Reader, does: str, tables: tuple[str, ...], held: str) -> Iterator[ForeignRight]:
    """What it may as another role, by each of its own memberships that leads to that role."""
    for each in reader.acts.leading(reader.query.role, held):
        by = f"as a member of {each.role}" + ("" if each.role == held else f", which leads to {held}")
        yield ForeignRight(
            who=reader.query.role,
            does=f"{does}, {by}",
            tables=tables,
            statements=each.statements,
            why=each.why,
            is_wide=True,
        )
