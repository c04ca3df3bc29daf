"""Which of a batch's commands to try together next, so that few transactions find those that the database refuses.

The commands are decided in their order. A refused piece is halved: if its first half commits, the second is suspected
without being tried as a whole. A command that was refused alone is a culprit; it is *carried*, and is recorded in the
transaction that tries the commands after it. So k culprits among n commands cost at most min(2n, 2k·log2(n) + 1)
transactions, and one more among fewer than six. A command that is left of a refused batch is tried alone before it is
called the culprit, since commands may be refused only because of their company, as when two rows swap a unique value.
"""

CARRIED_MAX = 16
"""How many culprits wait to be recorded together, as long as the refusal of each is certain."""


class Pieces:
    """The search through one batch. Every `size` is answered with `committed` or `refused`."""

    def __init__(self, count: int, *, first: int | None = None) -> None:
        self._count = count
        self._left = count
        self._suspected = 0
        self._stride = count if first is None else first
        self._limit = count
        self._was_refused = False
        self._tried = 0
        self._found = 0
        self.carried = 0
        """How many culprits, in front of the commands that are left, the next transaction is to record."""

    @property
    def left(self) -> int:
        """How many commands are undecided."""
        return self._left

    @property
    def is_done(self) -> bool:
        """Whether every command is settled."""
        return not self._left and not self.carried

    @property
    def is_whole(self) -> bool:
        """Whether nothing was refused yet."""
        return not self._was_refused

    def size(self, *, records_first: bool = False) -> int:
        """How many commands to try, beside the carried culprits; 0: only record those."""
        if not self._left or records_first:
            return 0
        size = self._suspected // 2 if self._suspected else min(self._stride, self._left, self._limit)
        # One by one, the rest costs one transaction for each command, and one for the last record.
        if size > 1 and self._tried and self._tried + 1 + self._left + 1 > 2 * self._count:
            return 1
        return max(1, size)

    def committed(self, size: int) -> None:
        """The commands of that size are settled, and the carried culprits are recorded."""
        self._tried += 1
        self.carried = 0
        self._left -= size
        if self._suspected:
            self._suspected = max(0, self._suspected - size)
        else:
            self._stride *= 2

    def refused(self, size: int, *, is_certain: bool = True) -> bool:
        """The commands of that size are refused; True: it was a single command, which is carried from now on.

        If the reason is uncertain, the piece may just be too large, until one of its commands is found to be a culprit.
        """
        self._tried += 1
        self._was_refused = True
        if size > 1:
            self._suspected = size
            self._limit = self._limit if is_certain else max(1, size // 2)
            return False
        self._limit = self._count
        self._suspected = max(0, self._suspected - 1)
        self._left -= 1
        self._found += 1
        self.carried += 1
        self._stride = max(1, self._left // self._found)
        return True

    def release(self) -> None:
        """Try all carried culprits but the first again."""
        self._left += self.carried - 1
        self._suspected = 0
        self._stride = max(1, self._left // max(1, self._found))
        self.carried = 1
