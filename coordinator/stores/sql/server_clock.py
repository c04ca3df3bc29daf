"""What the clock of a database's server says."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, text

_CLOCKS: Final = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT UNIX_TIMESTAMP()",
    "mariadb": "SELECT UNIX_TIMESTAMP()",
}
"""Seconds since 1970, by dialect."""


def server_time(connection: Connection) -> datetime:
    """In UTC. A database without a server has this machine's clock."""
    asked = _CLOCKS.get(connection.dialect.name)
    if asked is None:
        return datetime.now(UTC)
    return datetime.fromtimestamp(float(connection.execute(text(asked)).scalar_one()), UTC)
