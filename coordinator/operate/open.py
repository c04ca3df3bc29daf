"""Which `LaneAdmin` serves which lane."""

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.kinds import kind_of


@contextmanager
def lane_admin(lane: str) -> Iterator[LaneAdmin]:
    """The database of a lane, from `<LANE>_DATABASE_URL`; connects on first use. Raises ConfigurationError."""
    url = load(DatabaseSettings, prefix=f"{registry().service(lane).name.upper()}_").database_url
    admin = kind_of(url).open_admin(url, lane)
    try:
        yield admin
    finally:
        admin.close()
