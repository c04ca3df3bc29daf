"""Dead letters as the database has had them: what every commit may do to them, and what must be true at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from coordinator.lane.forgetting import REASON
from coordinator.lane.outbox import message_of
from coordinator.protocol.senders import actor_of
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import continuation_command_id, replay_command_id, system_command_id
from coordinator.service.options import Options
from coordinator.stores.lane_tables import SENDERS_BYTES, DeadLetter, LogEntry, OutboxEntry, Series, is_of_sender
from tests.simulation.services import TARGETS

if TYPE_CHECKING:
    from coordinator.stores.port import Changes
    from tests.simulation.database import Database
    from tests.simulation.world import World

MISMATCH = "idempotency_mismatch"
NUMBER_SETTLED = "publisher_seq_settled"
_NAMELESS = {"public": "dead_letters.nameless", "system": "dead_letters.nameless.system"}
_OF_OTHERS = ("handler_error", "invalid_row", "database_refused")
"""Failures whose text is an exception's or the database's: the letter alone has it."""
_ORDERS = ("lane.replay", "lane.discard")
_LASTING = ("id", "source", "target", "command_id", "type", "origin", "sequence", "arguments", "size_bytes", "options")
REFUSED_AGAIN = frozenset(
    {
        "unknown_command_type",
        "forbidden_command_type",
        "invalid_arguments",
        "malformed_json",
        "missing_command_id",
        "invalid_command_id",
        "missing_command_type",
        "malformed_pack",
        "malformed_command",
        "malformed_message",
        "message_too_large",
        "pack_too_large",
    }
)
"""What fails before any handler is asked, and so may again."""


class Book:
    """All letters that one lane ever had, told of each commit as it lands."""

    def __init__(self, world: World, lane: str) -> None:
        self.world = world
        self.lane = lane
        self.ever: dict[int, DeadLetter] = {}
        self.by_source: dict[str, list[int]] = {}
        self.unseen: dict[int, CommandMessage | None] = {}
        """Letters that one transaction wrote and removed again, and what it sent of them: an order about a letter that
        was lost came together with the command, which failed once more."""
        self.emptied: set[int] = set()
        """Letters of somebody who is forgotten."""
        self.were_full: set[str] = set()
        """The origins whose room for messages without an id was full at some time."""

    def note(self, database: Database, changes: Changes) -> None:
        """A commit has landed; raise the alarm over what no commit may do."""
        if self.world.rates["orders"] > 0 or (self.world.withdraws_stuck and self.world.is_calm):
            self.world.wake(self.world.chaos.actor)
        added = _rows(changes.inserts, DeadLetter)
        removed = _rows(changes.deletes, DeadLetter)
        changed = _rows(changes.updates, DeadLetter)
        entries = _rows(changes.inserts, LogEntry)
        failed = {entry.command_id: entry for entry in entries if entry.status == "failed"}
        orders = [entry for entry in entries if entry.type in _ORDERS or entry.type == "lane.withdraw"]
        if not (added or removed or changed or failed or orders):
            return
        self.world.wake(self.world.chaos.actor)
        # First: an order of the same commit may find a letter emptied.
        for letter in changed:
            before = self.ever[letter.id]
            if letter.reason == REASON:
                # Emptied: for the checks it is what it was (`forgets.py`).
                self.emptied.add(letter.id)
                continue
            if any(getattr(letter, name) != getattr(before, name) for name in _LASTING):
                self._alarm(f"letter {letter.id} has become another: {letter}")
        self._note_unseen(added, orders, changes)
        self._check_failed(added, failed)
        self._check_removed(removed, orders, changes)
        for letter in added:
            self.ever[letter.id] = letter
            self.by_source.setdefault(letter.source, []).append(letter.id)
        for entry in orders:
            if entry.type == "lane.withdraw" and entry.status == "applied":
                database.withdrawn.update(_result(entry)["command_ids"])
        self._check_table(database)
        self._note_full(database, removed)

    def _note_full(self, database: Database, removed: list[DeadLetter]) -> None:
        """Those without an id that came before an order of the same commit found no room yet where it made some."""
        gone = Counter(each.origin for each in removed if each.command_id is None)
        for origin, made in gone.items():
            kept = sum(
                each.command_id is None and each.origin == origin for each in database.table(DeadLetter).values()
            )
            if kept + made >= self.world.settings.nameless_dead_max:
                self.were_full.add(origin)

    def _note_unseen(self, added: list[DeadLetter], orders: list[LogEntry], changes: Changes) -> None:
        known = self.ever.keys() | {letter.id for letter in added}
        emitted = {row.command_id: row for row in _rows(changes.inserts, OutboxEntry)}
        for entry in orders:
            if entry.type not in _ORDERS or entry.status != "applied":
                continue
            result = _result(entry)
            if result["letter"] not in known:
                replay = emitted.get(result.get("replayed_as"))
                self.unseen[result["letter"]] = None if replay is None else message_of(replay)
                if result["command_id"] is not None:
                    self.by_source.setdefault(result["command_id"], [])

    def _check_failed(self, added: list[DeadLetter], failed: dict[str, LogEntry]) -> None:
        """What fails has its letter in the same transaction: no crash comes between, and none is there twice."""
        named: dict[str, DeadLetter] = {}
        for each in added:
            if each.sequence is not None:
                named[each.source] = each
            elif each.source == each.command_id and each.source not in self.world.old_letters:
                self._alarm(f"{each.source} has a dead letter, and its transaction did not settle it")
        for command_id, entry in failed.items():
            letter = named.pop(command_id, None)
            if letter is None and self.by_source.get(command_id) == []:
                # Nobody has seen it (`unseen`).
                continue
            if letter is None:
                self._alarm(f"{command_id} failed, and its transaction wrote no dead letter")
            elif (letter.sequence, letter.code) != (entry.sequence, entry.error_code):
                self._alarm(f"the dead letter of {command_id} is not that of its log entry: {letter}")
            elif entry.error_code not in _OF_OTHERS and letter.reason != entry.error_message:
                self._alarm(f"the dead letter of {command_id} does not say what the log says: {letter}")
        for source in named.keys() - self.world.old_letters:
            self._alarm(f"{source} has a dead letter, and did not fail in its transaction")

    def _check_removed(self, removed: list[DeadLetter], orders: list[LogEntry], changes: Changes) -> None:
        """A letter goes by one order, and what is replayed is in the outbox by the same commit."""
        told = [_result(entry) for entry in orders if entry.type in _ORDERS and entry.status == "applied"]
        seen = [result["letter"] for result in told if result["letter"] not in self.unseen]
        if sorted(letter.id for letter in removed) != sorted(seen):
            self._alarm(f"letters {[letter.id for letter in removed]} were removed, and orders say {told}")
        emitted = {row.command_id for row in _rows(changes.inserts, OutboxEntry)}
        emitted.update(
            command_id
            for entry in orders
            if entry.type == "lane.withdraw" and entry.status == "applied"
            for command_id in _result(entry)["command_ids"]
        )
        for result in told:
            if "replayed_as" in result and result["replayed_as"] not in emitted:
                self._alarm(f"letter {result['letter']} was replayed, and nothing was emitted")
        for entry in orders:
            if entry.error_code == "letter_not_found":
                number = self._ordered(entry)
                if number in self.ever and number in self.world.databases[self.lane].table(DeadLetter):
                    self._alarm(f"{entry.command_id} did not find letter {number}, which is there")
            elif entry.error_code == "not_replayable" and (number := self._ordered(entry)):
                letter = self.ever.get(number)
                is_sendable = letter is None or (letter.code not in REFUSED_AGAIN and letter.target in TARGETS)
                if is_sendable and number not in self.emptied:
                    self._alarm(f"{entry.command_id} was refused: letter {number} is not replayable: {letter}")
            elif entry.error_code == "replay_of_parked" and not self._names_replay(entry, changes):
                self._alarm(f"{entry.command_id} was refused, and names no replay")

    def _names_replay(self, entry: LogEntry, changes: Changes) -> bool:
        """Whether an order to withdraw names what was emitted to replay a command of this lane."""
        replays = {replay_command_id(each.command_id) for each in self.ever.values() if each.command_id is not None}
        order = self.world.commands[entry.command_id]
        named = msgspec.json.decode(order.arguments)["entries"]
        outbox = self.world.databases[self.lane].table(OutboxEntry).values()
        emitted = [*outbox, *_rows(changes.deletes, OutboxEntry)]
        return any(row.command_id in replays for row in emitted if row.id in named)

    def _ordered(self, entry: LogEntry) -> int:
        """Which letter an order is about; 0: it was a dead letter itself, and is replayed."""
        order = self.world.commands.get(entry.command_id)
        number: int = 0 if order is None else msgspec.json.decode(order.arguments)["letter"]
        return number

    def _check_table(self, database: Database) -> None:
        letters = database.table(DeadLetter)
        most = self.world.settings.nameless_dead_max
        for origin, name in _NAMELESS.items():
            nameless = sum(each.command_id is None and each.origin == origin for each in letters.values())
            counter = database.table(Series).get(name)
            if nameless != (0 if counter is None else counter.value):
                self._alarm(f"{nameless} letters of {origin} origin have no id, and the counter says {counter}")
            if nameless > most:
                self._alarm(f"{nameless} letters of {origin} origin without an id are kept; at most {most} may be")
            if nameless == most:
                self.were_full.add(origin)
        kept = sum(len(each.arguments) for each in letters.values() if is_of_sender(each))
        counter = database.table(Series).get(SENDERS_BYTES)
        if kept != (0 if counter is None else counter.value):
            self._alarm(f"letters of senders have {kept} bytes, and the counter says {counter}")
        series = database.table(Series).get("dead_letters")
        if max(self.ever, default=0) > (0 if series is None else series.value):
            self._alarm(f"letter {max(self.ever)} was written, and the counter says {series}")
        if len(self.ever) + len(self.unseen) != (0 if series is None else series.value) and not database.skipped:
            self._alarm(f"there were {len(self.ever)} letters, and the counter says {series}")

    def is_kept(self, source: str, origin: str) -> bool:
        """Whether a message without an id is a letter, or was one too many of its origin."""
        return source in self.by_source or origin in self.were_full

    def _alarm(self, text: str) -> None:
        self.world.violation(f"{self.lane}: {text}")


def _rows(lists: Iterable[Any], model: type[Any]) -> list[Any]:
    return [row for rows in lists if type(rows[0]) is model for row in rows]


def _result(entry: LogEntry) -> dict[str, Any]:
    result: dict[str, Any] = msgspec.json.decode(entry.result or "null")
    return result


def replayed(letter: DeadLetter, order: dict[str, Any]) -> tuple[str, CommandMessage]:
    """To whom a letter is sent once more, and as what."""
    options = Options.decode(letter.options)
    arguments = msgspec.json.encode(order["args"]) if "args" in order else letter.arguments
    if letter.target.startswith("effects."):
        command_id = letter.command_id or system_command_id("letter", letter.target, str(letter.id))
        return letter.target, CommandMessage(
            command_id=command_id,
            type=letter.type,
            arguments=arguments,
            command_version=options.command_version,
            origin="system",
        )
    is_own = letter.source == letter.command_id
    if letter.command_id is None:
        command_id = system_command_id("letter", letter.target, str(letter.id))
    elif not is_own:
        command_id = system_command_id(letter.source, "replay")
    else:
        command_id = letter.command_id if letter.sequence is None else replay_command_id(letter.command_id)
    return letter.target, CommandMessage(
        command_id=command_id,
        type=letter.type,
        arguments=arguments,
        deadline_ms=None if order.get("without_deadline") else options.deadline_ms,
        expected_version=options.expected_version,
        command_version=options.command_version,
        continuation=options.continuation if is_own and letter.sequence is None else None,
        origin="system" if order.get("as_system") else options.origin,
        actor=options.actor if order.get("as_system") else actor_of(options.actor, options.sender or ""),
    )


def continuation_of_mismatch(letter: DeadLetter) -> CommandMessage | None:
    """What the continuation of a command is told whose id was taken, of the system's own."""
    options = Options.decode(letter.options)
    if letter.code != MISMATCH or options.continuation is None:
        return None
    fingerprint = letter.source.partition(" ")[2]
    own_id = continuation_command_id(f"{letter.type} {letter.command_id}")
    return continuation(
        own_id=system_command_id(own_id, "mismatch", fingerprint),
        about=(letter.command_id or "", letter.type or ""),
        continuation_type=options.continuation,
        origin=options.origin,
        status="failed",
        result=None,
        # What the lane knows of the other command is in the letter only.
        error={"code": letter.code, "message": f"the id is that of another command: {letter.command_id}"},
    )


def continuation(
    *,
    own_id: str,
    about: tuple[str, str],
    continuation_type: str,
    origin: Any,
    status: str,
    result: Any,
    error: dict[str, str] | None,
) -> CommandMessage:
    """The command that an outcome becomes."""
    command_id, command_type = about
    arguments = {
        "command_id": command_id,
        "command_type": command_type,
        "status": status,
        "result": result,
        "error": error,
    }
    return CommandMessage(
        command_id=own_id, type=continuation_type, arguments=msgspec.json.encode(arguments), origin=origin
    )


def violations(database: Database, commands: dict[str, CommandMessage]) -> list[str]:
    """What a letter must say of its command, and that none is missing, at the end."""
    book, old = database.book, database.world.old_letters
    found = []
    for letter in book.ever.values():
        if letter.command_id is not None and letter.target == database.lane and letter.command_id not in old:
            orphans = database.world.orphans.get(letter.command_id, ())
            candidates = (commands.get(letter.command_id), *orphans)
            wrong = None
            for candidate in candidates:
                wrong = _wrong_with(letter, candidate)
                if wrong is None:
                    break
            found += [] if wrong is None else [f"letter {letter.id} of {letter.command_id} {wrong}"]
    for source, numbers in book.by_source.items():
        # The others can come again once an operator has removed them: nothing in the log is about them.
        is_logged = source not in old and any(book.ever[number].sequence is not None for number in numbers)
        if is_logged and len(numbers) > 1:
            found.append(f"{source} has the dead letters {numbers}")
    found += [
        f"the letter of {command_id}, of an older release, was lost"
        for command_id, lane in old.items()
        if lane == database.lane and command_id not in book.by_source and not database.has_lost_letter(command_id)
    ]
    return found


def _wrong_with(letter: DeadLetter, message: CommandMessage | None) -> str | None:
    if message is None:
        return "is about a command that nobody sent"
    if letter.code == MISMATCH and letter.origin != "system":
        return "is of a stranger, whose mismatch is his own affair"
    said = Options.decode(letter.options)
    kept = (letter.type, letter.arguments, letter.origin, said.origin)
    if kept != (message.type, message.arguments, message.origin, message.origin):
        return f"is {letter}, and should be of {message}"
    return None
