"""Forgetting: an operator has the lane take out what it keeps of an account's commands, among everything else.

In these worlds the commands of an account are somebody's (`of`). What the checks need of an emptied entry is kept here:
for them the history is what was settled. What a lane no longer has, it must have had emptied: of the account alone, and
nothing of its id, place, type, status and time.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from coordinator.lane import forgetting
from coordinator.lane.control import Forget, ForgetStep
from coordinator.lane.outbox import message_of
from coordinator.service.outcome import FORGOTTEN, Outcome
from coordinator.service.service import Service
from coordinator.stores.lane_tables import DeadLetter, LogEntry, OutboxEntry
from coordinator.stores.outcomes import is_forgotten
from coordinator.stores.port import Changes
from tests.support.ledger import Account

if TYPE_CHECKING:
    from tests.simulation.database import Database
    from tests.simulation.limits import Limits
    from tests.simulation.world import World

SHARE: Final = 0.15
"""Of the seeds, in which somebody asks to be forgotten."""
TYPES: Final = frozenset({Forget.type, ForgetStep.type})
_ACCOUNTS: Final = 3
_STAYS: Final = ("command_id", "sequence", "type", "status", "epoch", "settled_at")
_READ: Final = frozenset(
    {None, "handler_error", "account_not_found", "overdrawn", "owner_taken", "version_conflict", "nothing_put_off"}
)
"""How commands end that were read and tried: of others the lane may not know whose they are."""


def rate(seed: int) -> float:
    """By a chance of its own: a seed without forgetting is as it was before there was any."""
    chance = random.Random(f"forgets {seed}").random
    return 0.3 + chance() * 0.4 if chance() < SHARE else 0.0


def limits(seed: int) -> Limits:
    """A step takes out so little that an order needs several."""
    chance = random.Random(f"limits of forgets {seed}").random
    return [(forgetting, "STEP_ENTRIES_MAX", 1 + int(chance() * 3))] if rate(seed) and chance() < 0.7 else []


@cache
def of_persons(service: Service) -> Service:
    """The service whose commands say whose they are."""
    handlers = (
        structs.replace(handler, of=lambda command: Account.at(command.id))
        if "id" in handler.command.__struct_fields__
        else handler
        for handler in service.handlers
    )
    return service.replace(handlers=tuple(handlers))


class Forgets:
    """Acts when chaos has it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0

    def strike(self) -> None:
        """Order an account's to be forgotten, which may be under way already."""
        world = self.world
        self.count += 1
        account = 1 + int(world.chance() ** 2 * _ACCOUNTS)
        order = {"table": Account.table, "value": account, "asked": str(self.count)}
        if world.rates["ruled"] and world.chance() < 0.5:
            order["actor"] = "a"
        world.chaos.operator._order(world.databases["ledger"], Forget.type, **order)


def note(database: Database, changes: Changes) -> None:
    """A commit is about to land: keep what it empties, and raise the alarm over what no commit may do."""
    world = database.world
    if not world.rates["forgets"]:
        return
    for row in _rows(changes.inserts, OutboxEntry):
        message = world.passed_on.setdefault(row.command_id, message_of(row))
        if row.type == ForgetStep.type:
            world.commands.setdefault(row.command_id, message)
    for row in _rows(changes.updates, LogEntry):
        before = database.table(LogEntry)[row.command_id]
        if any(getattr(row, name) != getattr(before, name) for name in _STAYS) or not is_forgotten(row):
            world.violation(f"the entry of {row.command_id} has become another: {row}")
        code = "" if before.error_code is None else f" ({before.error_code})"
        left = f"the command was settled as {before.status}{code}; its content was personal, and is forgotten"
        if (row.result, row.error_code, row.error_message) != (None, FORGOTTEN, left):
            world.violation(f"something of {before} is left in {row}")
        original = database.forgotten.setdefault(row.command_id, before)
        asked = [
            order
            for order_id, order in _orders(world).items()
            if order["value"] == _account(world, original)
            and (begun := database.settled(order_id)) is not None
            and begun.sequence > original.sequence
        ]
        if not asked:
            world.violation(f"{row.command_id} was emptied, and nobody has asked for it")
        if row.actor != before.actor and not any("actor" in order for order in asked):
            world.violation(f"{row.command_id} has lost who asked for it")


def landed(database: Database, changes: Changes) -> None:
    """A commit has landed. With the last step of an order all is gone that was there before the order."""
    for entry in _rows(changes.inserts, LogEntry):
        if entry.type != ForgetStep.type or entry.status != "applied":
            continue
        if msgspec.json.decode(entry.result or "{}")["goes_on_as"] is None:
            step = msgspec.json.decode(database.world.commands[entry.command_id].arguments)
            _check_gone(database, step["order"])


def _check_gone(database: Database, order_id: str) -> None:
    world = database.world
    order = msgspec.json.decode(world.commands[order_id].arguments)
    begun = database.settled(order_id)
    log = database.table(LogEntry)
    gone: set[str | None] = set()
    for entry in log.values():
        original = database.settled(entry.command_id)
        assert original is not None
        if begun is None or entry.sequence > begun.sequence or _account(world, original) != order["value"]:
            continue
        if original.error_code in _READ and not is_forgotten(entry):
            world.violation(f"{order_id} is done, and the log still has {entry}")
        gone.add(entry.command_id)
    for letter in database.table(DeadLetter).values():
        is_empty = not letter.arguments and letter.traceback is None and letter.reason == forgetting.REASON
        if letter.command_id in gone and letter.sequence is not None and letter.code in _READ and not is_empty:
            world.violation(f"{order_id} is done, and there is still letter {letter}")
    world.trace("what account %s has left is forgotten", order["value"])


def is_told_so(database: Database, outcome: Outcome | None) -> bool:
    """Whether somebody was told that his command is forgotten, and it is."""
    is_said = outcome is not None and outcome.error is not None and outcome.error.code == FORGOTTEN
    return is_said and outcome is not None and outcome.command_id in database.forgotten


def _orders(world: World) -> dict[str, dict[str, Any]]:
    return {
        command_id: msgspec.json.decode(each.arguments)
        for command_id, each in world.commands.items()
        if each.type == Forget.type
    }


def _account(world: World, entry: LogEntry) -> int | None:
    """Whose a command is, as it was sent."""
    from tests.simulation.verdict import sent

    message = sent(world, world.commands, entry) or world.passed_on.get(entry.command_id)
    if message is None or message.defect is not None or not entry.type.startswith("ledger."):
        return None
    try:
        given = msgspec.json.decode(message.arguments)
    except (msgspec.DecodeError, RecursionError):
        return None
    return given.get("id") if isinstance(given, dict) else None


def _rows(groups: Any, model: type[Any]) -> list[Any]:
    return [row for rows in groups if type(rows[0]) is model for row in rows]
