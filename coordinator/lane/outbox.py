"""Which emitted commands are on their way to the broker: for each target a window over the outbox table, by its ids.

Entries that do not fit into a window stay in the table and are read later. So a queue that takes nothing for long costs
rows, not memory, and does not delay other targets: each target has a window of its own.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import CommandMessage, with_options
from coordinator.service.options import Options
from coordinator.stores.lane_tables import OutboxEntry

PAGES_AT_ONCE = 4
"""How many targets one transaction reads more entries of."""


class OutboxPage(Struct, frozen=True):
    """A page to read: the entries of one target with ids above `after`."""

    target: str
    after: int


class _TargetWindow:
    """One target: the entries that are handed out, how far the table is read, and whether it has more."""

    def __init__(self) -> None:
        self.handed: dict[int, str] = {}
        """The ids of their commands, by their numbers."""
        self.last = 0
        self.is_behind = False


class Outbox:
    """The entries that this consumer has handed out for publishing, and how far it has read the table."""

    def __init__(self, window_max: int, takes_at_once: Callable[[str], bool] = lambda _: False) -> None:
        """`takes_at_once`: whether a target has what is handed out for it, though it is confirmed only once it is
        settled there."""
        self._window_max = window_max
        self._takes_at_once = takes_at_once
        self.page_rows = (window_max + 1) // 2
        self._windows: dict[str, _TargetWindow] = {}
        self._confirmed: dict[int, OutboxEntry] = {}
        self._to_publish: dict[int, OutboxEntry] = {}
        """Those of the handed out ones that no settlement has taken yet."""
        self._out_before: dict[int, str] = {}
        """Those that were handed out under a lease before, and may be with their targets."""

    def begin_again(self, targets: Iterable[str]) -> None:
        """The lease is new, or was in doubt: the entries of these targets are read again.

        What was confirmed before is handed out once more, unless it was deleted: if the database has lost commits,
        another command may have an entry's number.
        """
        self._out_before |= {
            number: command_id
            for target, window in self._windows.items()
            if self._takes_at_once(target)
            for number, command_id in window.handed.items()
            if number not in self._to_publish
        }
        self._confirmed.clear()
        self._to_publish.clear()
        self._windows = {target: _TargetWindow() for target in targets}
        for window in self._windows.values():
            window.is_behind = True

    def confirm(self, entries: Iterable[OutboxEntry]) -> None:
        """The broker has these entries. Those that were not handed out under this lease stay until they are again.

        It may have one that waits for its settlement, from the lease before: that one need not be published again.
        """
        for entry in entries:
            handed = self._window(entry.lane).handed
            if handed.get(entry.id) == entry.command_id:
                del handed[entry.id]
                self._to_publish.pop(entry.id, None)
                self._confirmed[entry.id] = entry

    def is_confirmed(self, entry: OutboxEntry) -> bool:
        """Whether the broker has it, so that the next transaction is to delete it."""
        return entry.id in self._confirmed

    def is_taken(self, entry: OutboxEntry) -> bool:
        """Whether its target has it, and cannot be made to give it back."""
        if not self._takes_at_once(entry.lane):
            return False
        is_out = entry.id in self._window(entry.lane).handed and entry.id not in self._to_publish
        return is_out or self._out_before.get(entry.id) == entry.command_id

    @property
    def confirmed(self) -> list[OutboxEntry]:
        """The entries that the next transaction is to delete."""
        return list(self._confirmed.values())

    def deleted(self, entries: Iterable[OutboxEntry]) -> None:
        """These entries are gone from the table."""
        for entry in entries:
            self._confirmed.pop(entry.id, None)
            self._out_before.pop(entry.id, None)

    def withdrawn(self, ids: Iterable[int]) -> None:
        """An operator had these entries removed from the table."""
        for number in ids:
            self._confirmed.pop(number, None)
            self._to_publish.pop(number, None)
            for window in self._windows.values():
                window.handed.pop(number, None)

    def pages(self) -> list[OutboxPage]:
        """The pages that the next transaction is to read: there are more entries, and room for them."""
        pages = [
            OutboxPage(target, window.last)
            for target, window in self._windows.items()
            if window.is_behind and len(window.handed) <= self._window_max - self.page_rows
        ]
        return pages[:PAGES_AT_ONCE]

    @property
    def has_more_to_publish(self) -> bool:
        """Whether `take` has entries."""
        return bool(self._to_publish)

    def take(self) -> list[OutboxEntry]:
        """The entries to publish now, in their order for each target; each is given out once under a lease."""
        taken = list(self._to_publish.values())
        self._to_publish.clear()
        return taken

    def read(self, target: str, page: Sequence[OutboxEntry]) -> None:
        """Note a page that was read: its entries are to be published."""
        window = self._windows.pop(target)
        # Targets of which a page was read go behind the others.
        self._windows[target] = window
        window.is_behind = len(page) == self.page_rows
        self._hand(window, [entry for entry in page if entry.id not in self._confirmed], page)

    def emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Note new entries of the table: those that have room are to be published. The others are read later."""
        by_target: dict[str, list[OutboxEntry]] = {}
        for entry in entries:
            by_target.setdefault(entry.lane, []).append(entry)
        for target, its in by_target.items():
            window = self._window(target)
            if window.is_behind or len(window.handed) + len(its) > self._window_max:
                window.is_behind = True
            else:
                self._hand(window, its, its)

    def _window(self, target: str) -> _TargetWindow:
        window = self._windows.get(target)
        if window is None:
            window = self._windows[target] = _TargetWindow()
        return window

    def _hand(self, window: _TargetWindow, entries: Sequence[OutboxEntry], seen: Sequence[OutboxEntry]) -> None:
        window.last = max((entry.id for entry in seen), default=window.last)
        window.handed.update((entry.id, entry.command_id) for entry in entries)
        self._to_publish.update((entry.id, entry) for entry in entries)


def message_of(entry: OutboxEntry) -> CommandMessage:
    """An emitted command as it travels."""
    message = CommandMessage(command_id=entry.command_id, type=entry.type, arguments=entry.arguments)
    options = msgspec.structs.replace(Options.decode(entry.options), continuation=entry.continuation)
    return with_options(message, options)
