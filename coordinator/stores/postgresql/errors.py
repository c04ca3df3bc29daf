"""Translates PostgreSQL's errors for a lane, by their SQLSTATE and by their place in the server.

Messages come in the server's language, so nothing here reads them. An error within a function, such as a trigger's,
has a `context`; `source_function` names the server's own function.
"""

import re
from typing import Final

import psycopg
from psycopg import errors

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
from coordinator.stores.postgresql.direct_tls import REFUSED as NO_DIRECT_TLS

POOLER: Final = (
    "PostgreSQL: a pooler (PgBouncer or the like) stands between, and a lane and a migration need a session of their "
    "own: give the address of the server itself, or of a proxy for TCP; only gateways and operators' commands work "
    "through a pooler"
)

_LOCK_NOT_AVAILABLE: Final = "55P03"
_CONFLICTS: Final = {"40001", "40P01", _LOCK_NOT_AVAILABLE}  # serialization failure, deadlock
# Data, integrity, check options, limits, and the exceptions of the service's own triggers and functions.
_FAULT_CLASSES: Final = {"21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0", "09"}
# Connection, plans and statements that are out of date, authorization, resources, operators, the server itself.
_DISK_FULL: Final = "53100"
_OUTAGE_CLASSES: Final = {"08", "0A", "25", "26", "40", "53", "57", "58", "F0"}
_NOT_ADMITTED: Final = {"28", "3D"}  # authorization, no such database
# libpq gives no SQLSTATE for a refused connection. A refusal in another language counts as an outage.
_REFUSED_LOGIN: Final = re.compile(
    r"FATAL: +(password authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|"
    r"(role|database) \".*\" (does not exist|is not permitted to log in|is not currently accepting connections)|"
    r"permission denied for database)"
    r"|no password supplied"
)
_NO_ROLE: Final = re.compile(r"FATAL: +(password authentication failed|role \".*\" does not exist)")
# libpq's own words, which have no language here. Our session and the server do not agree about TLS, or about how to log
# in. A handshake that ended, or took too long, is not of them.
_REFUSED_TLS: Final = re.compile(
    r"server does not support SSL|certificate verify failed|does not match host name"
    r"|(ssl|tls)v\d+ alert (?!internal error)|unsupported protocol|wrong version number"
    r"|channel binding required|GSSAPI encryption required|server doesn't support GSSAPI encryption"
    r"|authentication method requirement"
    rf"|{NO_DIRECT_TLS}"
)
_EACH_ATTEMPT: Final = " - host: "
# So it does what an address's `options` set for a session: the value is wrong, or this role may not set it.
_REFUSED_SESSION: Final = re.compile(
    r"FATAL: +(unrecognized configuration parameter|invalid value for parameter|invalid command-line argument|"
    r"parameter \".*\" (cannot|requires)|permission denied to set|could not access file|"
    r".* is outside the valid range for parameter)"
)
# These may pass by themselves.
_NO_CONNECTION_LEFT: Final = re.compile(
    r"FATAL: +(sorry, )?(too many (clients|connections)|remaining connection slots)"
)
# A pooler's answers to the parameters that a lane sets for its session; PostgreSQL itself takes them.
_POOLED: Final = re.compile(r"unsupported startup parameter|unrecognized startup parameter")
NULL_REFUSED: Final = "23502"
_QUERY_CANCELED: Final = "57014"
_NO_RIGHT: Final = "42501"
_TOO_MANY: Final = "53300"
_SCHEMA: Final = {"42P01", "42703", "3F000"}  # no such table, column or schema
_CORRUPT: Final = {"XX001", "XX002"}
_RAISED: Final = "exec_stmt_raise"
_POLICY: Final = "ExecWithCheckOptions"
_HIDDEN: Final = "check_enable_rls"
_DEADLOCK: Final = "40P01"
_CATALOGUE_CHANGED: Final = {"simple_heap_update", "simple_heap_delete"}
"""What says "tuple concurrently updated", in the server's language, where two sessions give rights on one table."""


def is_of_schema(error: BaseException) -> bool:
    """Whether the error says that a table, a column or a schema is missing."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _SCHEMA


def is_of_right(error: BaseException) -> bool:
    """Whether the error says that the role lacks a right."""
    return isinstance(error, psycopg.Error) and error.sqlstate == _NO_RIGHT


def is_of_policy(error: BaseException) -> bool:
    """Whether a statement has met a policy where `row_security` is off."""
    return isinstance(error, psycopg.Error) and error.diag.source_function == _HIDDEN


def is_lock_timeout(error: BaseException) -> bool:
    """Whether a statement has waited too long for another session's lock."""
    return isinstance(error, psycopg.Error) and error.sqlstate == _LOCK_NOT_AVAILABLE


def has_met_another(error: BaseException) -> bool:
    """Whether another session has changed roles or rights at the same moment."""
    if not isinstance(error, psycopg.Error):
        return False
    # Of a role that both make, the catalogue's own index tells.
    is_made = isinstance(error, errors.UniqueViolation) and error.diag.schema_name == "pg_catalog"
    return is_made or error.sqlstate == _DEADLOCK or error.diag.source_function in _CATALOGUE_CHANGED


def is_of_value(error: BaseException) -> bool:
    """Whether the driver may be unable to decode a value of a row; or to encode a value that is asked for."""
    return isinstance(error, psycopg.DataError) and error.sqlstate is None


def lack(error: BaseException) -> Lack | None:
    """What the error says that a reader lacks; None: it says something else."""
    if not isinstance(error, psycopg.Error):
        return None
    if is_of_right(error):
        return "right"
    if is_of_schema(error):
        return "table or schema"
    if error.sqlstate == _TOO_MANY or (error.sqlstate is None and _NO_CONNECTION_LEFT.search(str(error))):
        return "connection"
    if not isinstance(translated(error), NotAdmitted):
        return None
    return "tls" if error.sqlstate is None and _REFUSED_TLS.search(str(error)) else "login"


def pooler_refusing(error: BaseException) -> str | None:
    """The reason, if a pooler has refused a parameter that the connection asked for."""
    text = " ".join(str(error).split())
    is_pooled = isinstance(error, psycopg.Error) and error.sqlstate is None and _POOLED.search(text)
    return f"{POOLER} ({text})" if is_pooled else None


def translated(error: psycopg.Error) -> StoreError:  # noqa: PLR0911  # one return for each kind
    """The port's error for one of the driver's."""
    state, text = error.sqlstate, f"{type(error).__name__}: {' '.join(str(error).split())}"
    if state is None:
        return _of_no_server(error, text)
    if state in _CONFLICTS and error.diag.source_function != _RAISED:
        return Conflict(text)
    if _is_fault(error, state):
        return BatchFault(text)
    if state == _QUERY_CANCELED or error.diag.context is not None:
        return BatchRefused(f"PostgreSQL: {text}")
    if state[:2] in _NOT_ADMITTED:
        return NotAdmitted(f"PostgreSQL: {text}")
    if state[:2] in _OUTAGE_CLASSES or state in _CORRUPT:
        return (DiskFull if state == _DISK_FULL else StoreUnavailable)(f"PostgreSQL: {text}")
    if state == _NO_RIGHT:
        return NotAdmitted(
            f"PostgreSQL: {text}: GRANT the lane's role what it needs (`coordinator database-accounts` prints it)"
        )
    if state[:2] == "42" or is_of_schema(error):
        return StoreUnavailable(f"PostgreSQL: {text}: the schema is not as it must be, run `coordinator migrate`")
    return BatchRefused(f"PostgreSQL: {text}")


def _of_no_server(error: psycopg.Error, text: str) -> StoreError:
    """The driver's own error: it got no connection, lost it, or could not send a row's value."""
    if isinstance(error, psycopg.DataError | psycopg.NotSupportedError | psycopg.ProgrammingError):
        return BatchFault(text)
    if (problem := pooler_refusing(error)) is not None:
        return NotAdmitted(problem)
    # Of several hosts the driver tells what each has said: one that is away may come back.
    kind = NotAdmitted if all(map(_is_refused, text.split(_EACH_ATTEMPT)[1:] or [text])) else StoreUnavailable
    advice = f": {MAKES_ROLES}" if kind is NotAdmitted and _NO_ROLE.search(text) else ""
    return kind(f"PostgreSQL: {text}{advice}")


def _is_refused(text: str) -> bool:
    """Whether a server that answers will refuse the next attempt, too."""
    return any(refused.search(text) for refused in (_REFUSED_LOGIN, _REFUSED_SESSION, _REFUSED_TLS))


def _is_fault(error: psycopg.Error, state: str) -> bool:
    """Whether a row, or a rule of the service's own, is certainly the reason."""
    if error.diag.source_function == _RAISED:
        return True
    if state == _NO_RIGHT:
        return error.diag.source_function == _POLICY
    return state[:2] in _FAULT_CLASSES
