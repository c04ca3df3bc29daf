"""Timers: which of them are set and taken back, and what a commit may do to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from coordinator.lane import timers as timers_module
from coordinator.service.commands import Command
from coordinator.service.rows import Row
from coordinator.stores.lane_tables import TIMERS_WAITING, LogEntry, OutboxEntry, Series, Timer
from coordinator.stores.port import Changes
from tests.simulation.limits import Limits
from tests.simulation.model import Model, emitted_id
from tests.simulation.services import Later, TakeBack
from tests.support.ledger import Deposit

if TYPE_CHECKING:
    from tests.simulation.database import Database
    from tests.simulation.world import World

SHARE = 0.3
"""Of the seeds, that have timers."""
_UNKNOWN = "00000000-0000-8000-8000-000000000000"


def rate(seed: int) -> float:
    """How often clients set timers, or take them back.

    By a chance of its own: a seed without timers is as it was before there were any.
    """
    chance = random.Random(f"timers {seed}").random
    return 0.2 + chance() * 0.4 if chance() < SHARE else 0.0


def limits(seed: int) -> Limits:
    """In some worlds few timers move at a time."""
    return [(timers_module, "MOVED_MAX", 1 + seed % 2)] if seed % 5 < 2 else []


def planned(world: World, command_id: str) -> Command:
    """Sets a timer, or takes one back that this client or another sets; now and then it refuses after that."""
    chance = world.chance
    if world.timers and chance() < 0.45:
        # The latest ones most often: they may be in the same batch.
        timer = world.timers[-1 - int(chance() ** 2 * len(world.timers))] if chance() < 0.95 else _UNKNOWN
        return TakeBack(timer=timer, refuse=chance() < 0.2)
    # The delays of most are shorter than what goes wrong meanwhile lasts.
    later = Later(id=1 + int(chance() * 4), amount=1 + int(chance() * 5), after_ms=int(chance() * 2500))
    deposit = Deposit(id=later.id, amount=later.amount)
    parent = Later.type, command_id
    world.timers.append(emitted_id(parent, 0, Deposit.type, msgspec.json.encode(deposit)))
    return later


def note(database: Database, changes: Changes) -> None:
    """A commit lands: a timer moves once, not before its time, and its command is in the outbox then."""
    gone = _of(Timer, changes.deletes)
    if not gone:
        return
    entries = {entry.command_id: entry for entry in _of(OutboxEntry, changes.inserts)}
    for timer in gone:
        entry = entries.get(timer.command_id)
        if entry is None:
            # It was taken back: the log says so, and the model compares.
            continue
        if entry.created_at < timer.due_at:
            database.world.violation(f"timer {timer.command_id} moves at {entry.created_at}, due at {timer.due_at}")
        if timer.command_id in database.moved_at:
            database.world.violation(f"timer {timer.command_id} moves twice")
        database.moved_at[timer.command_id] = database.world.ticks


def at_rest(database: Database, *, is_active: bool) -> list[str]:
    """What is wrong with the timers in the end."""
    timers = database.table(Timer)
    found = [f"timer {timer.command_id} never came" for timer in timers.values() if is_active]
    counted = database.table(Series).get(TIMERS_WAITING)
    if (0 if counted is None else counted.value) != len(timers):
        found.append(f"{len(timers)} timers wait, and {counted} is counted")
    return found


def taken_back(database: Database, model: Model) -> list[str]:
    """Those whose commands came all the same."""
    log = database.table(LogEntry)
    return [f"{timer} was taken back, and came all the same" for timer in sorted(model.taken_back) if timer in log]


def _of(model: type[Row], groups: Sequence[Sequence[Row]]) -> list:  # type: ignore[type-arg]
    return [row for rows in groups if rows and type(rows[0]) is model for row in rows]
