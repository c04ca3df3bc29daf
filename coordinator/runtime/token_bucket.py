"""A token bucket: so many requests at once, and so many a second after that. A pure value with a clock from outside."""

from typing import Final

BYTES_OF_A_REQUEST: Final = 4096
"""So many bytes of a body count as one request more: reading them, to refuse them perhaps, costs less than a write."""


class TokenBucket:
    """Holds at most `tokens_max`, begins full, and gets `per_s` more each second.

    A request takes one token before anybody knows what else it costs, and pays the rest later: so there may be a debt,
    and no request is too large for ever. Within any time of T seconds at most `tokens_max` + `per_s` * T requests are
    taken. Times are seconds of a clock that does not go back; one that does adds nothing.
    """

    __slots__ = ("_per_s", "_seen_s", "_tokens", "_tokens_max")

    def __init__(self, per_s: float, tokens_max: int, now_s: float) -> None:
        # All are floats: to compare one with an integer takes several times as long.
        self._per_s, self._tokens_max = float(per_s), float(tokens_max)
        self._tokens = self._tokens_max
        self._seen_s = now_s

    def take(self, now_s: float, tokens: float = 1.0) -> bool:
        """Take a token, or so many; False: there are not so many."""
        there, seen_s = self._tokens, self._seen_s
        if now_s > seen_s:
            self._seen_s = now_s
            there += (now_s - seen_s) * self._per_s
            if there > self._tokens_max:  # noqa: PLR1730  # `min` takes longer than all else of it
                there = self._tokens_max
        is_enough = there >= tokens
        self._tokens = there - tokens if is_enough else there
        return is_enough

    def owes(self, now_s: float) -> bool:
        """Whether more was paid than was there, and the debt is not over yet."""
        return not self.take(now_s, 0.0)

    def pay(self, tokens: int) -> None:
        """Take so many more, whether they are there or not."""
        self._tokens -= tokens

    @property
    def left(self) -> int:
        """Requests that could be taken now, as of the last `take`."""
        # Python's `max` would take longer than all else of it.
        return int(self._tokens) if self._tokens > 0.0 else 0

    @property
    def more_in_s(self) -> float:
        """Until at least one request more could be taken, as of the last `take`."""
        return (max(0, int(self._tokens)) + 1 - self._tokens) / self._per_s
