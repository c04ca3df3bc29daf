"""What must be true once everything is healed and at rest."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from shared.lane_tables import Counter, LogEntry, OutboxEntry
from shared.messaging.wire import CommandMessage, fingerprint_of
from tests.simulation import parked
from tests.simulation.model import Model
from tests.simulation.services import Note
from tests.support.checker import check
from tests.support.ledger import Account

if TYPE_CHECKING:
    from tests.simulation.database import Database
    from tests.simulation.world import World


def verdict(world: World) -> list[str]:
    """All violations of one run."""
    found = world.violations
    models = {lane: Model(lane) for lane in world.databases}
    for lane, database in world.databases.items():
        records = [record for client in world.clients if client.lane == lane for record in client.records]
        log = list(database.table(LogEntry).values())
        found += check(records, log, given_up=world.given_up, waited=database.waited)
        found += _at_rest(world, database)
    # Emitted commands cross the lanes: first everything that clients sent, then what came of it, until nothing is new.
    commands = dict(world.commands)
    found += _replay(world, models, commands)
    for database in world.databases.values():
        found += parked.violations(database, commands)
    for lane, model in models.items():
        found += _state(world.databases[lane], model)
    found += _clients(world)
    found += _dead_letters(world)
    return found


def _at_rest(world: World, database: Database) -> list[str]:
    found = []
    queue = world.broker.queues[database.lane]
    if queue.ready:
        found.append(f"{len(queue.ready)} messages remain in queue {database.lane}")
    for channel in queue.channels:
        if channel.unacknowledged:
            ids = [message.ids for message in channel.unacknowledged.values()]
            found.append(f"{channel.name} never acknowledged {ids}")
    # Who died or stopped before it was told of a confirm leaves the entry to a successor, which repeats the command.
    if any(
        process.lane_name == database.lane
        and not process.is_dead
        and process.lane.lease is not None
        and process.lane.lease.epoch == database.epoch
        for process in world.processes.values()
    ):
        found += [f"{entry.command_id} remains in the outbox" for entry in database.table(OutboxEntry).values()]
    log = database.table(LogEntry)
    for command_id in sorted(database.cancelled):
        if command_id in log and log[command_id].error_code != "cancelled":
            found.append(f"{command_id} is {log[command_id].status}, and was cancelled before that")
    if database.sequence != len(database.table(LogEntry)):
        found.append(f"the lease has sequence {database.sequence}, the log {len(database.table(LogEntry))} entries")
    return found


def _replay(world: World, models: dict[str, Model], commands: dict[str, CommandMessage]) -> list[str]:
    """Replay the logs against the models, in the order in which they were committed."""
    found = []
    entries = [
        (database.landed_at.get(entry.command_id, 0), lane, entry)
        for lane, database in world.databases.items()
        for entry in database.table(LogEntry).values()
    ]
    known = dict.fromkeys(models, 0)
    for _, lane, entry in sorted(entries, key=lambda item: item[0]):
        message = commands.get(entry.command_id)
        if message is None:
            found.append(f"{entry.command_id} ({entry.type}) is in the log of {lane}: nobody sent it before that")
            continue
        if _fingerprint(message.type, message.expected_version, message.arguments) != entry.fingerprint:
            found.append(f"{entry.command_id} is in the log with another content")
        wrong = models[lane].check(entry, message, world.databases[lane].cancelled)
        if wrong is not None:
            found.append(f"sequence {entry.sequence} of {lane}: {entry.type} {entry.command_id} {wrong}")
        emitted = models[lane].emitted
        if len(emitted) > known[lane]:
            known[lane] = len(emitted)
            for command_id, (_, child) in emitted.items():
                commands.setdefault(command_id, child)
    for model in models.values():
        for command_id, (parent, child) in model.emitted.items():
            lane = (child.type or "").partition(".")[0]
            if command_id not in world.databases[lane].table(LogEntry):
                found.append(f"{child.type} {command_id}, emitted by {parent}, was never settled")
    return found


@lru_cache(10_000)
def _fingerprint(command_type: str | None, expected_version: int | None, arguments: bytes) -> str:
    """As the protocol has it, of sound messages: those of many runs have the same content."""
    message = CommandMessage(command_id=None, type=command_type, arguments=arguments, expected_version=expected_version)
    return fingerprint_of(message)


def _state(database: Database, model: Model) -> list[str]:
    found = []
    accounts = {
        row.id: {"id": row.id, "owner": row.owner, "balance": row.balance, "version": row.version}
        for row in database.table(Account).values()
    }
    if accounts != model.accounts:
        found.append(f"the accounts are {accounts}, and should be {model.accounts}")
    notes = {row.id: (row.account, row.amount) for row in database.table(Note).values()}
    if notes != model.notes:
        found.append(f"the notes are {notes}, and should be {model.notes}")
    series = "accounts" if model.lane == "ledger" else "notes"
    counter = database.table(Counter).get(series)
    if (counter.value if counter else 0) != model.last_id:
        found.append(f"the counter {series} is {counter}, and should be {model.last_id}")
    return found


def _clients(world: World) -> list[str]:
    found = []
    for client in world.clients:
        for issue in client.issues:
            if issue.is_abandoned:
                continue
            if not issue.is_confirmed or issue.missing:
                found.append(f"{issue.key} of {client.name} has no outcome: {issue.message.ids}")
            for record in issue.records:
                is_first = client.by_id.get(record.command_id) is record
                if record.outcome is None or is_first or not record.command_id:
                    continue
                code = record.outcome.error.code if record.outcome.error else None
                if code != "idempotency_mismatch":
                    found.append(f"{record.command_id} with another content is {record.outcome.status}")
    return found


def _dead_letters(world: World) -> list[str]:
    found = []
    dead = {(lane, command_id) for lane, command_id, _ in world.broker.dead}
    failed = {
        (lane, entry.command_id)
        for lane, database in world.databases.items()
        for entry in database.table(LogEntry).values()
        if entry.status == "failed"
    }
    found += [f"{command_id} failed, and has no dead letter" for _, command_id in sorted(failed - dead)]
    for lane, command_id in dead - failed:
        if command_id is not None:
            found.append(f"{command_id} of {lane} has a dead letter, and did not fail")
    return found
