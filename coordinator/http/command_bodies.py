"""Bodies of several commands: JSON arrays and NDJSON as commands, checked, before any is issued; outcomes as either.

Pure functions. A fault is named by its place: `[3].args.amount` belongs to the fourth command.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from coordinator.http.problems import RequestRefused
from coordinator.protocol.fields import OPTIONS, with_fields
from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command, check_storable, field_at_fault, repeated, version_sent
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import is_nobodys_id, is_system_id, is_uuid
from coordinator.service.outcome import Outcome, OutcomeError
from coordinator.service.repeated_names import repeated_name
from coordinator.service.upgrades import UNKNOWN_VERSION, Upgrade, parse_sent, parse_unsaid

NDJSON: Final = "application/x-ndjson"
SHOWN_CHARACTERS_MAX: Final = 100

_OPTIONS: Final = tuple(field for field in OPTIONS if field.is_in_requests)


class ElementBase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command in a body, without its options."""

    id: str | None = None
    type: str
    args: Raw


CommandElement = with_fields("CommandElement", ElementBase, _OPTIONS, is_checked=True)
"""One command of a body, like one of a pack, with the same names, and the options that a client of HTTP may give."""
_OPTION_OF: Final = tuple((field.attribute, field.name) for field in _OPTIONS)


class PendingCommand(Struct, frozen=True, kw_only=True):
    """A command that is safe and not settled yet. Its outcome will be at `location`."""

    command_id: str
    type: str
    status: Literal["pending"] = "pending"
    location: str


class UnavailableCommand(Struct, frozen=True, kw_only=True):
    """A command that could not be handed over. Repeated with the same id it is applied once at most."""

    command_id: str
    type: str
    status: Literal["unavailable"] = "unavailable"
    error: OutcomeError


CommandAnswer = Outcome | PendingCommand | UnavailableCommand
"""The answer to one command."""


class AnsweredCommand(Struct, frozen=True, kw_only=True):
    """What of an answer to one command may be there, for its schema.

    `location` is there while it is `pending`; `sequence`, `result` and `replayed` once it is settled.
    """

    command_id: str | None
    type: str | None
    status: Literal["applied", "rejected", "expired", "failed", "pending", "unavailable"]
    sequence: int | UnsetType | None = UNSET
    result: Any = UNSET
    error: OutcomeError | UnsetType | None = UNSET
    replayed: bool | UnsetType = UNSET
    location: str | UnsetType = UNSET


def elements_of(body: bytes, media_type: str, commands_max: int) -> Sequence[bytes]:
    """The elements of a body, in its order, of which each is to be a command.

    Raises InvalidCommand where there are none, and RequestRefused (413) for too many.
    """
    elements = _lines(body) if media_type == NDJSON else _array(body)
    if not elements:
        raise InvalidCommand("at least one command is needed", code="malformed_commands", field="body")
    if len(elements) > commands_max:
        raise RequestRefused(
            413,
            "too_many_commands",
            f"the body has {len(elements)} commands; a request may have {commands_max} (GATEWAY_COMMANDS_MAX):"
            " send them in several requests",
            field="body",
        )
    return elements


def decoded_commands(
    elements: Sequence[bytes],
    known: Mapping[str, type[Command]],
    *,
    traceparent: str,
    tracestate: str | None = None,
    upgrades: Mapping[str, Sequence[Upgrade]] = {},
) -> Iterator[CommandMessage]:
    """The commands of a body, one after the other; `known` are the allowed commands, by type, and `upgrades` theirs.

    A command without an id has none yet. Raises InvalidCommand for the first that is at fault.
    """
    for position, element in enumerate(elements):
        try:
            yield _message(element, known, upgrades, traceparent, tracestate)
        except InvalidCommand as error:
            field = f"[{position}]" if error.field is None else f"[{position}].{error.field}"
            text = f"command {position} (the first is 0): {error}"
            raise InvalidCommand(text, code=error.code, field=field) from None


def encode_answers(answers: Sequence[CommandAnswer], media_type: str) -> bytes:
    """The answer to each command, as a JSON array or as NDJSON."""
    return msgspec.json.Encoder().encode_lines(answers) if media_type == NDJSON else msgspec.json.encode(answers)


def _array(body: bytes) -> Sequence[bytes]:
    """The elements, without a copy: there may be many more than are allowed."""
    try:
        return msgspec.json.decode(body, type=list[Raw])
    except msgspec.ValidationError as error:
        text = f"the body must be a JSON array of commands: {error}"
        raise InvalidCommand(text, code="malformed_commands", field="body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCommand(f"the body is not valid JSON: {error}", code="malformed_json", field="body") from None


def _lines(body: bytes) -> list[bytes]:
    """The lines of NDJSON. Blank ones are left out, as its specification permits."""
    return [line for line in body.split(b"\n") if line.strip()]


def _message(
    element: bytes,
    known: Mapping[str, type[Command]],
    upgrades: Mapping[str, Sequence[Upgrade]],
    traceparent: str,
    tracestate: str | None,
) -> CommandMessage:
    try:
        given = msgspec.json.decode(element, type=CommandElement)
    except msgspec.ValidationError as error:
        raise InvalidCommand(str(error), code="malformed_command", field=field_at_fault(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCommand(f"not valid JSON: {error}", code="malformed_json") from None
    if (name := repeated_name(bytes(element))) is not None:
        raise repeated(name)
    model, arguments = known.get(given.type), bytes(given.args)
    if model is None:
        text = f"no command type {given.type[:SHOWN_CHARACTERS_MAX]!a} here; there are: {', '.join(known) or 'none'}"
        raise InvalidCommand(text, code="unknown_command_type", field="type")
    options = {attribute: value for attribute, name in _OPTION_OF if (value := getattr(given, name)) is not None}
    said: int | None = options.pop("command_version", None)
    try:
        command = (
            parse_unsaid(model, arguments, upgrades.get(given.type, ()), said_by="command_version")
            if said is None
            else parse_sent(model, arguments, said, upgrades.get(given.type, ()))
        )
        check_storable(command, arguments)
    except InvalidCommand as error:
        if error.code == UNKNOWN_VERSION:
            raise
        field = "args" if error.field is None else f"args.{error.field}"
        raise InvalidCommand(str(error), code=error.code, field=field) from None
    return CommandMessage(
        command_id=None if given.id is None else _command_id(given.id),
        type=given.type,
        # As for a request of one command, so that the same command has the same fingerprint in both: encoded again, or
        # as it was sent where the client says which version it is.
        arguments=msgspec.json.encode(command) if said is None else arguments,
        command_version=version_sent(command) if said is None else (None if said == 1 else said),
        traceparent=traceparent,
        tracestate=tracestate,
        **options,
    )


def _command_id(given: str) -> str:
    if not is_uuid(given) or is_nobodys_id(given.lower()):
        text = f"a command id is a UUID that is not nil (zeros, or ones), not {given[:SHOWN_CHARACTERS_MAX]!a}"
        raise InvalidCommand(text, code="invalid_command_id", field="id")
    if is_system_id(given):
        text = f"ids of UUID version 8 are the system's own: choose another version than that of {given}"
        raise InvalidCommand(text, code="reserved_command_id", field="id")
    return given.lower()
