"""What a migration waits for: never in silence, and never for ever."""

import time
from collections.abc import Callable
from itertools import count
from typing import Final

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from coordinator.service.errors import ConfigurationError
from coordinator.stores.sql.dialect import Dialect

WAIT_S_MAX: Final = 60.0
"""How long a migration waits for one lock before it ends."""
_LOOK_EVERY_S: Final = 0.2
_MET_MAX: Final = 50
"""How often another one is met before that is an error: those who give rights take turns of some hundredths."""
_TRY_EVERY_S: Final = 1.0
"""Meanwhile the lane gets at the table, behind a statement of ours that waited for it."""

log = structlog.get_logger("migrate")


def take_turn(taken: Callable[[], bool], holder: Callable[[], str], wait_s_max: float = WAIT_S_MAX) -> None:
    """Call `taken` until it has the lock of migrations, and log at once whose it is.

    Raises ConfigurationError after `wait_s_max`, which names the holder: any role can have such a lock.
    """
    ends_at_s = time.monotonic() + wait_s_max
    said = ""
    while not taken():
        who = holder()
        if who != said:
            log.warning("migration_waits", reason=f"{who} has the lock of migrations of this database")
            said = who
        if time.monotonic() >= ends_at_s:
            raise ConfigurationError(
                f"{who} has had the lock of migrations of this database for {wait_s_max:g} s: wait for that migration, "
                "or end that session if it is none"
            )
        time.sleep(_LOOK_EVERY_S)


def despite_others(dialect: Dialect, connection: Connection, step: Callable[[], None]) -> None:
    """Run a step that gives or takes rights, and commit it, again where another session has done so at the same moment:
    another migration, or `database-accounts --apply`. Raises what the last of several attempts raises.
    """
    for tried in count(1):
        try:
            step()
            connection.commit()
        except DBAPIError as error:
            connection.rollback()
            if error.orig is None or not dialect.has_met_another(error.orig) or tried == _MET_MAX:
                raise
            time.sleep(_LOOK_EVERY_S)
        else:
            return


def despite_locks(
    dialect: Dialect, connection: Connection, step: Callable[[], None], wait_s_max: float = WAIT_S_MAX
) -> None:
    """Run a step that may be run again, until no lock of another session's is in its way.

    Each statement of it waits briefly (`Dialect.bound_locks`), since a lane waits behind one that waits for a table.
    Raises ConfigurationError after `wait_s_max`, which says who has locks.
    """
    ends_at_s = time.monotonic() + wait_s_max
    said = ""
    while True:
        try:
            return step()
        except DBAPIError as error:
            if error.orig is None or not dialect.is_lock_timeout(error.orig):
                raise
            connection.rollback()
            who = dialect.lock_holders(connection)
            connection.rollback()
            if time.monotonic() >= ends_at_s:
                raise ConfigurationError(
                    f"a table to be changed has been locked by others for {wait_s_max:g} s: {who}. End that session or "
                    "transaction, or run it again later"
                ) from None
            if who != said:
                log.warning("migration_waits", reason=f"a table to be changed is locked: {who}")
                said = who
            time.sleep(_TRY_EVERY_S)
