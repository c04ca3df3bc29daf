"""The first difference between two runs of the same commands, and the command that it is of."""

from typing import Final, Literal

from msgspec import Struct

from coordinator.protocol.wire import CommandMessage
from coordinator.service.rows import Key, Row
from coordinator.stores.lane_tables import LogEntry
from coordinator.testing.running import Ran

SHOWN_MAX: Final = 1000
IN_BATCHES: Final = ("in batches, with faults", "one by one")
Names = tuple[str, str]
"""What the two runs are called."""


class Finding(Struct, frozen=True):
    """What is wrong, and with commands of which type; empty: that is not known."""

    kind: Literal["calls", "differs", "differs elsewhere", "is kept", "fails", "is endless"]
    type: str
    text: str


def difference(first: Ran, second: Ran, names: Names = IN_BATCHES) -> Finding | None:
    """The first difference between the two, in the order of the commands; None: there is none.

    In the second, commands are applied one by one.
    """
    by_id = {message.command_id or "": message for message in first.order}
    for command_id, message in by_id.items():
        outcomes = [_outcome(each, command_id) for each in (first, second)]
        if outcomes[0] != outcomes[1]:
            return _differs(message, "its outcome", outcomes[0], outcomes[1], names)
    for model in first.rows:
        of_first, of_second = first.rows[model], second.rows[model]
        for key in (*of_first, *(key for key in of_second if key not in of_first)):
            if of_first.get(key) != of_second.get(key):
                by = _last_to_change(model, key, first, second, by_id)
                return _differs(by, f"{model.__name__} {key!r}", of_first.get(key), of_second.get(key), names)
    return _emission_difference(first, second, by_id, names)


def _emission_difference(first: Ran, second: Ran, by_id: dict[str, CommandMessage], names: Names) -> Finding | None:
    """The ids of what is emitted say what it is: what differs in anything has another id."""
    of_first = [message for command_id, message in first.emitted.items() if command_id not in second.emitted]
    of_second = [message for command_id, message in second.emitted.items() if command_id not in first.emitted]
    if not of_first and not of_second:
        return None
    # One by one, it is known of each who has emitted it.
    (emitted, emitters) = (of_second[0], second.emitters) if of_second else (of_first[0], first.emitters)
    by = by_id.get(emitters.get(emitted.command_id or "", ""))
    return _differs(by, "what it emits", shown(next(iter(of_first), None)), shown(next(iter(of_second), None)), names)


def _differs(message: CommandMessage | None, what: str, first: object, second: object, names: Names) -> Finding:
    kind: Literal["differs", "differs elsewhere"] = "differs" if names == IN_BATCHES else "differs elsewhere"
    text = f"{what} is not always the same:\n    {names[0]}: {first}\n    {names[1]}: {second}"
    if message is None:
        return Finding(kind, "", text)
    return Finding(kind, message.type or "", f"{text}\n  command: {shown(message)}")


def _outcome(ran: Ran, command_id: str) -> str:
    entry = ran.entries.get(command_id)
    if entry is None:
        return "it waits for its key" if command_id in ran.waiting else "it was not applied"
    return _shown_outcome(entry)


def _shown_outcome(entry: LogEntry) -> str:
    if entry.status == "rejected":
        return f'rejected with "{entry.error_code}": {entry.error_message}'
    # The text of an exception may name an object's address.
    return entry.status + (f" with {entry.error_code}" if entry.error_code else f": {entry.result}")


def _last_to_change(
    model: type[Row], key: Key, first: Ran, second: Ran, by_id: dict[str, CommandMessage]
) -> CommandMessage | None:
    """Of the commands that have changed a row: one by one, else in the batch that has."""
    for each in (second, first):
        for change in reversed(each.changes):
            if (change.model, change.key) == (model, repr(key)):
                return by_id.get(change.command_ids[-1]) if change.command_ids else None
    return None


def shown(message: CommandMessage | None) -> str:
    """A command as it was sent."""
    return "nothing" if message is None else f"{message.type} {bytes(message.arguments).decode():.{SHOWN_MAX}}"
