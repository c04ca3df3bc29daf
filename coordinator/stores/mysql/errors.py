"""Translates the errors of MySQL and MariaDB for a lane, by their number.

Messages come in the server's language; the names of tables and columns in them do not.
"""

import re
from collections.abc import Collection
from typing import Final

import pymysql
from pymysql.constants import CR, ER

from coordinator.runtime.tls_look import refusal_in
from coordinator.stores.port import (
    MAKES_ROLES,
    BatchFault,
    BatchRefused,
    Conflict,
    DiskFull,
    Lack,
    NotAdmitted,
    StoreError,
    StoreUnavailable,
)

_NO_VALUE: Final = 1364
"""A column has neither a value nor a default."""
_CONFLICTS: Final = {
    ER.LOCK_DEADLOCK,
    ER.LOCK_WAIT_TIMEOUT,
    1020,  # the record has changed since last read
    3101,  # a member of the group was faster
    3572,  # a lock that was not to be waited for
}
# Errors that a value, a constraint or a rule of the service's own causes; pymysql's classes are wider.
_FAULTS: Final = {
    ER.DUP_KEY,
    ER.DUP_ENTRY,
    ER.BAD_NULL_ERROR,
    ER.NO_REFERENCED_ROW,
    ER.NO_REFERENCED_ROW_2,
    ER.ROW_IS_REFERENCED,
    ER.ROW_IS_REFERENCED_2,
    ER.WARN_DATA_OUT_OF_RANGE,
    ER.TRUNCATED_WRONG_VALUE,
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
    ER.WARN_DATA_TRUNCATED,
    ER.DIVISION_BY_ZERO,
    1118,  # a row too large
    1153,  # a packet too large, for the server
    1300,  # no text of the character set
    _NO_VALUE,
    1369,  # WITH CHECK OPTION
    1406,  # data too long
    1586,  # a duplicate entry, named by its key
    1644,  # SIGNAL
    1690,  # a number out of range
    1761,  # a duplicate entry by way of a foreign key
    1762,
    2020,  # a packet too large, for the client
    3140,  # no JSON
    3819,  # CHECK, of MySQL
    4025,  # CHECK, of MariaDB
}
_DISK_FULL: Final = {1021, 1114}  # InnoDB says of it, too, that a table is full
_OF_ENGINE: Final = 1030
_NO_SPACE: Final = re.compile(r"\b28\b")
"""The system's number for it, which the error of an engine quotes in any language of the server's."""
# Space, memory, connections, rights, a server that only reads or goes down.
_OUTAGES: Final = {
    *(1003, 1005, 1010, 1016, 1021, 1026, 1030, 1037, 1038, 1040, 1041, 1042, 1043, 1044, 1045, 1046, 1047, 1049),
    *(1053, 1077, 1078, 1079, 1080, 1114, 1129, 1130, 1135, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1194, 1195),
    *(1203, 1226, 1227, 1290, 1372, 1698, 1792, 1820, 1836, 1862, 1873, 1874, 1878, 1927, 3100, 3118, 3169, 4151),
}
_NOT_ADMITTED: Final = {
    *(1044, 1045, 1049, 1130, 1698),  # this user, password, database or host
    *(1059, 1102),  # a name that no database can have
    *(1820, 1862),  # a password that has expired
    *(3118, 4151),  # a locked account, of MySQL and of MariaDB
}
_NO_CONNECTION_LEFT: Final = {1040, 1203, 1226}
_NEEDS_TLS: Final = 3159
_NO_LOGIN: Final = {1045, 1698}
_NO_RIGHT: Final = {1142, 1143, 1370}
_SCHEMA: Final = {1054, 1146, 1136}
_CLIENT_ERRORS: Final = range(2000, 3000)
_SIGNALED: Final = "45"
"""The class for \"unhandled user-defined exception\": no error of the server's own is of it."""


def of_no_mysql(error: Exception) -> pymysql.MySQLError | OSError:
    """The driver's error for whatever was raised while it connected: it reads each answer as MySQL's, and may raise
    anything for that of another kind of server, or for a damaged one."""
    # The driver's own error for a packet that begins as none of MySQL's does has no number.
    is_of_packet = isinstance(error, pymysql.err.InternalError) and not _number(error)
    if isinstance(error, pymysql.MySQLError | OSError) and not is_of_packet:
        return error
    text = f"what answers is no MySQL or MariaDB, or something between damages it ({type(error).__name__}: {error})"
    return pymysql.err.OperationalError(CR.CR_MALFORMED_PACKET, text)


def depends_on_more(error: pymysql.MySQLError) -> bool:
    """Whether the number alone is no proof: a trigger's SIGNAL can choose any, and its statements can raise any."""
    number = _number(error)
    return number in _CONFLICTS or number in _OUTAGES or number in _SCHEMA


def column_without_value(error: pymysql.MySQLError) -> str | None:
    """The column that got no value, and has no default; None: the error is another one."""
    # "Field 'owner' doesn't have a default value", in the server's language.
    named = re.search("'(.+?)'", str(error.args[1])) if _number(error) == _NO_VALUE else None
    return None if named is None else named[1]


def is_signaled(state: str) -> bool:
    """Whether SIGNAL raised an error of this SQLSTATE, under any number."""
    return state.startswith(_SIGNALED)


def is_of_schema(error: BaseException) -> bool:
    """Whether the error says that a table or column is missing."""
    return isinstance(error, pymysql.MySQLError) and _number(error) in _SCHEMA


def lack(error: BaseException) -> Lack | None:
    """What the error says that a reader lacks; None: it says something else."""
    if not isinstance(error, pymysql.MySQLError):
        return None
    number = _number(error)
    if number in _NO_RIGHT:
        return "right"
    if number in _SCHEMA:
        return "table"
    if number in _NO_CONNECTION_LEFT:
        return "connection"
    if _is_of_tls(error):
        return "tls"
    return "login" if number in _NOT_ADMITTED else None


def translated(error: pymysql.MySQLError, names: Collection[str]) -> StoreError:  # noqa: PLR0911  # one for each kind
    """The port's error for one of the driver's; `names` are the lane's tables and columns."""
    number = _number(error)
    text = f"{type(error).__name__}: {error}"
    if number in _CONFLICTS:
        return Conflict(str(error))
    if number in _FAULTS:
        return BatchFault(text)
    if number in _NOT_ADMITTED or _is_of_tls(error):
        return NotAdmitted(f"MySQL: {text}: {MAKES_ROLES}" if number in _NO_LOGIN else f"MySQL: {text}")
    if number in _OUTAGES or number in _CLIENT_ERRORS:
        is_full = number in _DISK_FULL or (number == _OF_ENGINE and _NO_SPACE.search(text) is not None)
        return (DiskFull if is_full else StoreUnavailable)(f"MySQL: {text}")
    if number in _NO_RIGHT and _names(error, names):
        return NotAdmitted(
            f"MySQL: {text}: GRANT the lane's user what it needs (`coordinator database-accounts` prints it)"
        )
    if number in _SCHEMA and _names(error, names):
        return StoreUnavailable(f"MySQL: {text}: the schema is not as it must be, run `coordinator migrate`")
    if not number:
        # The driver's own: the connection is closed, or what a row holds cannot be sent.
        is_of_a_row = isinstance(error, pymysql.ProgrammingError | pymysql.DataError | pymysql.NotSupportedError)
        return BatchFault(text) if is_of_a_row else StoreUnavailable(f"MySQL: {text}")
    return BatchRefused(f"MySQL: {text}")


def _is_of_tls(error: pymysql.MySQLError) -> bool:
    """Whether the server has no TLS, has none that we take, or takes no connection without it."""
    if _number(error) == CR.CR_SSL_CONNECTION_ERROR:
        # Without another error it is the driver that misses TLS.
        return error.__context__ is None or refusal_in(error) is not None
    return _number(error) == _NEEDS_TLS or refusal_in(error) is not None


def _number(error: pymysql.MySQLError) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _names(error: pymysql.MySQLError, names: Collection[str]) -> bool:
    """Whether the error is about a table or column of the lane's, and not about one that a trigger uses."""
    text = str(error.args[1]) if len(error.args) > 1 else ""
    # A server with `lower_case_table_names` says those of tables in lower case.
    quoted = re.findall(r"[a-z0-9_$]+(?=[\'`])", text.lower())
    return not {name.lower() for name in names}.isdisjoint(quoted)
