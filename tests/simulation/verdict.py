"""What must be true once everything is healed and at rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import FIRST_KEY, Fingerprints
from coordinator.protocol.wire import CommandMessage
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.stores.lane_tables import LogEntry, OutboxEntry, PublisherPosition, Series
from coordinator.transports.rabbitmq.properties import envelope_of
from tests.simulation import audit, forgets, letters, parked, timers, worker
from tests.simulation.model import Model
from tests.simulation.services import FIRST_SECRET, SINKS, Note, Report
from tests.support.checker import check
from tests.support.ledger import Account

if TYPE_CHECKING:
    from tests.simulation.database import Database
    from tests.simulation.world import World

_FIRST = Fingerprints({FIRST_KEY: FIRST_SECRET})


def verdict(world: World) -> list[str]:
    """All violations of one run."""
    found = world.violations
    models = {lane: Model(lane, database) for lane, database in world.databases.items()}
    for lane, database in world.databases.items():
        records = [
            record
            for client in world.clients
            if client.lane == lane
            for record in client.records
            if not database.has_lost(record.command_id) and record.command_id not in world.shared
            if not forgets.is_told_so(database, record.outcome)
        ]
        again = {database.table(LogEntry)[command_id].sequence for command_id in database.landed_again}
        log = [entry for _, entry in database.history() if entry.sequence not in again]
        found += check(
            records,
            log,
            given_up=world.given_up,
            waited=database.waited,
            expired=world.expired,
            skipped=database.skipped | again,
        )
        found += _at_rest(world, database)
    # Emitted commands cross the lanes: first everything that clients sent, then what came of it, until nothing is new.
    commands = dict(world.commands)
    found += _replay(world, models, commands)
    found += _emitted(world, models) + _sinks(world, models) + _overtaken(world)
    for database in world.databases.values():
        found += parked.violations(database, lambda entry: sent(world, commands, entry))
        found += letters.violations(database, commands)
    for lane, model in models.items():
        found += timers.taken_back(world.databases[lane], model)
        found += _state(world.databases[lane], model)
        found += audit.violations(world.databases[lane], model.changed)
    if world.workers:
        found += worker.violations(world, models["ledger"])
    found += _clients(world) + _shared(world)
    found += _strangers(world)
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
    is_active = world.has_active(database)
    found += database.unproved(is_active=is_active)
    found += timers.at_rest(database, is_active=is_active)
    if is_active:
        found += [
            f"{entry.command_id} remains in the outbox"
            for entry in database.table(OutboxEntry).values()
            if entry.lane not in world.broker.is_missing and not (database.connections and _has_arrived(world, entry))
        ]
    if world.broker.dead[database.lane].ready:
        found.append(f"{len(world.broker.dead[database.lane].ready)} dead letters remain in queue {database.lane}")
    found += _positions(database)
    log = database.table(LogEntry)
    count = len(log) + len(database.pruned)
    for command_id in sorted(database.cancelled):
        if command_id in log and (settled := database.settled(command_id)) and settled.error_code != "cancelled":
            found.append(f"{command_id} is {settled.status}, and was cancelled before that")
    if database.sequence != count + len(database.skipped):
        found.append(f"the lease has sequence {database.sequence}, and the log has had {count} entries")
    return found


def _has_arrived(world: World, entry: OutboxEntry) -> bool:
    """Whether it was safe before a loss brought its entry back. No sequence is lost with that, so nothing shows it."""
    if entry.lane in SINKS:
        return any(entry.command_id in message.ids for message in world.broker.arrived[entry.lane])
    return world.databases[entry.lane].is_settled(entry.command_id)


def _positions(database: Database) -> list[str]:
    """Numbers of publisher sessions that the lane is done with, and of which a successor must not wait for any."""
    if database.connections:
        # It may have lost a commit of nothing but a position.
        return []
    found = []
    rows = database.table(PublisherPosition)
    for name, number in sorted(database.numbers):
        row = rows.get(name)
        gaps = [] if row is None else json.loads(row.gaps)
        if row is None or number > row.sequence or any(first <= number <= last for first, last in gaps):
            found.append(f"number {number} of {name} was acknowledged, and is not counted: {row}")
    return found


def _replay(world: World, models: dict[str, Model], commands: dict[str, CommandMessage]) -> list[str]:
    """Replay the logs against the models, in the order in which they were committed."""
    found = []
    for command_id, children in world.orphans.items():
        commands.setdefault(command_id, children[0])
    _continue_mismatches(world, models)
    known = dict.fromkeys(models, 0)
    for _, lane, entry in _history(world):
        if isinstance(entry, dict):
            models[lane].raise_series(entry)
            continue
        message = sent(world, commands, entry)
        if message is None:
            found.append(f"{entry.command_id} ({entry.type}) is in the log of {lane}: nobody sent it before that")
            continue
        # Of one that was refused as it came, not all was read.
        is_read = message.defect is None
        if is_read and not world.databases[lane].is_of(entry, message):
            found.append(f"{entry.command_id} is in the log with another content")
        wrong = models[lane].check(entry, message, world.databases[lane].cancelled)
        if wrong is not None:
            found.append(f"sequence {entry.sequence} of {lane}: {entry.type} {entry.command_id} {wrong}")
        emitted = models[lane].emitted
        if len(emitted) > known[lane]:
            known[lane] = len(emitted)
            for command_id, (_, _, child) in emitted.items():
                if commands.setdefault(command_id, child) != child and command_id in world.orphans:
                    world.orphans[command_id].append(child)
    return found


def _history(world: World) -> list[tuple[int, str, LogEntry | dict[str, int]]]:
    """What was committed, and when: entries of the logs, and the series that were raised over a loss."""
    history: list[tuple[int, str, LogEntry | dict[str, int]]] = []
    for lane, database in world.databases.items():
        history += [(at, lane, entry) for at, entry in database.history()]
        history += [(at, lane, values) for at, values in database.raised]
    return sorted(history, key=itemgetter(0))


def _continue_mismatches(world: World, models: dict[str, Model]) -> None:
    for lane, database in world.databases.items():
        for letter in database.book.ever.values():
            child = letters.continuation_of_mismatch(letter)
            if child is not None:
                target = (child.type or "").partition(".")[0]
                models[lane].emitted[child.command_id or ""] = (letter.command_id or "", target, child)


def emitted_so_far(world: World, lane: str) -> Iterable[tuple[str, CommandMessage]]:
    """What a lane has emitted, according to its log as it is."""
    models = {name: Model(name, database) for name, database in world.databases.items()}
    world.violations += _replay(world, models, dict(world.commands))
    return [(command_id, child) for command_id, (_, _, child) in models[lane].emitted.items()]


def sent(world: World, commands: dict[str, CommandMessage], entry: LogEntry) -> CommandMessage | None:
    """The command of an entry. The same id may have been sent with another content: after a loss, or by another."""
    message = commands.get(entry.command_id)
    for each in (message, *world.orphans[entry.command_id]) if entry.command_id in world.orphans else ():
        if each and any(database.is_of(entry, each) for database in world.databases.values()):
            return each
    return message


def _emitted(world: World, models: dict[str, Model]) -> list[str]:
    """What was emitted and not withdrawn is settled by whoever it was for."""
    found = []
    for lane, model in models.items():
        withdrawn = world.databases[lane].withdrawn
        for command_id, (parent, target, child) in model.emitted.items():
            if command_id not in withdrawn | model.taken_back and target not in SINKS:
                found += _settled(world.databases[target], parent, child)
    return found


def _settled(database: Database, parent: str, child: CommandMessage) -> list[str]:
    """What was emitted is settled, or its mismatch is there to be seen."""
    entry = database.settled(child.command_id)
    if database.has_lost(child.command_id):
        return []
    if entry is None:
        return [f"{child.type} {child.command_id}, emitted by {parent}, was never settled"]
    if child.origin != "system" or database.is_of(entry, child):
        return []
    source = f"{child.command_id} {_FIRST.of_first(child)}"
    if source in database.book.by_source or database.has_lost_letter(source):
        return []
    return [f"{child.type} {child.command_id}, emitted by {parent}, is another's id, and no letter says so"]


def _sinks(world: World, models: dict[str, Model]) -> list[str]:
    """What left the lanes for somebody who is not simulated: all that was emitted, and nothing else."""
    found = []
    withdrawn = {command_id for database in world.databases.values() for command_id in database.withdrawn}
    for sink in SINKS:
        expected = {
            child.command_id: child
            for model in models.values()
            for _, target, child in model.emitted.values()
            if target == sink
        }
        arrived = set()
        for message in world.broker.arrived[sink]:
            for command in decode(envelope_of(message.properties, message.exchange), message.body):
                command_id = command.command_id
                arrived.add(command_id)
                child = expected.get(command_id)
                if child is None and command_id in world.orphans:
                    continue
                if child is None:
                    found.append(f"{command_id} arrived in {sink}: nobody emitted it")
                elif (command.origin == "public") != (child.origin == "public"):
                    found.append(f"{child.type} {command_id} arrived in {sink}, and is not from {child.origin}")
        if sink not in world.broker.is_missing:
            found += [f"{command_id} never arrived in {sink}" for command_id in expected.keys() - arrived - withdrawn]
    return found


def _overtaken(world: World) -> list[str]:
    """Commands that came to a lane before others that had been emitted before them."""
    found = []
    for database in world.databases.values():
        if database.connections:
            # It may have lost commits: then another command has an entry's number.
            continue
        # A process that has lost the lane may still send what its successor has withdrawn.
        emitted = {
            each: number for each, number in world.emitted[database.lane].items() if each not in database.withdrawn
        }
        for target, came in world.broker.came.items():
            if target.startswith(EFFECTS_PREFIX):
                continue
            numbers = [(number, each) for each in came if (number := emitted.get(each)) is not None]
            found += [
                f"{later} of {database.lane} came to {target} before {earlier}, which was emitted before it"
                for (above, later), (below, earlier) in pairwise(numbers)
                if below < above
            ]
    return found


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
    reports = [(row.about, row.status, row.code) for _, row in sorted(database.table(Report).items())]
    if reports != model.reports:
        found.append(f"reported {reports}, and should have reported {model.reports}")
    series = "accounts" if model.lane == "ledger" else "notes"
    counter = database.table(Series).get(series)
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
                first = client.by_id.get(record.command_id)
                if record.outcome is None or first is None or first.arguments == record.arguments:
                    continue
                if record.command_id in world.shared:
                    # Another one, of this party too, may have been the first to be settled: `_shared` asks the log.
                    continue
                code = record.outcome.error.code if record.outcome.error else None
                database = world.databases[client.lane]
                is_lost = database.has_lost(record.command_id) or forgets.is_told_so(database, record.outcome)
                if code != "idempotency_mismatch" and not is_lost:
                    found.append(f"{record.command_id} with another content is {record.outcome.status}")
    return found


def _shared(world: World) -> list[str]:
    """Of several parties that use one id, whoever comes first has it; the others are told that it is another's."""
    found = []
    for client in world.clients:
        database = world.databases[client.lane]
        told = [
            (command, record.outcome)
            for issue in client.issues
            for command, record in zip(issue.commands, issue.records, strict=True)
            if command.command_id in world.shared and not database.has_lost(command.command_id)
            if not forgets.is_told_so(database, record.outcome)
        ]
        for command, outcome in told:
            entry = database.settled(command.command_id)
            if outcome is None:
                continue
            if entry is None:
                found.append(f"{client.name} was told {outcome.status} of {command.command_id}, which was not settled")
                continue
            is_theirs = database.is_anothers(entry, command)
            is_mismatch = outcome.error is not None and outcome.error.code == letters.MISMATCH
            if is_theirs != is_mismatch or not (is_mismatch or outcome.sequence == entry.sequence):
                found.append(f"{client.name} was told {outcome} of {command.command_id}, and the log has {entry}")
    return found


def _strangers(world: World) -> list[str]:
    """What is confirmed is settled, whoever said it."""
    return [
        f"{command_id} of a stranger was confirmed and is not in the log of {lane}"
        for command_id, lane in sorted(world.confirmed)
        if not world.databases[lane].is_settled(command_id) and not world.databases[lane].has_lost(command_id)
    ]
