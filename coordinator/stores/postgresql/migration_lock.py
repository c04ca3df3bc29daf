"""The lock of the server's that a migration has for as long as it runs: lanes that start beside it look at it."""

from typing import Final

from sqlalchemy import Connection, text

MIGRATION_LOCK: Final = 0x77726974
"""The number of an advisory lock, which each database has its own of."""

_HELD: Final = f"""
    FROM pg_locks JOIN pg_stat_activity AS session USING (pid)
    WHERE locktype = 'advisory' AND classid = 0 AND objid = {MIGRATION_LOCK} AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND granted
"""  # noqa: S608  # a constant of ours
IS_MIGRATING: Final = f"""
    SELECT EXISTS (
        SELECT {_HELD}
        AND has_schema_privilege(session.usesysid, quote_ident(current_schema())::regnamespace, 'CREATE')
    )
"""
"""Any role may take such a lock. Who may make no table runs no migration."""

_SESSION: Final = "pid, pg_get_userbyid(usesysid), session.application_name"
_HOLDER: Final = text(f"SELECT {_SESSION} {_HELD}")
_OLDEST_HOLDERS: Final = text(f"""
    SELECT DISTINCT {_SESSION} FROM pg_locks JOIN pg_stat_activity AS session USING (pid)
        JOIN pg_class ON pg_class.oid = relation
    WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND relnamespace = quote_ident(current_schema())::regnamespace AND granted AND pid <> pg_backend_pid()
    ORDER BY 1 LIMIT 3
""")  # noqa: S608
"""The server shows to whom it is no secret since when a transaction runs, and to nobody else."""


def migration_holder(connection: Connection) -> str:
    """The session that has the lock, in words."""
    found = connection.execute(_HOLDER).first()
    return "a session that has just ended" if found is None else named_session(*found)


def table_holders(connection: Connection) -> str:
    """Sessions that have locks of tables in this schema, in words."""
    found = [named_session(*each) for each in connection.execute(_OLDEST_HOLDERS)]
    return ", ".join(found) or "a session that has just ended"


def named_session(pid: int, role: str, application: str) -> str:
    """A session as a person finds it in pg_stat_activity; what it runs is nobody's affair."""
    return f"process {pid} of role {role}" + (f" ({application})" if application else "")
