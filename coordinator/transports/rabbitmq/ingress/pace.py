"""How fast the commands of one outside account go on: the share of a principal of a gateway (principal_limits.py)."""

import time
from collections.abc import Callable

from coordinator.runtime.ingress_settings import IngressSettings
from coordinator.runtime.token_bucket import TokenBucket

_EMPTY_WAIT_S_MAX = 1.0


class Pace:
    """A token bucket of one account, in one process."""

    def __init__(self, settings: IngressSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        rate_max = settings.account_rate_max
        self._bucket = TokenBucket(rate_max, settings.account_burst_max, clock()) if rate_max else None

    def take(self, cost: int) -> float | None:
        """Take the turn of a message of this cost. None: it is its turn now; else ask again after so many seconds.

        A message that costs more than is there is taken all the same, and those behind it wait for longer.
        """
        if self._bucket is None:
            return None
        if not self._bucket.take(self._clock()):
            return min(self._bucket.more_in_s, _EMPTY_WAIT_S_MAX)
        self._bucket.pay(cost - 1)
        return None
