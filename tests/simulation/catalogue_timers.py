"""Deliberate bugs in how a lane keeps timers; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coordinator.lane.timers import Timers
from coordinator.lane.transactions import Transactions
from coordinator.lane.unit_of_work import BatchWork
from coordinator.stores.lane_tables import Timer
from tests.simulation.mutant import Mutant, rewritten
from tests.simulation.patching import Patches


def mutants() -> Iterator[Mutant]:
    yield Mutant(
        "timer-moved-apart-from-the-outbox",
        "a timer is gone, and a crash comes before its command is in the outbox",
        _moved_apart,
    )
    yield rewritten(
        "timer-stays-when-it-fires",
        "a timer fires again, after a takeover at the latest",
        BatchWork,
        "fire",
        "self.drop(timer)",
        "pass",
    )
    yield rewritten(
        "timer-taken-back-fires",
        "whoever takes a timer back is told that it waited, and it comes all the same",
        BatchWork,
        "remove_timer",
        "self.remove(timer)",
        "pass",
    )
    yield rewritten(
        "timers-forgotten-at-a-takeover",
        "a successor does not know of the timers that its predecessor has set",
        Transactions,
        "begin_again",
        "self.timers.read(transaction)",
        "pass",
    )
    yield rewritten(
        "timer-fires-early",
        "whatever is read with a due timer fires with it",
        Timers,
        "move",
        "if timer.due_at <= work.now",
        "if True",
    )
    yield rewritten(
        "timer-of-a-rejected-command-kept",
        "a command that is refused after it has set a timer has set it all the same",
        BatchWork,
        "set_timer",
        "self.add_numbered(timer)",
        "self.keep(timer)",
    )
    yield rewritten(
        "timer-of-this-batch-not-found",
        "a timer cannot be taken back in the transaction that sets it",
        BatchWork,
        "take_back",
        "(*stored, *set_here)",
        "stored",
    )
    yield rewritten(
        "timer-stays-taken-back",
        "a command that is refused after it has taken a timer back has taken it back all the same",
        BatchWork,
        "remove_timer",
        "self.remove(timer)",
        "self.drop(timer)",
    )
    yield rewritten(
        "only-the-first-due-timers-move",
        "after a full move the lane takes the rest for not due",
        Timers,
        "moved",
        "self._first(left)",
        "self._first([])",
    )


def _moved_apart(patches: Patches) -> None:
    def move(original: Any, self: Timers, transaction: Any, work: BatchWork) -> Any:
        found = transaction.scan(Timer, self._size)
        left = original(self, transaction, work)
        for timer in found:
            if timer.due_at <= work.now:
                transaction.database.tables[Timer].pop(timer.id, None)
        return left

    patches.wrap(Timers, "move", move)
