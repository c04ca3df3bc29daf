"""A lane's connection to MySQL or MariaDB, and how long it waits for what."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import pymysql
from pymysql.constants import ER

from coordinator.stores.mysql.nodes import NodeConnection, first_that_takes
from coordinator.stores.mysql.opening import Opening, opening

CONNECT_TIMEOUT_S: Final = 5
IO_TIMEOUT_S: Final = 30
LOCK_TIMEOUT_S: Final = 5

LOCK_TIMEOUT: Final = "SET SESSION innodb_lock_wait_timeout = {}"
# While handlers work, their batch's transaction is idle for the server, which may end such after a second. One that
# hangs is ended by whoever takes the lane over.
_IDLE: Final = (
    "SET SESSION wait_timeout = 28800 /*M!100300 , SESSION idle_transaction_timeout = 0, "
    "SESSION idle_write_transaction_timeout = 0, SESSION idle_readonly_transaction_timeout = 0 */"
)
_SESSION: Final = (
    "SET SESSION transaction_isolation = 'READ-COMMITTED'",
    LOCK_TIMEOUT.format(LOCK_TIMEOUT_S),
    _IDLE,
)


def open_lane_connection(hosts: Sequence[Mapping[str, Any]], *, waits: int = 0) -> NodeConnection:
    """As `first_that_takes`, with the session set up for a lane. Raises the driver's errors."""
    # Where there is another host, one that takes the connection and says nothing is as good as away.
    greeting_s = CONNECT_TIMEOUT_S if len(hosts) > 1 else IO_TIMEOUT_S
    with opening(greeting_s) as opened:
        taken = first_that_takes(hosts, partial(_connected, opened, greeting_s), waits=waits)
        made: Any = taken.connection
        made._read_timeout = made._write_timeout = IO_TIMEOUT_S  # noqa: SLF001  # no other way
        with made.cursor() as cursor:
            for statement in _SESSION:
                _set(cursor, statement)
    return taken


def _connected(opened: Opening, limit_s: float, arguments: Mapping[str, Any]) -> "pymysql.Connection[Any]":
    made = pymysql.connect(
        **arguments,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=limit_s,
        # TLS begins with a write, whose limit is that of its whole handshake.
        write_timeout=limit_s,
        # An UPDATE counts the rows that it found, changed or not.
        client_flag=pymysql.constants.CLIENT.FOUND_ROWS,
        defer_connect=True,
    )
    connected: pymysql.Connection[Any] = opened.connect(made)
    return connected


def _set(cursor: Any, statement: str) -> None:
    try:
        cursor.execute(statement)
    except pymysql.MySQLError as error:
        if error.args[0] != ER.UNKNOWN_SYSTEM_VARIABLE:
            raise
        # MariaDB before 11.1 knows transaction_isolation by its old name.
        cursor.execute(statement.replace("transaction_isolation", "tx_isolation"))
