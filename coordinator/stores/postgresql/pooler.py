"""Finds out whether a pooler such as PgBouncer is between us and the server.

A lane, and a migration, need one session of the server's for as long as they are connected: for prepared statements,
for its parameters, for locks. A pooler gives each transaction any free session. So it has to make up the key by which a
client cancels its statements, and the process that the key names does not exist on the server, or is not the one that
answers. A proxy that only forwards bytes, such as HAProxy, changes no key.
"""

from typing import Any

import psycopg

from coordinator.stores.postgresql.errors import POOLER


def pooler_between(connection: "psycopg.Connection[Any]") -> str | None:
    """The reason why the connection is no session of the server's own; None: it is one."""
    answered = connection.execute("SELECT pg_backend_pid()").fetchone()
    if answered is None or answered[0] == connection.info.backend_pid:
        return None
    return POOLER
