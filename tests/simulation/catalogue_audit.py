"""Deliberate bugs in the audit: in what is kept of each command, and from where on; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.lane import unit_of_work as work_module
from coordinator.lane.audit import AuditedTables
from coordinator.lane.identity_map import IdentityMap
from coordinator.lane.unit_of_work import BatchWork
from tests.simulation.mutant import Mutant, rewritten


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "audit-of-the-first-command",
        "of a batch only the first command's changes are kept",
        BatchWork,
        "audit_command",
        "self._row_changes += row_changes(",
        "self._row_changes = self._row_changes or row_changes(",
    )
    yield rewritten(
        "audit-with-the-version-before",
        "an entry has the version that the command found, and not the one that it left",
        work_module,
        "row_changes",
        "row = before if now is None else now",
        "row = now if before is None else before",
    )
    yield rewritten(
        "audit-of-the-whole-batch",
        "a command is said to have changed what the commands before it did",
        IdentityMap,
        "changed",
        "for slots, key, before in self._journal:",
        "for slots, key, before in [*self._journal, *((kind.current, key, before) for _, kind in "
        "[(m, self._met[m]) for m in models if m in self._met] for key, before in kind.original.items())]:",
    )
    yield rewritten(
        "audit-without-its-epoch",
        "nobody sees from where on the audit is complete",
        AuditedTables,
        "write",
        "work.keep(row)",
        "pass",
    )
