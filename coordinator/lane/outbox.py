"""Which emitted commands are on their way to the broker: a window over the outbox table, in order of its ids.

What does not fit the window stays in the table and is read later, so that a broker or a queue that takes nothing for
long costs rows, not memory.
"""

from collections.abc import Iterable, Sequence

from shared.lane_tables import OutboxEntry


class Outbox:
    """What this consumer has handed out to be published, and how far it has read the table."""

    def __init__(self, window_max: int) -> None:
        self._window_max = window_max
        self.page_rows = (window_max + 1) // 2
        self._handed: set[int] = set()
        self._last = 0
        self._is_behind = False
        self._confirmed: dict[int, OutboxEntry] = {}

    def begin_again(self) -> None:
        """The lease is new, or was in doubt: the table is read anew, but for what is known to be confirmed."""
        self._handed.clear()
        self._last = 0
        self._is_behind = True

    def confirm(self, entries: Iterable[OutboxEntry]) -> None:
        """The broker has these."""
        for entry in entries:
            self._handed.discard(entry.id)
            self._confirmed[entry.id] = entry

    @property
    def confirmed(self) -> list[OutboxEntry]:
        """What the next transaction is to delete."""
        return list(self._confirmed.values())

    def deleted(self, entries: Iterable[OutboxEntry]) -> None:
        """These are gone from the table."""
        for entry in entries:
            self._confirmed.pop(entry.id, None)

    @property
    def read_after(self) -> int | None:
        """The id after which to read the next page, if there is anything to read and room for it."""
        return self._last if self._is_behind and len(self._handed) <= self._window_max - self.page_rows else None

    def read(self, page: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """A page was read: what of it to publish."""
        self._is_behind = len(page) == self.page_rows
        return self._hand([entry for entry in page if entry.id not in self._confirmed], page)

    def emitted(self, entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """These are new in the table: what of them to publish now. The others are read from the table in their turn."""
        if not entries:
            return []
        if self._is_behind or len(self._handed) + len(entries) > self._window_max:
            self._is_behind = True
            return []
        return self._hand(entries, entries)

    def _hand(self, entries: Sequence[OutboxEntry], seen: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        self._last = max((entry.id for entry in seen), default=self._last)
        self._handed.update(entry.id for entry in entries)
        return list(entries)
