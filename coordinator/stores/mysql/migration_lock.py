"""The lock of the server's that a migration has for as long as it runs: lanes that start beside it look at it."""

import hashlib
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

IS_MIGRATING: Final = "SELECT IS_USED_LOCK(%s) IS NOT NULL"
"""Any account of the server may take such a lock, and none is shown which."""
_CHARACTERS_MAX: Final = 64

_HOLDER: Final = text("SELECT IS_USED_LOCK(:name)")
_USER: Final = text("SELECT user FROM information_schema.processlist WHERE id = :id")
_TRANSACTIONS: Final = text("""
    SELECT process.id, process.user FROM information_schema.innodb_trx AS trx
    JOIN information_schema.processlist AS process ON process.id = trx.trx_mysql_thread_id
    WHERE process.db = DATABASE() AND process.id <> CONNECTION_ID() ORDER BY trx.trx_started LIMIT 3
""")
# On MySQL a session that has prepared a transaction leaves it behind, with its locks of tables.
_PREPARED: Final = text("""
    SELECT 1 FROM performance_schema.metadata_locks AS held
    LEFT JOIN performance_schema.threads AS holder ON holder.thread_id = held.owner_thread_id
    WHERE held.object_type = 'TABLE' AND held.object_schema = DATABASE() AND held.lock_status = 'GRANTED'
        AND holder.thread_id IS NULL LIMIT 1
""")
PREPARED: Final = "a prepared transaction without a connection (XA RECOVER)"
_UNSEEN: Final = (
    "by whom is shown to an account with PROCESS only (information_schema.innodb_trx), and what is prepared and has no "
    "connection by XA RECOVER"
)


def migration_lock(database: str) -> str:
    """Its name, of which MySQL takes 64 characters."""
    name = f"migrate {database}"
    return name if len(name) <= _CHARACTERS_MAX else hashlib.sha256(name.encode()).hexdigest()


def migration_holder(connection: Connection, database: str) -> str:
    """The connection that has the lock, in words, and whose it is if this account is shown that."""
    number = connection.execute(_HOLDER, {"name": migration_lock(database)}).scalar()
    if number is None:
        return "a connection that has just ended"
    return named_connection(number, connection.execute(_USER, {"id": number}).scalar())


def transaction_holders(connection: Connection) -> str:
    """The oldest transactions of others in this database, in words. Only PROCESS lets an account see them, and SELECT
    on performance_schema whether one is prepared."""
    named = [PREPARED] if _has_prepared(connection) else []
    try:
        named += [named_connection(*each) for each in connection.execute(_TRANSACTIONS)]
    except DBAPIError:
        return ", ".join(named) or _UNSEEN
    return ", ".join(named) or f"a connection that has just ended, or {PREPARED}"


def _has_prepared(connection: Connection) -> bool:
    try:
        return connection.execute(_PREPARED).first() is not None
    except DBAPIError:
        return False


def named_connection(number: int, user: str | None) -> str:
    """A connection as SHOW PROCESSLIST has it; what it runs is nobody's affair."""
    return f"connection {number}" + (f" of {user}" if user else ", whose account is shown only with PROCESS,")
