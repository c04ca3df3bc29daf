"""Where the transport had what a lane has settled last, as the lane's database knows it."""

from collections.abc import Callable
from contextlib import closing
from typing import Final

from coordinator.stores.admin import LaneAdmin
from coordinator.stores.passages import passage_of

LOOKED_AT: Final = 5000
"""How many of the last entries are looked at: the first one of each transaction has a place."""


def last_place(open_admin: Callable[[], LaneAdmin]) -> str | None:
    """The place of the last transaction that has one; None: there is none. Raises Unavailable, ConfigurationError."""
    with closing(open_admin()) as admin:
        last = admin.sequence()
        for entry in reversed(admin.passages(max(1, last - LOOKED_AT + 1), last)):
            if (place := passage_of(entry.passage).place) is not None:
                return place
    return None
