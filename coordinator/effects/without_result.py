"""The effects without a result that one worker knows of, and the time since which each is asked for."""

import time
from collections.abc import Callable
from typing import Final

_KNOWN_MAX: Final = 10_000
_SPARE_S: Final = 60.0


class EffectsWithoutResult:
    """Effects under way here, and those put back lately, which another worker may have finished meanwhile.

    An effect that was put back is forgotten `remember_s` after it was due.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, float]] = {}

    def seen(self, effect_id: str, asked_at_s: float, due_at_s: float) -> None:
        """Note an effect that is under way, or put back until then."""
        if effect_id in self._known or len(self._known) < _KNOWN_MAX:
            self._known[effect_id] = asked_at_s, due_at_s

    def done(self, effect_id: str) -> None:
        """Note that an effect has its result."""
        self._known.pop(effect_id, None)

    def oldest_s(self) -> float:
        """The age of the oldest; 0 where there is none."""
        now_s = self._clock()
        late = [each for each, (_, due_at_s) in self._known.items() if due_at_s + _SPARE_S < now_s]
        for effect_id in late:
            del self._known[effect_id]
        return max((now_s - asked_at_s for asked_at_s, _ in self._known.values()), default=0.0)
