"""What an older release left behind: dead letters in the broker's queue, and ids that somebody took first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika

from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage
from coordinator.stores.lane_tables import LogEntry
from coordinator.transports.rabbitmq.topology import DEAD_EXCHANGE
from tests.simulation.broker import Message
from tests.simulation.model import children_of

if TYPE_CHECKING:
    from tests.simulation.world import World


def plant_past(world: World) -> None:
    """Before the run begins."""
    for number in range(1 + int(world.chance() * 3)):
        lane = "ledger" if world.chance() < 0.6 else "journal"
        command_id = f"cccccccc-0000-7000-8000-{number:012x}"
        sequence = _settle(world, lane, command_id)
        for _ in range(1 + int(world.chance() * 2)):
            _leave_letter(world, lane, command_id, sequence)
    planned = [command for client in world.clients for commands in client.plan for command in commands]
    children = {"ledger.relay": "journal", "ledger.forward": "ledger", "journal.note": "ledger"}
    parents = [command for command in planned if command.type in children and command.command_id is not None]
    for parent in {parent.command_id: parent for parent in parents}.values():
        if world.chance() < 2 * world.rates["past"]:
            for child_id in children_of(parent)[:1]:
                _settle(world, children[parent.type or ""], child_id)


def _settle(world: World, lane: str, command_id: str) -> int:
    """A command that failed, in the log."""
    database = world.databases[lane]
    message = CommandMessage(command_id=command_id, type=f"{lane}.unknown", arguments=b"{}")
    world.commands[command_id] = message
    world.old_letters.setdefault(command_id, "")
    database.sequence += 1
    database.table(LogEntry)[command_id] = LogEntry(
        command_id=command_id,
        sequence=database.sequence,
        epoch=0,
        type=message.type or "",
        fingerprint=UNKEYED.of(message),
        status="failed",
        result=None,
        error_code="unknown_command_type",
        error_message="of an older release",
        settled_at=world.wall(),
    )
    return database.sequence


def _leave_letter(world: World, lane: str, command_id: str, sequence: int) -> None:
    world.old_letters[command_id] = lane
    headers = {"reason": "unknown_command_type", "error": "of an older release", "sequence": sequence}
    properties = pika.BasicProperties(message_id=command_id, type=f"{lane}.unknown", headers=headers)
    world.broker.put_dead(lane, Message(DEAD_EXCHANGE, properties, b"{}", (command_id,)))
