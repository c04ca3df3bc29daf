"""Which entries of the log stay for longer than its retention: those by which it is known what became of an order."""

from datetime import datetime, timedelta
from typing import Final

from coordinator.runtime.clock import utc_now

ORDERS_SHOWN: Final = timedelta(days=30)
"""For how long operators are shown what became of an order to forget."""
ORDERS: Final = ("lane.forget", "lane.forget_step", "lane.forget_asked")
"""They have nothing of the person's in them."""
ASKED: Final = "forget asked"
"""The act by which operators note that they have given such orders: it stays as long."""


def cutoff_of_orders(cutoff: datetime) -> datetime:
    """The cutoff of these, where that of all others is given."""
    return min(cutoff, utc_now() - ORDERS_SHOWN)


def cutoff_of(command_type: str, cutoff: datetime) -> datetime:
    """That of the entries of one type."""
    return cutoff_of_orders(cutoff) if command_type in ORDERS else cutoff
