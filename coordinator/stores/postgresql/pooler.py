"""Whether something like PgBouncer stands between us and the server.

A lane, and a migration, need one session of the server's for as long as they are connected: for prepared statements,
for its parameters, for locks. A pooler gives each transaction whichever session is free. It has to make the key up by
which a client cancels its statements, since it has no one session for it: so the process that the key names is none
of the server's, or not the one that answers. A proxy that only passes bytes on, such as HAProxy, changes no key.
"""

from typing import Any

import psycopg

from coordinator.stores.postgresql.errors import POOLER


def pooler_between(connection: "psycopg.Connection[Any]") -> str | None:
    """Why the connection is no session of the server's; None: it is one."""
    answered = connection.execute("SELECT pg_backend_pid()").fetchone()
    if answered is None or answered[0] == connection.info.backend_pid:
        return None
    return POOLER
