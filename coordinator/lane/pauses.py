"""How long a lane waits before it tries the same deliveries again."""

from typing import Final

from coordinator.lane.basis import Blocked, HeldByMove, Outdated, PausedByOperator
from coordinator.lane.delivery import Suspension, SuspensionCause
from coordinator.lane.high_water import CommitsLost, MarkOutdated
from coordinator.runtime.settings import LaneSettings
from coordinator.stores.port import AnotherLanes, Conflict, NotAdmitted, Refusal, StoreUnavailable, trouble_of

_CONFLICT_DELAY_S = 0.01
_REFUSAL_DELAY_S = 0.05
_OPERATOR_DELAY_S = 1.0
_MOVE_DELAY_S = 0.1
"""Commands wait until this coordinator has seen that the lane is in the other database, and gives its queue up."""
_HANDOVER_DELAY_S = 0.05
"""Time for the acknowledgements of what came before: the next consumer need not get that again."""
_UNFIT: Final = (Outdated, CommitsLost, NotAdmitted, AnotherLanes)
"""Raised where another process may be able to apply what this one cannot."""
_NEXT_CHANNEL_S = 60.0
"""The next channel ends this pause; where the transport has none, the lane goes on at once."""
WATCH_EVERY_S = 1.0
"""An idle lane looks at its database this often. It must say within 5 s what it meets there, late answers included."""


class Pauses:
    """They grow from failure to failure, and start over with every success and every channel."""

    def __init__(self, settings: LaneSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._handovers = 0
        """How often in a row the lane was given up for another process. Each time it comes with another channel."""
        self._unfit_s = 0.0
        """How long it has been kept on this channel by one that is not fit for it."""
        self._channel_number: int | None = None

    def offered(self, channel_number: int) -> None:
        """Deliveries of this channel are to be applied.

        An outage under an earlier channel does not count: a takeover must not wait for it.
        """
        if channel_number != self._channel_number:
            self._channel_number = channel_number
            self._failures = 0
            self._unfit_s = 0.0

    def succeeded(self) -> None:
        """A batch made progress, or a conflict is looked into."""
        self._failures = self._handovers = 0
        self._unfit_s = 0.0

    def another_had_it(self) -> None:
        """Another process has gone on with the lane since this one gave it up: that one may be there again soon."""
        self._handovers = 0

    def idle(self, error: Exception) -> Suspension:
        """The verdict on a look at the database: no batch waits, so the next one is tried at once."""
        return Suspension(
            WATCH_EVERY_S,
            _reason(error),
            is_blocked=isinstance(error, Blocked),
            is_unfit=isinstance(error, _UNFIT),
            cause=_cause(error),
            trouble=trouble_of(error),
        )

    def after(self, error: Exception) -> Suspension:
        """The pause after a failure."""
        if isinstance(error, _UNFIT):
            return self._unfit(error)
        if isinstance(error, Blocked):
            delay_s = _MOVE_DELAY_S if isinstance(error, HeldByMove) else _OPERATOR_DELAY_S
            return Suspension(delay_s, _reason(error), is_blocked=True, cause=_cause(error))
        if isinstance(error, MarkOutdated):
            return Suspension(_NEXT_CHANNEL_S, str(error), needs_mark=True)
        if isinstance(error, StoreUnavailable):
            first_s = self._settings.retry_delay_s
        else:
            first_s = _REFUSAL_DELAY_S if isinstance(error, Refusal) else _CONFLICT_DELAY_S
        delay_s = min(first_s * 2 ** min(self._failures, 16), self._settings.retry_delay_s_max)
        self._failures += 1
        return Suspension(delay_s, _reason(error), cause=_cause(error), trouble=trouble_of(error))

    def _unfit(self, error: Exception) -> Suspension:
        """Where nobody takes the lane it comes back at once, and must not be given up again and again: it is kept for
        longer each time, and tried meanwhile, since an operator may act."""
        kept_s = min(_HANDOVER_DELAY_S * 4 ** min(self._handovers, 16), self._settings.retry_delay_s_max)
        left_s = kept_s - self._unfit_s
        stands_back = left_s <= _OPERATOR_DELAY_S
        if stands_back:
            self._handovers += 1
            self._unfit_s = 0.0
        else:
            self._unfit_s += _OPERATOR_DELAY_S
        return Suspension(
            left_s if stands_back else _OPERATOR_DELAY_S,
            _reason(error),
            is_blocked=isinstance(error, CommitsLost),
            is_unfit=True,
            stands_back=stands_back,
            cause=_cause(error),
            trouble=trouble_of(error),
        )


_CAUSES: tuple[tuple[type[Exception], SuspensionCause], ...] = (
    (HeldByMove, "move"),
    (PausedByOperator, "paused"),
    (Outdated, "newer_release"),
    (CommitsLost, "commits_lost"),
    (Blocked, "blocked"),
    (Conflict, "conflict"),
    (Refusal, "refusal"),
)


def _cause(error: Exception) -> SuspensionCause:
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), "database")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Blocked) else f"{type(error).__name__}: {error}"
