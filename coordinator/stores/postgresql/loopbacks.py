"""What leads out of a PostgreSQL and back into it, as somebody who may write: foreign servers, and jobs of pg_cron.

Both have what they need to log in, or need nothing. So whoever uses one writes as another role.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.exc import DBAPIError

from coordinator.stores.writers import Writer, Writers, WritersQuery

# As whom somebody logs in is shown to the server's owner, to superusers, and to himself.
_MAPPINGS: Final = text("""
    SELECT mapping.srvname, srvoptions, CASE WHEN umuser <> 0 THEN usename::text END, umoptions, current_database()
    FROM pg_user_mappings AS mapping JOIN pg_foreign_server AS server ON server.oid = srvid ORDER BY 1, 3 NULLS FIRST
""")
_MAY_WRITE: Final = text("""
    SELECT array_agg(owned.relname::text ORDER BY owned.relname) FROM pg_roles AS role CROSS JOIN pg_class AS owned
    WHERE role.rolname = :role
        AND owned.relnamespace = quote_ident(current_schema())::regnamespace AND owned.relname IN :tables
        AND (has_any_column_privilege(role.oid, owned.oid, 'INSERT, UPDATE')
            OR has_table_privilege(role.oid, owned.oid, 'DELETE, TRUNCATE'))
""").bindparams(bindparam("tables", expanding=True))
_HAS_JOBS: Final = text("""
    SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = 'cron' AND relname = 'job')
""")
_JOBS: Final = text("""
    SELECT coalesce(jobname::text, jobid::text), schedule, username FROM cron.job
    WHERE active AND database = current_database() ORDER BY 1, 3
""")
_SEES_ALL_ROWS: Final = text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
_OF_OTHERS: Final = (
    "Foreign servers and jobs of schedulers that stand in another database (pg_cron in that of cron.database_name, "
    "pgAgent) are not shown here."
)
_HIDDEN: Final = "Jobs of pg_cron may be hidden from this role: it is no superuser."


def loopbacks(connection: Connection, query: WritersQuery) -> Writers:
    """Those of the database that is looked at."""
    unseen = [_OF_OTHERS]
    found = list(_mappings(connection, query))
    if connection.execute(_HAS_JOBS).scalar_one():
        try:
            with connection.begin_nested():
                found += _jobs(connection, query)
                sees_all = bool(connection.execute(_SEES_ALL_ROWS).scalar_one())
        except DBAPIError:
            sees_all = False
        if not sees_all:
            unseen.append(_HIDDEN)
    return Writers(tuple(found), tuple(unseen))


def _mappings(connection: Connection, query: WritersQuery) -> Iterator[Writer]:
    """Which host leads back here no catalogue says. So what leads to a database of this name counts, wherever it is."""
    for name, of_server, user, of_user, here in connection.execute(_MAPPINGS).all():
        server, login = _options(of_server), _options(of_user).get("user", user)
        # Where no database is named it is the user's namesake.
        if server.get("dbname", here if of_user is None else login) not in (here, None):
            continue
        # Who logs in as himself writes what he may write in any case.
        if user is not None and user in (query.role, None if of_user is None else login):
            continue
        tables = query.tables if of_user is None or login is None else _written_by(connection, login, query)
        if tables:
            who = "everybody who may use it" if user is None else user
            as_whom = "somebody whom this role is not shown" if of_user is None else login or "whoever they are"
            host = server.get("host") or server.get("hostaddr") or "this machine"
            does = f"logs {who} in as {as_whom}, at {host} in a database called {here}"
            yield Writer(kind="foreign server", name=name, does=does, tables=tables)


def _options(given: Sequence[str] | None) -> Mapping[str, str]:
    parts = (each.partition("=") for each in given or ())
    return {name: value for name, _, value in parts}


def _jobs(connection: Connection, query: WritersQuery) -> Iterator[Writer]:
    for name, schedule, user in connection.execute(_JOBS).all():
        if tables := _written_by(connection, user, query):
            does = f"runs as {user}, by pg_cron ({schedule})"
            yield Writer(kind="job", name=name, does=does, tables=tables)


def _written_by(connection: Connection, role: str, query: WritersQuery) -> tuple[str, ...]:
    given: Mapping[str, object] = {"role": role, "tables": list(query.tables)}
    return tuple(connection.execute(_MAY_WRITE, given).scalar_one() or ())
