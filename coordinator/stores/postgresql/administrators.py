"""Roles of PostgreSQL that may write without a right on a table: as members of others, or as administrators."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight
from coordinator.stores.postgresql.identifiers import quoted

_OF_PROVIDERS: Final = ("rds_superuser", "cloudsqlsuperuser", "azure_pg_admin", "alloydbsuperuser")
"""Roles that the providers of servers give to their customers' administrators; they are no superusers."""
_WRITES_ALL: Final = "pg_write_all_data"
_IN_REACH_OF_ALL: Final = ("pg_execute_server_program", "pg_write_server_files")
_GRANTED_BY: Final = 160_000
"""From this version on a membership is one for each role that gave it."""

_MEMBERS: Final = text("""
    SELECT held.rolname, member.rolname, pg_get_userbyid(grantor),
        pg_has_role(held.oid, 'USAGE WITH ADMIN OPTION') OR (own.rolcreaterole AND :version < 160000)
    FROM pg_auth_members JOIN pg_roles AS held ON held.oid = roleid JOIN pg_roles AS member ON member.oid = member
        JOIN pg_roles AS own ON own.rolname = current_user
    WHERE held.rolname IN :held AND NOT member.rolsuper AND member.rolname NOT IN :kept
    ORDER BY held.rolname, member.rolname
""").bindparams(bindparam("held", expanding=True), bindparam("kept", expanding=True))
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


def members(
    connection: Connection, kept: set[str], tables: tuple[str, ...], *, is_super: bool
) -> Iterator[ForeignRight]:
    """Members of the roles that are kept, and of the role that may write everything on the server."""
    version = int(connection.execute(_VERSION).scalar_one())
    given = {"version": version, "held": [*sorted(kept), _WRITES_ALL], "kept": [*sorted(kept), *_OF_PROVIDERS]}
    for held, member, grantor, is_ours in connection.execute(_MEMBERS, given):
        by = f" GRANTED BY {quoted(grantor)}" if version >= _GRANTED_BY else ""
        statement = f"REVOKE {quoted(held)} FROM {quoted(member)}{by} CASCADE"
        may = is_super or is_ours
        yield ForeignRight(
            who=member,
            does=f"member of {held}",
            tables=tables,
            statements=(statement,) if may else (),
            why=f"it ends all that {member} may as {held}"
            if may
            else f"only a superuser, or who has ADMIN OPTION on {held}, may run {statement}",
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
