"""Commands that wait for their key: what the operator does about them, and what must be true of them at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from coordinator.lane.control import Release
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import replay_command_id
from coordinator.stores.lane_tables import LogEntry, ParkedCommand
from tests.simulation.model import refusal_of
from tests.simulation.rules import is_refused_at_once
from tests.simulation.services import LEDGER_LANE

if TYPE_CHECKING:
    from tests.simulation.database import Database

_KEYED = {handler.command.type for handler in LEDGER_LANE.handlers if handler.target is not None}
_FRAGILE = {handler.command.type for handler in LEDGER_LANE.handlers if handler.on_failure == "park-key"}
_UNREADABLE = ("invalid_arguments", "malformed_json")
_FREED = ("cancelled", "too_many_parked", "publisher_seq_settled")


def violations(  # noqa: C901  # one loop over the log, with what it knows so far
    database: Database, sent: Callable[[LogEntry], CommandMessage | None]
) -> list[str]:
    """What was settled out of its turn, in the order in which it was committed."""
    found: list[str] = []
    log = sorted((entry for _, entry in database.history()), key=lambda entry: entry.sequence)
    heads: dict[Any, str] = {}
    latest: dict[Any, int] = {}
    for entry in log:
        message = sent(entry)
        if message is None:
            continue
        if entry.type == Release.type and entry.status == "applied":
            released = msgspec.json.decode(message.arguments)
            head = heads.pop(int(released["ordering_key"].partition("=")[2]), None)
            if head != released["command_id"]:
                found.append(f"sequence {entry.sequence} released {head}, and should release {released['command_id']}")
            continue
        if entry.type == "lane.discard" and entry.status == "applied":
            discarded = msgspec.json.decode(entry.result or "{}")["command_id"]
            heads = {key: head for key, head in heads.items() if head != discarded}
            continue
        key = _key(database.lane, entry, message)
        if key is None:
            continue
        head = heads.get(key)
        is_replay = head is not None and entry.command_id in (head, replay_command_id(head))
        if head is not None and not is_replay and entry.error_code not in _FREED:
            found.append(f"sequence {entry.sequence} was settled while {head} kept its key waiting")
        waited = database.waited.get(entry.command_id)
        if waited is not None and entry.error_code not in _FREED:
            if waited[1] < latest.get(key, 0):
                found.append(f"sequence {entry.sequence} waited, and was overtaken by one that came later")
            latest[key] = waited[1]
        elif waited is None and not is_replay and entry.error_code not in _FREED:
            found += _overtaken(database, entry, key)
        if entry.status == "failed" and (entry.type in _FRAGILE or waited is not None or is_replay):
            heads[key] = entry.command_id
        elif is_replay:
            del heads[key]
    found += [f"{row.command_id} still waits for {row.ordering_key}" for row in database.table(ParkedCommand).values()]
    return found


def _overtaken(database: Database, entry: LogEntry, key: int) -> list[str]:
    at = database.landed_at[entry.command_id]
    return [
        f"sequence {entry.sequence} overtook {command_id}, which waited"
        for command_id, (tick, _, other) in database.waited.items()
        if other == key and tick < at < database.landed_at.get(command_id, 0)
    ]


def _key(lane: str, entry: LogEntry, message: CommandMessage) -> Any:
    """The account that a command is about; None for one that waits for nothing."""
    if entry.type not in _KEYED or refusal_of(lane, message) or entry.error_code in _UNREADABLE:
        return None
    if entry.error_code == "forbidden" and is_refused_at_once(message):
        return None
    arguments = msgspec.json.decode(message.arguments)
    return arguments.get("id") if isinstance(arguments, dict) else None
