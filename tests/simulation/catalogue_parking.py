"""Deliberate bugs in what keeps commands waiting for their key; part of tests/simulation/catalogue.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coordinator.lane import parking as parking_module
from coordinator.lane import request as request_module
from coordinator.lane import settle as settle_module
from coordinator.lane.orders import Orders
from coordinator.lane.outbox import Outbox
from coordinator.lane.parking import Parking
from coordinator.lane.publisher_progress import PublisherProgress
from coordinator.lane.transactions import Transactions
from coordinator.stores.lane_tables import ParkedCommand
from tests.simulation.mutant import Mutant, rewritten
from tests.simulation.patching import Patches
from tests.simulation.store import SimulatedTransaction


def _nobody_waits(patches: Patches) -> None:
    patches.replace(Parking, "must_wait", lambda self, key, command_id: False)


def _state_survives_rollback(patches: Patches) -> None:
    patches.replace(Parking, "copy", lambda self: self)


def _successor_forgets(patches: Patches) -> None:
    def scan(original: Any, self: Any, model: Any, *arguments: Any) -> Any:
        return [] if model is ParkedCommand else original(self, model, *arguments)

    patches.wrap(SimulatedTransaction, "scan", scan)


def _waited_parks_nothing(patches: Patches) -> None:
    patches.rewrite(request_module, "prepare", "parks_key=parked_key is not None\n        or (", "parks_key=(")
    patches.replace(parking_module, "prepare", request_module.prepare)


def mutants() -> Iterator[Mutant]:
    yield Mutant("park-key-parks-no-key", "later commands overtake the failed one", _nobody_waits)
    yield Mutant("parking-changed-before-commit", "rolled back, commands still wait", _state_survives_rollback)
    yield Mutant("parking-not-read-at-takeover", "a successor lets others overtake", _successor_forgets)
    yield rewritten(
        "released-in-the-wrong-order",
        "those that waited are applied last in, first out",
        Parking,
        "ready",
        "return [row for row in self.rows.values() if row.ordering_key not in self._heads]",
        "return [row for row in self.rows.values() if row.ordering_key not in self._heads][::-1]",
    )
    yield Mutant(
        "waited-and-failed-keeps-nobody-waiting",
        "the next one overtakes the one that failed when it was let go",
        _waited_parks_nothing,
    )
    yield rewritten(
        "waiting-command-applied-by-its-duplicate",
        "a duplicate of one that waits is settled, and the other one too",
        settle_module,
        "waits",
        "if standing.waiting is not None:",
        "if False:",
    )
    yield rewritten(
        "late-number-refused",
        "a confirmed command that came after its gap was given up is not applied",
        PublisherProgress,
        "is_counted",
        "return not any(first <= number <= last for first, last in _gaps(row))",
        "return True",
    )
    yield rewritten(
        "position-moves-back",
        "a late command takes its publisher's position back",
        PublisherProgress,
        "advance",
        "sequence=max(number, row.sequence)",
        "sequence=number",
    )
    yield rewritten(
        "outbox-page-skipped",
        "what did not fit the window is never read again",
        Outbox,
        "emitted",
        "window.is_behind = True",
        "pass",
    )
    yield rewritten(
        "outbox-read-once",
        "of a long outbox a successor publishes the first page only",
        Outbox,
        "read",
        "window.is_behind = len(page) == self.page_rows",
        "window.is_behind = False",
    )
    yield rewritten(
        "release-of-anything",
        "a release that comes twice lets the wrong command's key go on",
        Orders,
        "_release",
        "if head is None or head.command_id != command.command_id.lower():",
        "if head is None:",
    )
    yield rewritten(
        "parked-not-in-the-transaction",
        "a crash loses a command that waits",
        Transactions,
        "_commit",
        "if proves_lease or written.deletes or written.updates or written.inserts:",
        "if sequence > basis.lease.sequence or confirmed:",
    )
