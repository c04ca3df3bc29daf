"""Whether two clocks agree, where a time decides what is forgotten, or for how long something counts."""

from datetime import datetime, timedelta
from typing import Final

CLOCKS_APART_MAX: Final = timedelta(minutes=1)
"""How far a process's clock and that of the lane's database may be apart."""


def clocks_apart(lane: str, here: datetime, there: datetime | None) -> str | None:
    """What is wrong, if this machine's clock and the one of the lane's database are too far apart.

    `there` is None without a server: then there is one clock.
    """
    if there is None or abs(here - there) <= CLOCKS_APART_MAX:
        return None
    return (
        f"this machine's clock says {here:%Y-%m-%d %H:%M:%SZ}, and that of the database of {lane} "
        f"{there:%Y-%m-%d %H:%M:%SZ}: correct the one that is wrong"
    )
