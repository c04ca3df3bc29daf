"""How often a state that lasts is logged."""

from typing import Final

REPEATED_LINE_S: Final = 60.0


class RepeatedLine:
    """A line is due at once, and again after so long, for as long as its reason is met.

    Moments are seconds of a monotonic clock.
    """

    def __init__(self, every_s: float | None = None) -> None:
        self._every_s = every_s
        """None: REPEATED_LINE_S."""
        self._logged: dict[str, float] = {}

    def is_due(self, reason: str, now_s: float) -> bool:
        """Whether to log it now; then it counts as logged."""
        every_s = REPEATED_LINE_S if self._every_s is None else self._every_s
        if reason in self._logged and now_s < self._logged[reason] + every_s:
            return False
        late = {known: at_s for known, at_s in self._logged.items() if now_s < at_s + every_s}
        self._logged = late | {reason: now_s}
        return True
