"""How often a state that lasts is logged."""

from typing import Final

REPEATED_LINE_S: Final = 60.0


class RepeatedLine:
    """A line is due at once, and again once a minute for as long as its reason is met.

    Moments are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def is_due(self, reason: str, now_s: float) -> bool:
        """Whether to log it now; then it counts as logged."""
        if reason in self._logged and now_s < self._logged[reason] + REPEATED_LINE_S:
            return False
        late = {known: at_s for known, at_s in self._logged.items() if now_s < at_s + REPEATED_LINE_S}
        self._logged = late | {reason: now_s}
        return True
