"""Translates MongoDB's errors for a lane, by their code and labels."""

import re
from typing import Final

from pymongo.errors import BulkWriteError, ConnectionFailure, DuplicateKeyError, OperationFailure, PyMongoError

from coordinator.stores.port import (
    BatchFault,
    BatchRefused,
    Conflict,
    DiskFull,
    Lack,
    NotAdmitted,
    StoreError,
    StoreUnavailable,
)

_DUPLICATE_KEY: Final = 11000
_WRITE_CONFLICT: Final = 112
_LOCK_TIMEOUT: Final = 24
# Document validation, values and names that no document may have, and what is too large.
_FAULTS: Final = {_DUPLICATE_KEY, 52, 56, 57, 121, 257, 10334, 11001, 12582, 17280, 17419, 17420}
_UNAUTHORIZED: Final = 13
_NO_COLLECTION: Final = 26
_NO_SUCH_LOGIN: Final = {11, 18, 334}  # no such user; a wrong password; a mechanism that the server does not take
# Errors of a server that goes down, or is no primary.
_OUTAGES: Final = {
    6,
    7,
    43,
    89,
    91,
    133,
    134,
    189,
    244,
    251,
    262,
    9001,
    10107,
    11600,
    11602,
    13388,
    13435,
    13436,
}
_DISK_FULL: Final = 14031

# The driver has words only. Of a host's name one for threads, and one for a loop, have words of their own.
_REFUSED_TLS: Final = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|ALERT_(?!INTERNAL)|(IP address|Hostname) mismatch|is not valid for"
)
# Another host of the same set may be of use when it is back.
_AWAY: Final = re.compile(r"Errno|timed out|connection closed|No servers found")

_WHOSE: Final = (
    "whose transaction has changed it is shown by db.currentOp({transaction: {$exists: true}}) to a user with the role "
    "clusterMonitor"
)


def lack(error: PyMongoError) -> Lack | None:
    """What the error says that a reader lacks; None: it says something else. A missing collection is an empty one."""
    codes = _codes(error)
    if _UNAUTHORIZED in codes:
        return "right"
    if _is_of_tls(error):
        return "tls"
    return "login" if codes & _NO_SUCH_LOGIN else None


def translated(error: PyMongoError) -> StoreError:  # noqa: PLR0911  # one return for each kind
    """The port's error for one of the driver's."""
    # Behind this the driver tells what it knows of all servers, which differs from time to time.
    codes, text = _codes(error), f"{type(error).__name__}: {error}".partition(", Timeout:")[0]
    if error.has_error_label("UnknownTransactionCommitResult"):
        return StoreUnavailable(f"MongoDB: the outcome of a commit is unknown: {error}")
    if codes & _FAULTS:
        return BatchFault(text)
    if codes & {_WRITE_CONFLICT, _LOCK_TIMEOUT}:
        return Conflict(f"{error} ({_WHOSE})")
    if _UNAUTHORIZED in codes:
        return NotAdmitted(f"MongoDB: {text}: grant the lane's user the role readWrite")
    if codes & _NO_SUCH_LOGIN or _is_of_tls(error):
        return NotAdmitted(f"MongoDB: {text}")
    if _DISK_FULL in codes:
        return DiskFull(f"MongoDB: {text}")
    if _NO_COLLECTION in codes:
        return StoreUnavailable(f"MongoDB: {text}: run `coordinator migrate`")
    is_of_server = isinstance(error, OperationFailure) and not isinstance(error, ConnectionFailure)
    if is_of_server and codes and not codes & _OUTAGES and not error.has_error_label("TransientTransactionError"):
        return BatchRefused(f"MongoDB: {text}")
    return StoreUnavailable(f"MongoDB: {text}")


def _is_of_tls(error: PyMongoError) -> bool:
    """Whether no server has TLS that we take."""
    text = str(error)
    is_refused = isinstance(error, ConnectionFailure) and _REFUSED_TLS.search(text) is not None
    return is_refused and _AWAY.search(text) is None


def _codes(error: PyMongoError) -> set[int]:
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        return {problem.get("code", 0) for problem in details.get("writeErrors", [])}
    if isinstance(error, DuplicateKeyError):
        return {_DUPLICATE_KEY}
    code = getattr(error, "code", None)
    return set() if code is None else {code}
