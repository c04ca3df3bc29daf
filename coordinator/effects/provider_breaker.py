"""A circuit breaker: when a provider is away, it gets one call now and then, instead of one for every effect.

Closed: calls are made. After a number of failures in a row it is open: no call is made for a while. Then it is
half-open: one call goes ahead, and its end closes the breaker, or opens it for twice as long.
(M. Nygard, Release It!, "Circuit Breaker".)
"""

from collections.abc import Callable
from typing import Final

from coordinator.runtime.settings import EffectSettings

_FIRST_PAUSE_S: Final = 1.0


class ProviderBreaker:
    """The breaker of one provider, in one process. `clock` is monotonic, in seconds; `chance` draws from 0 to 1."""

    def __init__(self, settings: EffectSettings, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._pause_s = 0.0
        self._open_until_s = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether the provider counts as away."""
        return self._pause_s > 0

    def wait_s(self) -> float:
        """0: the caller may make a call, and must note its end. Otherwise the time to wait before it asks again."""
        if not self.is_open:
            return 0.0
        left_s = self._open_until_s - self._clock()
        if left_s > 0:
            return left_s
        if self._is_probing:
            return min(_FIRST_PAUSE_S, self._settings.breaker_pause_s_max)
        self._is_probing = True
        return 0.0

    def succeeded(self) -> None:
        """The provider answered."""
        self._failures = 0
        self._pause_s = 0.0
        self._is_probing = False

    def failed(self) -> bool:
        """The provider did not answer, or with a fault of its own. Return whether this opens the breaker."""
        self._failures += 1
        if self.is_open and not self._is_probing:  # a call that began before
            return False
        if not self.is_open and self._failures < self._settings.breaker_failures:
            return False
        is_new = not self.is_open
        longest_s = self._settings.breaker_pause_s_max
        self._pause_s = min(longest_s, 2 * self._pause_s or _FIRST_PAUSE_S)
        # Workers of one provider should not ask all at once.
        self._open_until_s = self._clock() + self._pause_s * (0.5 + self._chance() / 2)
        self._is_probing = False
        return is_new

    def left(self) -> None:
        """The call was broken off, so its end says nothing about the provider."""
        self._is_probing = False
