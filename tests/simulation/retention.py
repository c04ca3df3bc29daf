"""Retention: old log entries and old dead letters go, in transactions beside the lane's (`LaneAdmin` has the rules).

The log forgets only what nobody sends any more: whoever sends later than that has a command applied a second time, as
the guarantees say. Not so a command with a number of a publisher session: a copy that comes long afterwards is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika

from coordinator.protocol.wire import JSON_CONTENT, CommandMessage, headers_of
from coordinator.service.ids import replay_command_id
from coordinator.stores.lane_tables import (
    NAMELESS,
    SENDERS_BYTES,
    DeadLetter,
    LogEntry,
    OutboxEntry,
    ParkedCommand,
    Series,
    Timer,
    is_of_sender,
)
from tests.simulation import audit
from tests.simulation.broker import Message, public_message
from tests.simulation.database import rows_of
from tests.simulation.letters import continuation_of_mismatch
from tests.simulation.worker import OF_WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.database import Database
    from tests.simulation.publisher import Publisher
    from tests.simulation.world import World

OLD = 0.7
"""The share of what may go that is old enough."""
LATE_COPIES = 0.4


class Retention:
    """Acts when chaos has it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def strike(self) -> None:
        """As a lane's own process does it: letters first."""
        for database in self.world.databases.values():
            if self.world.chance() < 0.6:
                self._forget_letters(database)
            self._prune(database)

    def _forget_letters(self, database: Database) -> None:
        chance = self.world.chance
        parked = {row.command_id for row in database.table(ParkedCommand).values()}
        table = database.table(DeadLetter)
        gone = [row for row in table.values() if row.command_id not in parked and chance() < OLD]
        if not gone:
            return
        self.world.trace("letters %s of %s are forgotten", [row.id for row in gone], database.lane)
        database.wait_for_commit()
        database.changes()
        database.revision += 1
        series = database.table(Series)
        for letter in gone:
            if table.pop(letter.id, None) is None:
                continue
            if letter.command_id is None:
                name = NAMELESS[letter.origin]
                series[name] = Series(name=name, value=max(0, series[name].value - 1))
            elif is_of_sender(letter) and letter.arguments:
                left = series[SENDERS_BYTES].value - len(letter.arguments)
                series[SENDERS_BYTES] = Series(name=SENDERS_BYTES, value=max(0, left))

    def _prune(self, database: Database) -> None:
        world = self.world
        database.wait_for_commit()
        log = database.table(LogEntry)
        kept = {letter.source for letter in database.table(DeadLetter).values()} | self._may_come(database)
        last = max((entry.sequence for entry in log.values()), default=0)
        gone = [
            entry
            for entry in log.values()
            if entry.sequence < last
            and entry.command_id not in kept
            and entry.type not in OF_WORKERS
            and not (entry.status == "failed" and replay_command_id(entry.command_id) in log)
            and world.chance() < OLD
        ]
        if not gone:
            return
        world.trace("the log of %s forgets %s", database.lane, [entry.sequence for entry in gone])
        audit.forget(database, {entry.sequence for entry in gone})
        for entry in gone:
            del log[entry.command_id]
            database.pruned[entry.command_id] = entry
            if world.chance() < LATE_COPIES:
                self._come_late(database, entry)

    def _may_come(self, database: Database) -> set[str | None]:
        """The ids that somebody may still send, or that are on their way; and those whose rows the checks need."""
        world, broker = self.world, self.world.broker
        ids: set[str | None] = {*world.shared, *world.old_letters, *database.waited, *database.pruned}
        for client in world.clients:
            ids.update(command.command_id for commands in client.plan for command in commands)
            ids.update(each for issue in client.open.values() for each in issue.message.ids)
        for publisher in (
            *(client.publisher for client in world.clients),
            *(stranger.publisher for stranger in world.strangers),
            *(process.publisher for process in world.processes.values()),
        ):
            ids.update(_on_their_way(publisher))
        for queue in (*broker.queues.values(), *broker.dead.values()):
            ids.update(each for message in queue.ready for each in message.ids)
            for channel in queue.channels:
                ids.update(each for message in channel.unacknowledged.values() for each in message.ids)
        for process in world.processes.values():
            if process.holds_void:
                ids.update(process.received_at)
            # It may have yet to read them from a channel that the broker has dropped.
            inbound = [] if process.channel is None else process.channel.inbound
            ids.update(each for _, message, _ in inbound for each in message.ids)
            ids.update(process.emitted.held.values())
            ids.update(entry.command_id for _, settlement in process.settlements for entry in settlement.emitted)
        for link in broker.links:
            ids.update(each for _, target, message in link.outbound if target != "reply" for each in message.ids)
        for each in world.databases.values():
            ids.update(row.command_id for row in each.table(OutboxEntry).values())
            ids.update(row.command_id for row in each.table(ParkedCommand).values())
            ids.update(row.command_id for row in each.table(Timer).values())
            if each.pending is not None:
                # What it emits, if it lands.
                ids.update(row.command_id for row in rows_of(OutboxEntry, each.pending.changes.inserts))
                ids.update(row.command_id for row in rows_of(Timer, each.pending.changes.inserts))
        # A copy of a command whose id is another's fails anew once its letter is forgotten, and so is continued anew.
        failed = [letter for each in world.databases.values() for letter in each.book.ever.values()]
        continued = [continuation_of_mismatch(letter) for letter in failed if letter.command_id in ids]
        ids.update(command.command_id for command in continued if command is not None)
        return ids

    def _come_late(self, database: Database, entry: LogEntry) -> None:
        """A copy of a command with a number, from somebody who was cut off for long."""
        command = self.world.commands.get(entry.command_id)
        if command is None or command.publisher_seq is None or command.continuation is not None:
            return
        if (command.publisher, command.publisher_seq) not in database.numbers or entry.error_code == "cancelled":
            return
        self.world.trace("a copy of %s comes long afterwards", entry.command_id)
        self.world.broker.put(database.lane, _message(command))


def _on_their_way(publisher: Publisher) -> Iterator[str | None]:
    for target, message, _ in publisher._waiting.values():
        if target != "reply":
            yield from message.ids


def _message(command: CommandMessage) -> Message:
    properties = pika.BasicProperties(
        message_id=command.command_id, type=command.type, content_type=JSON_CONTENT, headers=dict(headers_of(command))
    )
    return public_message(properties, command.arguments, (command.command_id,))
