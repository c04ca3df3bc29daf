"""The audit: each applied command has one entry for each account that it has changed, as the model says, and no other
command has any. It goes with the entry of the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coordinator.stores.audit_tables import AuditedTable, RowChange
from coordinator.stores.lane_tables import LogEntry
from tests.support.ledger import Account

if TYPE_CHECKING:
    from tests.simulation.database import Database

Changed = set[tuple[str, str, int | None]]
"""The keys of accounts, what was done to each, and the versions."""
Accounts = Mapping[int, Mapping[str, Any]]


def changed(before: Accounts, now: Accounts) -> Changed:
    """What one command has done to the accounts, by the model."""
    found: Changed = set()
    for key in {*before, *now}:
        old, new = before.get(key), now.get(key)
        if old is None and new is not None:
            found.add((str(key), "inserted", new["version"]))
        elif old is not None and new is None:
            found.add((str(key), "removed", old["version"]))
        elif old is not None and new is not None and old["version"] != new["version"]:
            found.add((str(key), "updated", new["version"]))
    return found


def forget(database: Database, sequences: set[int]) -> None:
    """Retention has removed these entries of the log."""
    table = database.table(RowChange)
    for key in [key for key, row in table.items() if row.sequence in sequences]:
        del table[key]


def violations(database: Database, expected: Mapping[int, Changed]) -> list[str]:
    """`expected` has by sequence what applied commands have changed."""
    there: defaultdict[int, list[tuple[str, str, int | None]]] = defaultdict(list)
    for row in database.table(RowChange).values():
        there[row.sequence].append((row.row_key, row.how, row.version))
    found = []
    logged = {entry.sequence for entry in database.table(LogEntry).values()}
    for sequence in sorted({*there, *(expected.keys() & logged)}):
        wanted = expected.get(sequence, set()) if sequence in logged else set()
        if sorted(there[sequence]) != sorted(wanted):
            found.append(f"sequence {sequence} of {database.lane} has {there[sequence]} in the audit, and not {wanted}")
    row = database.table(AuditedTable).get(Account.table)
    last = max(database.table(LogEntry).values(), key=lambda entry: entry.sequence, default=None)
    if last is not None and last.epoch and there and (row is None or row.epoch < last.epoch):
        found.append(f"the audit of {database.lane} says {row}, and the last entry is of epoch {last.epoch}")
    return found
