"""Which emitted commands are on their way to the broker: for each target a window over the outbox table, by its ids.

What does not fit a window stays in the table and is read later, so that a queue that takes nothing for long costs rows,
not memory, and delays nobody else: each target has a window of its own.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import CommandMessage, with_options
from coordinator.service.options import Options
from coordinator.stores.lane_tables import OutboxEntry

PAGES_AT_ONCE = 4
"""Targets of which one transaction reads more."""


class OutboxPage(Struct, frozen=True):
    """What is to be read: the entries of one target with ids above `after`."""

    target: str
    after: int


class _TargetWindow:
    """One target: what is handed out, how far the table is read, and whether there is more in it."""

    def __init__(self) -> None:
        self.handed: set[int] = set()
        self.last = 0
        self.is_behind = False


class Outbox:
    """What this consumer has handed out to be published, and how far it has read the table."""

    def __init__(self, window_max: int) -> None:
        self._window_max = window_max
        self.page_rows = (window_max + 1) // 2
        self._windows: dict[str, _TargetWindow] = {}
        self._confirmed: dict[int, OutboxEntry] = {}

    def begin_again(self, targets: Iterable[str]) -> None:
        """The lease is new, or was in doubt: what the table has for these targets is read again.

        Of that, what is known to be confirmed is not handed out again.
        """
        self._windows = {target: _TargetWindow() for target in targets}
        for window in self._windows.values():
            window.is_behind = True

    def confirm(self, entries: Iterable[OutboxEntry]) -> None:
        """The broker has these."""
        for entry in entries:
            self._window(entry.lane).handed.discard(entry.id)
            self._confirmed[entry.id] = entry

    @property
    def confirmed(self) -> list[OutboxEntry]:
        """What the next transaction is to delete."""
        return list(self._confirmed.values())

    def deleted(self, entries: Iterable[OutboxEntry]) -> None:
        """These are gone from the table."""
        for entry in entries:
            self._confirmed.pop(entry.id, None)

    def withdrawn(self, ids: Iterable[int]) -> None:
        """An operator had these removed from the table."""
        for number in ids:
            self._confirmed.pop(number, None)
            for window in self._windows.values():
                window.handed.discard(number)

    def pages(self) -> list[OutboxPage]:
        """What the next transaction is to read: there is more, and room for it."""
        pages = [
            OutboxPage(target, window.last)
            for target, window in self._windows.items()
            if window.is_behind and len(window.handed) <= self._window_max - self.page_rows
        ]
        return pages[:PAGES_AT_ONCE]

    def read(self, target: str, page: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """Note a page that was read; return the entries to publish."""
        window = self._windows.pop(target)
        # Those of whom a page was read stand behind the others.
        self._windows[target] = window
        window.is_behind = len(page) == self.page_rows
        return self._hand(window, [entry for entry in page if entry.id not in self._confirmed], page)

    def emitted(self, entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """Note entries that are new in the table; return those to publish now. The others are read later."""
        by_target: dict[str, list[OutboxEntry]] = {}
        for entry in entries:
            by_target.setdefault(entry.lane, []).append(entry)
        handed: list[OutboxEntry] = []
        for target, its in by_target.items():
            window = self._window(target)
            if window.is_behind or len(window.handed) + len(its) > self._window_max:
                window.is_behind = True
            else:
                handed += self._hand(window, its, its)
        return handed

    def _window(self, target: str) -> _TargetWindow:
        window = self._windows.get(target)
        if window is None:
            window = self._windows[target] = _TargetWindow()
        return window

    def _hand(
        self, window: _TargetWindow, entries: Sequence[OutboxEntry], seen: Sequence[OutboxEntry]
    ) -> list[OutboxEntry]:
        window.last = max((entry.id for entry in seen), default=window.last)
        window.handed.update(entry.id for entry in entries)
        return list(entries)


def message_of(entry: OutboxEntry) -> CommandMessage:
    """An emitted command as it travels."""
    message = CommandMessage(command_id=entry.command_id, type=entry.type, arguments=entry.arguments)
    options = msgspec.structs.replace(Options.decode(entry.options), continuation=entry.continuation)
    return with_options(message, options)
