"""Who may make what a lane's statements call on PostgreSQL, without a right on a table.

A function or an operator that fits a statement's types better than the server's own is called in its place, with the
rights of whoever runs the statement, if it is in a schema of his `search_path`.
"""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight
from coordinator.stores.postgresql.identifiers import quoted

_LOOKS: Final = "where the lane's statements look for functions and operators"
# Whoever may make a schema may make the one of the lane's name, which a `search_path` has first ("$user").
_MAKERS: Final = text("""
    SELECT kind, name, pg_get_userbyid(owner), pg_has_role(owner, 'USAGE'), pg_get_userbyid(grantor),
        CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END
    FROM (
        SELECT 'SCHEMA' AS kind, nspname AS name, nspowner AS owner,
            (aclexplode(coalesce(nspacl, acldefault('n', nspowner)))).*
            FROM pg_namespace WHERE nspname = ANY (current_schemas(FALSE)) OR nspname = :lane
        UNION ALL SELECT 'DATABASE', datname, datdba, (aclexplode(coalesce(datacl, acldefault('d', datdba)))).*
            FROM pg_database WHERE datname = current_database()
    ) AS granted
    WHERE privilege_type = 'CREATE' AND grantee <> owner
        AND (grantee = 0 OR pg_get_userbyid(grantee) NOT IN :kept)
    ORDER BY 1 DESC, 2, 6 NULLS FIRST, 5
""").bindparams(bindparam("kept", expanding=True))

# The owner of the schema in which the tables are is an administrator; those of others in the path are not.
_OWNERS: Final = text("""
    SELECT nspname, rolname FROM pg_namespace JOIN pg_roles ON pg_roles.oid = nspowner
    WHERE (nspname = ANY (current_schemas(FALSE)) OR nspname = :lane) AND nspname <> current_schema()
        AND NOT rolsuper AND rolname NOT IN :kept
    ORDER BY 1
""").bindparams(bindparam("kept", expanding=True))


def makers(connection: Connection, kept: set[str], lane: str, tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """Owners of the tables' schema and of the database are administrators."""
    given = {"kept": sorted(kept), "lane": lane}
    for name, owner in connection.execute(_OWNERS, given):
        does = f"owns SCHEMA {quoted(name)}, {_LOOKS}"
        why = f"an owner gives himself every right: ALTER SCHEMA {quoted(name)} OWNER TO whoever migrates the lane"
        yield ForeignRight(who=owner, does=does, tables=tables, why=why)
    for kind, name, owner, is_ours, grantor, grantee in connection.execute(_MAKERS, given):
        where = f"{kind} {quoted(name)}"
        may_end = is_ours and grantor == owner
        by = owner if grantor == owner else grantor
        yield ForeignRight(
            who=grantee or "PUBLIC",
            does=f"CREATE on {where}, {_LOOKS}"
            if kind == "SCHEMA"
            else f"CREATE on {where}: may make a schema of the lane's name",
            tables=tables,
            statements=(f"REVOKE CREATE ON {where} FROM {quoted(grantee) if grantee else 'PUBLIC'} CASCADE",)
            if may_end
            else (),
            why="it may make nothing there any more" if may_end else f"only {by}, who has given it, may revoke it",
            is_wide=True,
        )
