"""Opens the `LaneAdmin` of a lane."""

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.runtime.addresses import address_of, parse_address
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.kinds import kind_of


@contextmanager
def lane_admin(lane: str) -> Iterator[LaneAdmin]:
    """The database of a lane, from `<LANE>_DATABASE_URL`; connects on first use. Raises ConfigurationError."""
    # Of the service no more than its name: its code may be what is broken.
    prefix = f"{lane.upper()}_"
    address = parse_address(load(DatabaseSettings, prefix=prefix).database_url)
    with address_of(f"{prefix}DATABASE_URL"):
        admin = kind_of(address).open_admin(address, lane)
    try:
        yield admin
    finally:
        admin.close()
