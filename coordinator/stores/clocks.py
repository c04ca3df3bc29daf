"""Whether two clocks agree, where a time decides what is forgotten, or for how long something counts."""

from datetime import datetime, timedelta
from typing import Final

CLOCKS_APART_MAX: Final = timedelta(minutes=1)
"""How far a process's clock and that of the lane's database may be apart."""

SAID_AHEAD_S: Final = 5.0
"""How far the clock of a lane's process may be ahead of that of its database, or behind it, without a word of it."""
CLOCK_OF_LANE: Final = "the clock of its machine is"
"""How the words about that begin."""


def ahead_words(ahead_s: float) -> str | None:
    """What is wrong with the clock of a lane's process; None: nothing, or it is not known (NaN)."""
    if not abs(ahead_s) > SAID_AHEAD_S:
        return None
    side = "ahead of" if ahead_s > 0 else "behind"
    return f"{CLOCK_OF_LANE} {abs(ahead_s):.0f} s {side} that of its database: correct the one that is wrong"


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
