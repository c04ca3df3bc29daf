"""The lock of the server's that a migration has for as long as it runs: lanes that start beside it look at it."""

from typing import Final

from sqlalchemy import Connection, text

MIGRATION_LOCK: Final = 0x77726974
"""The number of an advisory lock, which each database has its own of."""

# Of a prepared transaction the process is NULL, and that of a session that has just ended is in one of them only.
_SESSIONS: Final = "pg_locks LEFT JOIN pg_stat_activity AS session USING (pid)"
_IS_THERE: Final = "granted AND (pid IS NULL OR usesysid IS NOT NULL)"
_HELD: Final = f"""
    FROM {_SESSIONS}
    WHERE locktype = 'advisory' AND classid = 0 AND objid = {MIGRATION_LOCK} AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND {_IS_THERE}
"""  # noqa: S608  # a constant of ours
IS_MIGRATING: Final = f"""
    SELECT EXISTS (
        SELECT {_HELD}
        AND has_schema_privilege(session.usesysid, quote_ident(current_schema())::regnamespace, 'CREATE')
    )
"""
"""Any role may take such a lock. Who may make no table runs no migration, nor does what is prepared."""

_SESSION: Final = "pid, pg_get_userbyid(usesysid), session.application_name"
_HOLDER: Final = text(f"SELECT {_SESSION} {_HELD}")
_OLDEST_HOLDERS: Final = text(f"""
    SELECT DISTINCT {_SESSION} FROM {_SESSIONS} JOIN pg_class ON pg_class.oid = relation
    WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND relnamespace = quote_ident(current_schema())::regnamespace AND {_IS_THERE}
        AND pid IS DISTINCT FROM pg_backend_pid()
    ORDER BY 1 NULLS FIRST LIMIT 3
""")  # noqa: S608
"""The server shows to whom it is no secret since when a transaction runs, and to nobody else."""
PREPARED_OWNERS: Final = """
    SELECT string_agg(DISTINCT owner::text, ', ') FROM pg_prepared_xacts WHERE database = current_database()
"""


def migration_holder(connection: Connection) -> str:
    """Who has the lock, in words."""
    found = connection.execute(_HOLDER).first()
    return "a session that has just ended" if found is None else _named(connection, *found)


def table_holders(connection: Connection) -> str:
    """Who has locks of tables in this schema, in words."""
    found = [_named(connection, *each) for each in connection.execute(_OLDEST_HOLDERS).all()]
    return ", ".join(found) or "a session that has just ended"


def _named(connection: Connection, pid: int | None, role: str, application: str) -> str:
    if pid is not None:
        return named_session(pid, role, application)
    return named_prepared(connection.execute(text(PREPARED_OWNERS)).scalar())


def named_prepared(owners: str | None) -> str:
    """The prepared transactions of a database, of the roles `owners`: nobody ends a session to end one."""
    of = "" if owners is None else f" of role {owners}"
    return f"a prepared transaction{of} (pg_prepared_xacts), which no session has"


def named_session(pid: int, role: str, application: str) -> str:
    """A session as a person finds it in pg_stat_activity; what it runs is nobody's affair."""
    return f"process {pid} of role {role}" + (f" ({application})" if application else "")
