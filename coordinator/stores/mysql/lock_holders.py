"""Whom a lane's connection waits for, as another connection of the same account is shown it.

MySQL and MariaDB show other accounts' transactions to those with a right for it only, and each in tables of its own.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import pymysql

from coordinator.stores.mysql.migration_lock import PREPARED, named_connection

_TIMEOUT_S: Final = 2
_NAMED_MAX: Final = 3

_IS_MARIADB: Final = "SELECT VERSION() LIKE '%MariaDB%'"
# Transactions that were prepared before the server's start have no connection: their thread is 0.
_OF_ROWS_MARIADB: Final = """
    SELECT DISTINCT holder.trx_mysql_thread_id, process.user FROM information_schema.innodb_lock_waits AS waits
    JOIN information_schema.innodb_trx AS ours ON ours.trx_id = waits.requesting_trx_id
    JOIN information_schema.innodb_trx AS holder ON holder.trx_id = waits.blocking_trx_id
    LEFT JOIN information_schema.processlist AS process ON process.id = holder.trx_mysql_thread_id
    WHERE ours.trx_mysql_thread_id = %s ORDER BY 1
"""
_OF_ROWS_MYSQL: Final = """
    SELECT DISTINCT holder.processlist_id, holder.processlist_user FROM performance_schema.data_lock_waits AS waits
    JOIN performance_schema.threads AS ours ON ours.thread_id = waits.requesting_thread_id
    LEFT JOIN performance_schema.threads AS holder ON holder.thread_id = waits.blocking_thread_id
    WHERE ours.processlist_id = %s ORDER BY 1
"""
# MariaDB keeps these only where its performance schema is on.
_OF_TABLES: Final = """
    SELECT DISTINCT holder.processlist_id, holder.processlist_user FROM performance_schema.metadata_locks AS waits
    JOIN performance_schema.threads AS ours ON ours.thread_id = waits.owner_thread_id
    JOIN performance_schema.metadata_locks AS held ON held.object_type = waits.object_type
        AND held.object_schema <=> waits.object_schema AND held.object_name <=> waits.object_name
    LEFT JOIN performance_schema.threads AS holder ON holder.thread_id = held.owner_thread_id
    WHERE ours.processlist_id = %s AND waits.lock_status = 'PENDING' AND held.lock_status = 'GRANTED'
        AND held.owner_thread_id <> waits.owner_thread_id ORDER BY 1
"""
_STATE: Final = "SELECT state FROM information_schema.processlist WHERE id = %s"
"""An account is shown its own connections."""
_OF_A_TABLE: Final = "Waiting for table"
_RIGHT_MARIADB: Final = "PROCESS (GRANT PROCESS ON *.* TO the lane's account)"
_RIGHT_MYSQL: Final = "SELECT on performance_schema (GRANT SELECT ON performance_schema.* TO the lane's account)"
_REFUSED: Final = (1142, 1143, 1044, 1227)
"""No right on a table, a column or a database; no PROCESS."""


def waited_for(arguments: Mapping[str, Any], number: int) -> str | None:
    """Whom the connection `number` waits for, in words, or which right would show it; None: for nobody.

    `arguments` are PyMySQL's. Raises its errors.
    """
    connection: pymysql.Connection[Any] = pymysql.connect(
        **arguments,
        autocommit=True,
        connect_timeout=_TIMEOUT_S,
        read_timeout=_TIMEOUT_S,
        write_timeout=_TIMEOUT_S,
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(_IS_MARIADB)
        is_mariadb = cursor.fetchone() == (1,)
        cursor.execute(_STATE, [number])
        (state,) = cursor.fetchone() or ("",)
        is_of_table = str(state or "").startswith(_OF_A_TABLE)
        of_rows = _OF_ROWS_MARIADB if is_mariadb else _OF_ROWS_MYSQL
        try:
            cursor.execute(_OF_TABLES if is_of_table else of_rows, [number])
        except pymysql.MySQLError as error:
            if not error.args or error.args[0] not in _REFUSED:
                raise
            return _unseen(is_of_table=is_of_table, is_mariadb=is_mariadb)
        holders = _named(cursor.fetchall())
    if holders:
        return f"a lock is held by {holders}"
    return _unseen(is_of_table=True, is_mariadb=is_mariadb) if is_of_table else None


def _unseen(*, is_of_table: bool, is_mariadb: bool) -> str:
    if is_of_table and is_mariadb:
        return (
            "somebody keeps a table locked (LOCK TABLES, ALTER TABLE or the like): which connection is shown by SHOW "
            "PROCESSLIST to an account with PROCESS, or by performance_schema.metadata_locks where that is on"
        )
    what = "somebody keeps a table locked" if is_of_table else "if it waits for a lock"
    return f"{what}: whose lock it is is shown only with {_RIGHT_MARIADB if is_mariadb else _RIGHT_MYSQL}"


def _named(found: Sequence[tuple[int | None, str | None]]) -> str:
    named = [named_connection(number, user) if number else PREPARED for number, user in found[:_NAMED_MAX]]
    if len(found) > _NAMED_MAX:
        named.append(f"{len(found) - _NAMED_MAX} more")
    return ", ".join(named)
