"""Deliberate bugs in the rules: when they are asked, of what, and what follows; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.lane import parking as parking_module
from coordinator.lane import repetition as repetition_module
from coordinator.lane import settle as settle_module
from coordinator.lane import trying as trying_module
from coordinator.lane.allowed import check_allowed
from coordinator.lane.basis import Fate
from coordinator.lane.orders import Orders
from coordinator.lane.repetition import repeated
from coordinator.service.errors import Rejected
from coordinator.service.outcome import OutcomeError
from coordinator.stores.outcomes import from_log
from tests.simulation.mutant import Mutant, rewritten
from tests.simulation.patching import Patches


class _RowsBefore:
    """Rows as they were when the batch began, whatever its commands have done."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def get(self, model: Any, key: Any) -> Any:
        row = self._rows.get(model, key)
        return row if row is None else self._rows._batch.kinds.met[model].original.get(key)


def _of_rows_before(patches: Patches) -> None:
    patches.wrap(trying_module, "check_allowed", lambda original, request, rows: original(request, _RowsBefore(rows)))


def _not_of_redelivered(patches: Patches) -> None:
    patches.wrap(
        trying_module,
        "check_allowed",
        lambda original, request, rows: None if request.redelivered else original(request, rows),
    )


def _handled_all_the_same(patches: Patches) -> None:
    def tried(original: Any, basis: Any, request: Any) -> Any:
        verdict = original(basis, request)
        if verdict.code == "forbidden":
            try:
                request.handler.handle(basis.handlers_work, request.command)
            except Exception:  # noqa: BLE001  # it would fail
                basis.work.undo()
        return verdict

    patches.wrap(settle_module, "tried", tried)


def _asked_of_a_repetition(patches: Patches) -> None:
    def asked(basis: Any, request: Any, standing: Any, entry: Any) -> Any:
        if request.handler is not None and request.handler.allow is not None:
            try:
                check_allowed(request, basis.reading_work)
            except Rejected:
                error = OutcomeError(code="forbidden", message="not now")
                return Fate(msgspec.structs.replace(from_log(entry, replayed=True), status="rejected", error=error))
        return repeated(basis, request, standing, entry)

    patches.replace(settle_module, "repeated", asked)


def mutants() -> Iterator[Mutant]:
    yield Mutant("rule-of-rows-before-the-batch", "a rule sees rows as they were before its batch", _of_rows_before)
    yield Mutant("rule-not-of-redelivered", "what is delivered again is asked by no rule", _not_of_redelivered)
    yield rewritten(
        "rule-not-of-replayed",
        "what an operator has replayed is asked by no rule",
        Orders,
        "_emission_of",
        'origin="system" if command.as_system else options.origin,',
        'origin="system",',
    )
    yield rewritten(
        "replay-without-its-actor",
        "who asked for a command is not known of its replay",
        Orders,
        "_emission_of",
        'origin="system" if command.as_system else options.origin,',
        'origin="system" if command.as_system else options.origin, actor=None,',
    )
    yield rewritten(
        "parked-without-its-actor",
        "who asks for a command is forgotten while it waits for its key",
        parking_module,
        "message_of",
        "if row.actor is None else",
        "if True else",
    )
    yield Mutant(
        "refused-and-applied", "the handler of a command that is refused runs all the same", _handled_all_the_same
    )
    yield Mutant("rule-of-a-repetition", "a rule is asked of a command that is settled", _asked_of_a_repetition)
    yield rewritten(
        "told-of-anothers",
        "somebody is told the outcome of another's command",
        repetition_module,
        "_is_anothers",
        "return ",
        "return False and ",
    )
