"""What a process knows of a lane that it runs, for operators."""

from typing import NamedTuple

from msgspec import Struct

from coordinator.lane.delivery import SuspensionCause
from coordinator.lane.high_water import LastCommand


class CallsAtHand(Struct, frozen=True, kw_only=True):
    """A service's calls to the outside, as their worker in the process knows them: those that it carries out, and those
    that wait for their turn or their next attempt. `trouble` says what its provider does not do."""

    under_way: int
    waiting: int
    oldest_s: float
    is_provider_away: bool
    trouble: str | None


class AtHand(NamedTuple):
    """What a process knows of a lane that it runs."""

    waiting: int
    """How many commands wait for it."""
    suspended: str | None = None
    """Why it applies nothing, also where an operator has paused it; None: it does."""
    unwritable: str | None = None
    """Why no command can be made safe before it is applied; None: it can."""
    mark: int | None = None
    """The last sequence that it knows to be acknowledged; None: it has kept no mark."""
    holder: str | None = None
    """The name that it writes into the lease when it takes the lane, with the first command that comes."""
    calls: CallsAtHand | None = None
    """The calls to the outside of the lane's service; None: it makes none, or the process is of an earlier release."""
    cause: SuspensionCause | None = None
    """The kind of why it is suspended; None: the process does not say it, or one of another release says what nobody
    here knows."""
    lineage: str | None = None
    """The history of the lane to which `mark` belongs."""
    last: LastCommand | None = None
    """The last command of it that is known by its id."""
