"""A database is one lane's: `coordinator migrate` writes its lease row, and another lane's process goes no further.

Settings are easily exchanged, and all lanes have the same tables. An operator's change in the wrong database would
seem to succeed and do nothing, and its row would keep the database's own lane from starting.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.port import AnotherLanes

LANES_READ_MAX = 10
"""How many lease rows are read to find another lane's: a database has one."""


class WrongDatabase(ConfigurationError):
    """Raised for a database that is another lane's, before anything is written there."""


def check_lane(lanes: Iterable[str], lane: str, *, is_migration: bool = False) -> None:
    """Raise WrongDatabase if the lease rows of a database are not those of this lane alone.

    `is_migration`: its address is `<LANE>_MIGRATION_URL`, and not `<LANE>_DATABASE_URL`.
    """
    other = other_lane(lanes, lane)
    if other is not None:
        setting = f"{settings_prefix(lane)}{'MIGRATION' if is_migration else 'DATABASE'}_URL"
        raise WrongDatabase(f"the database of {setting} is that of lane {other}: a lane needs its own")


def check_still_own(lanes: Iterable[str], lane: str) -> None:
    """The same for a lane that runs, whose database may be exchanged beneath it and be put back.

    Raises AnotherLanes.
    """
    try:
        check_lane(lanes, lane)
    except WrongDatabase as error:
        raise AnotherLanes(str(error)) from None


def other_lane(lanes: Iterable[str], lane: str) -> str | None:
    """Another lane that has a lease row in the database of this one; None: there is none."""
    return next((each for each in lanes if each != lane), None)


def parts_lost(lane: str, parts: Sequence[str]) -> ConfigurationError:
    """A new one in the place of a lost part would be believed, empty as it is."""
    return ConfigurationError(
        f"{lane}: the database has lost the lane's {', '.join(parts)}, which `coordinator migrate` had made: "
        "somebody has dropped or renamed it. Give it back its name, or bring it back from a backup"
    )


def lease_lost(lane: str) -> ConfigurationError:
    """With a new one in its place the lane would begin again at its first sequence, above rows that it has left."""
    return ConfigurationError(
        f"{lane}: the database has lost the lane's row of {LEASE_TABLE}, which says how far the lane had come: "
        "somebody has deleted it. Bring it back from a backup. If it is lost for good, have the lane go on above the "
        f"last sequence that was acknowledged: `coordinator accept-loss {lane} --at 0 --up-to SEQUENCE`"
    )


def unused_lease(now: datetime) -> dict[str, object]:
    """The lease of a lane that never ran, apart from the lane's name."""
    return {
        "epoch": 0,
        "sequence": 0,
        "batches": 0,
        "revision": 0,
        "paused": None,
        "holder": "",
        "taken_at": now,
    }
