"""Roles of PostgreSQL that may write without a right on a table: as members of others, or as administrators."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight
from coordinator.stores.postgresql.identifiers import quoted
from coordinator.stores.postgresql.memberships import memberships

_OF_PROVIDERS: Final = ("rds_superuser", "cloudsqlsuperuser", "azure_pg_admin", "alloydbsuperuser")
"""Roles that the providers of servers give to their customers' administrators; they are no superusers."""
_WRITES_ALL: Final = "pg_write_all_data"
_IN_REACH_OF_ALL: Final = ("pg_execute_server_program", "pg_write_server_files")

_PARAMETERS_SINCE: Final = 150000
_RUNS: Final = (
    *("archive_command", "archive_cleanup_command", "restore_command", "recovery_end_command"),
    *("archive_library", "shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"),
    *("dynamic_library_path", "jit_provider", "ssl_passphrase_command", "hba_file", "ident_file", "primary_conninfo"),
)
"""Settings by which the server runs what somebody wants, or believes whoever says who he is."""
_WRITES_FILES: Final = ("lo_export", "pg_file_write", "pg_file_rename", "pg_file_unlink")

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
_PARAMETERS: Final = text("""
    SELECT CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, privilege_type || ' ON PARAMETER ' || parname
    FROM pg_parameter_acl CROSS JOIN aclexplode(paracl) LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE parname IN :names AND NOT coalesce(rolsuper, FALSE) AND coalesce(rolname NOT IN :kept, TRUE) ORDER BY 2, 1
""").bindparams(bindparam("kept", expanding=True), bindparam("names", expanding=True))
_FUNCTIONS: Final = text("""
    SELECT CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, 'EXECUTE ON FUNCTION ' || routine.oid::regprocedure
    FROM pg_proc AS routine CROSS JOIN aclexplode(coalesce(proacl, acldefault('f', proowner)))
        LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN :names
        AND NOT coalesce(rolsuper, FALSE) AND coalesce(rolname NOT IN :kept, TRUE) ORDER BY 2, 1
""").bindparams(bindparam("kept", expanding=True), bindparam("names", expanding=True))
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


def of_the_server(connection: Connection, kept: set[str], tables: tuple[str, ...]) -> Iterator[ForeignRight]:
    """Who may have the server run what he wants, or write beside its data, without being an administrator."""
    given = sorted(kept)
    found = list(connection.execute(_FUNCTIONS, {"names": list(_WRITES_FILES), "kept": given}))
    if int(connection.execute(_VERSION).scalar_one()) >= _PARAMETERS_SINCE:
        found += connection.execute(_PARAMETERS, {"names": list(_RUNS), "kept": given})
    for grantee, what in found:
        whom = "PUBLIC" if grantee is None else quoted(grantee)
        yield ForeignRight(
            who=grantee or "PUBLIC",
            does=f"{what}, by which it may do anything",
            tables=tables,
            why=f"only a superuser may run REVOKE {what} FROM {whom}",
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
