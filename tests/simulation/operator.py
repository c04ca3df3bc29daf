"""The operator: orders about dead letters and about the outbox, and whatever else sets things right.

His orders are commands of the lane. Each has an id of its own; he may send one twice, and order what is done already.
An effect worker is here too, which tells its lane of effects that it can make nothing of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, ParkedCommand
from tests.simulation.broker import system_message

if TYPE_CHECKING:
    from tests.simulation.database import Database
    from tests.simulation.world import World

ORDERS_MAX = 8
TWICE = 0.3


class Operator:
    """Acts when chaos lets him look."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0
        self.left = ORDERS_MAX
        self._seen: dict[str, list[int]] = {}

    def has_work(self) -> bool:
        """Whether there is anything that he would do something about."""
        world = self.world
        for database in world.databases.values():
            if any(row.error_code is not None for row in database.table(ParkedCommand).values()):
                return True
            is_at_work = world.rates["orders"] > 0 and not world.is_calm and self.left > 0
            if is_at_work and (database.table(DeadLetter) or database.table(OutboxEntry)):
                return True
            if world.withdraws_stuck and world.is_calm and self._stuck(database):
                return True
        return False

    def operate(self, database: Database) -> bool:
        """Release, replay, discard or withdraw, now or later."""
        world = self.world
        acted = False
        letters = database.table(DeadLetter)
        by_command = {letter.command_id: letter.id for letter in letters.values() if letter.sequence is not None}
        for row in list(database.table(ParkedCommand).values()):
            if row.error_code is None or not (world.is_calm or world.chance() < 0.4):
                continue
            number = by_command.get(row.command_id)
            acted = True
            if number is None or world.is_calm or world.chance() < 0.4:
                self._order(database, "lane.release", ordering_key=row.ordering_key, command_id=row.command_id)
            elif world.chance() < 0.7:
                self._replay(database, number)
            else:
                self._order(database, "lane.discard", letter=number)
        if world.is_calm:
            if world.withdraws_stuck and (stuck := self._stuck(database)):
                self._order(database, "lane.withdraw", entries=stuck)
                acted = True
            return acted
        if self.left > 0 and world.chance() < world.rates["orders"]:
            acted = self._any_order(database) or acted
        return acted

    def _any_order(self, database: Database) -> bool:
        """About something that is there, or was."""
        world = self.world
        seen = self._seen.setdefault(database.lane, [])
        seen += [number for number in database.table(DeadLetter) if number not in seen]
        entries = list(database.table(OutboxEntry))
        kind = world.chance()
        self.left -= 1
        if kind < 0.2 and entries:
            chosen = [number for number in entries if world.chance() < 0.5] or entries[:1]
            self._order(database, "lane.withdraw", entries=chosen)
        elif kind < 0.3 and database.lane == "ledger":
            self._dead_effect(database)
        elif seen and kind < 0.8:
            self._replay(database, seen[int(world.chance() * len(seen))])
        elif seen:
            self._order(database, "lane.discard", letter=seen[int(world.chance() * len(seen))])
        else:
            return False
        return True

    def _replay(self, database: Database, number: int) -> None:
        chance = self.world.chance
        options: dict[str, Any] = {"without_deadline": chance() < 0.7, "as_system": chance() < 0.2, "alone": True}
        self._order(database, "lane.replay", letter=number, **{name: on for name, on in options.items() if on})

    def _dead_effect(self, database: Database) -> None:
        command_id = None if self.world.chance() < 0.3 else "eeeeeeee-eeee-8000-8000-000000000001"
        self._order(
            database,
            "lane.dead_effect",
            command_id=command_id,
            effect_type="ledger.pay",
            body="{}",
            code="unknown_effect_type",
            reason="nobody knows it",
        )

    def _stuck(self, database: Database) -> list[int]:
        missing = self.world.broker.is_missing
        return [entry.id for entry in database.table(OutboxEntry).values() if entry.lane in missing]

    def _order(self, database: Database, command_type: str, **arguments: Any) -> None:
        world = self.world
        self.count += 1
        command_id = f"eeeeeeee-0000-7000-8000-{self.count:012d}"
        body = msgspec.json.encode(arguments)
        world.trace("the operator orders %s of %s: %s %s", command_type, database.lane, command_id, arguments)
        world.commands[command_id] = CommandMessage(
            command_id=command_id, type=command_type, arguments=body, origin="system"
        )
        for _ in range(2 if world.chance() < TWICE else 1):
            world.broker.put(database.lane, system_message(command_id, command_type, body))
