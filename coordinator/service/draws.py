"""Random bytes of the system, drawn many at a time: the call costs more than the few bytes that are needed."""

import os
from typing import Final

AT_ONCE: Final = 128


class Draws:
    """Draws of `size_bytes` each. None is given out twice, in any thread or forked process."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._left: list[bytes] = []
        os.register_at_fork(after_in_child=self._left.clear)

    def next(self) -> bytes:
        """One draw."""
        # A list's methods are atomic: no other thread gets the same.
        try:
            return self._left.pop()
        except IndexError:
            size = self._size_bytes
            drawn = os.urandom(size * AT_ONCE)
            self._left.extend(drawn[start : start + size] for start in range(size, len(drawn), size))
            return drawn[:size]
