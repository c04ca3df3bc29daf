"""For how long a provider has said nothing to calls that it was made, before any of them has had its time."""

from collections.abc import Callable

from coordinator.runtime.awaited import LATE_S, Late


class ProviderSilence:
    """The silence of one provider, in one process. `elapsed_s` is a monotonic clock. For one thread, but for `late`.

    A call may take longer than that (EFFECTS_CALL_TIMEOUT_S), and ten without an answer open the breaker: until then
    nothing else would tell.
    """

    def __init__(self, elapsed_s: Callable[[], float]) -> None:
        self._elapsed_s = elapsed_s
        self._calls = 0
        self._since_s: float | None = None

    @property
    def late(self) -> Late | None:
        """The provider's answer, if it is late. Any answer that comes is a sign of life."""
        since_s = self._since_s
        waited_s = 0.0 if since_s is None else self._elapsed_s() - since_s
        return None if since_s is None or waited_s < LATE_S else Late("the provider", since_s, waited_s)

    def begin(self) -> float:
        """A call is made. Returns the moment, for `end`."""
        self._calls += 1
        now_s = self._elapsed_s()
        if self._since_s is None:
            self._since_s = now_s
        return now_s

    def end(self, began_s: float, *, is_answered: bool, is_away: bool = False) -> None:
        """A call has ended. `is_away`: the provider is called now and then only, and is silent in between as well.

        A call that ends early was refused, or broken off: who does that is not silent, whatever it is called.
        """
        self._calls -= 1
        now_s = self._elapsed_s()
        if is_answered or now_s - began_s < LATE_S:
            self._since_s = now_s if self._calls else None
        elif not self._calls and not is_away:
            self._since_s = None
