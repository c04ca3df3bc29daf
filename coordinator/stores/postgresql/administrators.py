"""Roles of PostgreSQL that may write without a right on a table: as members of others, or as administrators."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight
from coordinator.stores.postgresql.memberships import memberships

_OF_PROVIDERS: Final = ("rds_superuser", "cloudsqlsuperuser", "azure_pg_admin", "alloydbsuperuser")
"""Roles that the providers of servers give to their customers' administrators; they are no superusers."""
_WRITES_ALL: Final = "pg_write_all_data"
_IN_REACH_OF_ALL: Final = ("pg_execute_server_program", "pg_write_server_files")

_SUPERUSERS: Final = text("SELECT rolname FROM pg_roles WHERE rolsuper")
_ADMINISTRATORS: Final = text("""
    SELECT role.rolname, concat_ws(', ',
        CASE WHEN role.rolsuper THEN 'superuser' END,
        CASE WHEN role.rolcreaterole AND NOT role.rolsuper AND :version < 160000
            THEN 'CREATEROLE: may make itself a member of other roles' END,
        CASE WHEN role.rolname IN :of_providers THEN 'an administrator''s role of the server''s provider' END,
        (SELECT 'may be ' || string_agg(other.rolname, ', ' ORDER BY other.rolname) FROM pg_roles AS other
            WHERE NOT role.rolsuper AND other.oid <> role.oid AND pg_has_role(role.oid, other.oid, 'MEMBER')
                AND (other.rolsuper OR other.rolname IN :of_providers OR other.rolname IN :servers)),
        CASE WHEN NOT role.rolsuper AND pg_has_role(role.oid, datdba, 'MEMBER') THEN 'owns the database' END,
        CASE WHEN NOT role.rolsuper AND pg_has_role(role.oid, nspowner, 'MEMBER') THEN 'owns the schema' END)
    FROM pg_roles AS role JOIN pg_database ON datname = current_database()
        JOIN pg_namespace ON pg_namespace.oid = quote_ident(current_schema())::regnamespace
    WHERE role.rolname NOT IN :kept AND (role.rolcanlogin OR role.rolname IN :of_providers)
    ORDER BY role.rolname
""").bindparams(
    bindparam("kept", expanding=True), bindparam("of_providers", expanding=True), bindparam("servers", expanding=True)
)
_VERSION: Final = text("SELECT current_setting('server_version_num')::int")


def members(connection: Connection, kept: set[str], tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """Members of the roles that are kept, and of the role that may write everything on the server."""
    others = kept | {*_OF_PROVIDERS, *connection.execute(_SUPERUSERS).scalars()}
    for each in memberships(connection).known:
        if each.role in kept | {_WRITES_ALL} and each.member not in others:
            yield ForeignRight(
                who=each.member,
                does=f"member of {each.role}",
                tables=tables,
                statements=each.statements,
                why=each.why,
                is_wide=True,
            )


def administrators(connection: Connection, kept: set[str], tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """Who may give himself any right, or remove the tables."""
    given = {
        "version": int(connection.execute(_VERSION).scalar_one()),
        "kept": sorted(kept),
        "of_providers": list(_OF_PROVIDERS),
        "servers": list(_IN_REACH_OF_ALL),
    }
    for name, does in connection.execute(_ADMINISTRATORS, given):
        if does:
            why = "nothing that is revoked keeps it out"
            yield ForeignRight(who=name, does=does, tables=tables, why=why, is_administrators=True)
