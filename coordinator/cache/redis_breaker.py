"""A circuit breaker: callers need not wait for a Redis that does not answer."""

from typing import Final

PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 5.0


class RedisBreaker:
    """After a failure there is a pause without tries. It doubles with each further failed try, up to PAUSE_S_MAX.

    Moments are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._pause_s = 0.0
        self.try_at_s = float("-inf")
        """The end of the pause."""

    @property
    def is_open(self) -> bool:
        """Whether the last try failed."""
        return self._pause_s > 0

    def admits(self, now_s: float) -> bool:
        """Whether to try. After a pause one caller tries; the others follow when that has worked."""
        if now_s < self.try_at_s:
            return False
        if self._pause_s:
            self._begin_pause(now_s)
        return True

    def failed(self, now_s: float) -> None:
        """Begin a pause. Of tries that were under way together only the first failure counts."""
        if now_s >= self.try_at_s:
            self._begin_pause(now_s)

    def worked(self) -> None:
        """End the pause."""
        self._pause_s = 0.0
        self.try_at_s = float("-inf")

    def _begin_pause(self, now_s: float) -> None:
        self._pause_s = min(max(PAUSE_S, 2 * self._pause_s), PAUSE_S_MAX)
        self.try_at_s = now_s + self._pause_s
