"""Decoding command messages: total, so that whatever is published becomes commands, each with what is wrong with it."""

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import (
    BODY_BYTES_MAX,
    HEADER_COMMAND_ID,
    HEADER_COMMAND_TYPE,
    HEADER_CONTINUATION,
    HEADER_DEADLINE,
    HEADER_EXPECTED_VERSION,
    HEADER_MALFORMED,
    HEADER_ORIGIN,
    HEADER_PUBLISHER,
    HEADER_PUBLISHER_SEQ,
    HEADER_TRACEPARENT,
    LANE_CHARACTERS_MAX,
    PACK_COMMANDS_MAX,
    PACK_CONTENT,
    TYPE_CHARACTERS_MAX,
    CommandMessage,
    Envelope,
    Packed,
    Problem,
)
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.ids import COMMAND_ID, is_system_id
from coordinator.service.nesting import taken_apart
from coordinator.service.options import Origin

UNPACKED_BYTES_MAX: Final = 4 << 20
"""Into a pack that is larger nobody looks, not even for the ids of its commands."""
UNPACKED_COMMANDS_MAX: Final = 10_000
"""Nor for more of them."""
KEPT_BYTES_MAX: Final = 1 << 20
"""Of a body that is not taken no more is kept: it may be as large as the broker lets messages be."""
INVALID_HEADER: Final = "invalid_header"
MESSAGE_TOO_LARGE: Final = "message_too_large"
PACK_TOO_LARGE: Final = "pack_too_large"
MALFORMED_COMMAND: Final = "malformed_command"
UNREAD_PACK: Final = frozenset({MESSAGE_TOO_LARGE, PACK_TOO_LARGE})
"""Of a pack with one of these problems the commands are found by their ids, and no more of them is read."""
_TYPE = re.compile(r"[!-~]{1,100}")
_CONTINUATION = re.compile(rf"(?=[!-~]{{3,100}}\Z)[^.]{{1,{LANE_CHARACTERS_MAX}}}\..+")


class _Named(Struct, kw_only=True):
    """As much of a command in a pack as says which it is."""

    id: Any = None
    type: Any = None
    publisher: Any = None
    publisher_seq: Any = None
    continuation: Any = None
    origin: Any = None


_PACK = msgspec.json.Decoder(list[Packed])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_NAMED = msgspec.json.Decoder(_Named)
_WITHIN: Final = 2
"""The level of what stands in an array, and in an object."""


def decode(
    envelope: Envelope, body: bytes, bytes_max: int = BODY_BYTES_MAX, commands_max: int = PACK_COMMANDS_MAX
) -> tuple[CommandMessage, ...]:
    """The commands of one message, in order: at least one. Never raises: what is wrong is each command's `problem`."""
    try:
        return _decoded(envelope, body, bytes_max, commands_max)
    except Exception as error:  # noqa: BLE001  # whatever strangers make a parser do, the message is settled
        problem = Problem("malformed_message", f"it cannot be read: {type(error).__name__}: {str(error)[:500]}")
        return (_unreadable(envelope, body, problem),)


def _decoded(envelope: Envelope, body: bytes, bytes_max: int, commands_max: int) -> tuple[CommandMessage, ...]:
    headers = envelope.headers
    if HEADER_MALFORMED in headers:
        problem = Problem(
            "malformed_properties", f"the AMQP properties cannot be decoded: {str(headers[HEADER_MALFORMED])[:1000]}"
        )
        return (_unreadable(envelope, body, problem),)
    if envelope.content_type == PACK_CONTENT:
        return _decoded_pack(envelope, body, bytes_max, commands_max)
    message = _checked(
        envelope,
        envelope.message_id if envelope.message_id is not None else headers.get(HEADER_COMMAND_ID),
        envelope.type if envelope.type is not None else headers.get(HEADER_COMMAND_TYPE),
        body,
        headers.get(HEADER_DEADLINE),
        headers.get(HEADER_EXPECTED_VERSION),
        headers.get(HEADER_PUBLISHER),
        headers.get(HEADER_PUBLISHER_SEQ),
        headers.get(HEADER_TRACEPARENT),
        headers.get(HEADER_CONTINUATION),
        None,
    )
    if len(body) > bytes_max and message.problem is None:
        problem = Problem(MESSAGE_TOO_LARGE, f"the body has {len(body)} bytes; at most {bytes_max} are taken")
        message = msgspec.structs.replace(message, problem=problem)
    return (_cut(message),)


def _cut(message: CommandMessage) -> CommandMessage:
    size_bytes = len(message.arguments)
    if message.problem is None or size_bytes <= KEPT_BYTES_MAX:
        return message
    return msgspec.structs.replace(message, arguments=message.arguments[:KEPT_BYTES_MAX], size_bytes=size_bytes)


def _decoded_pack(envelope: Envelope, body: bytes, bytes_max: int, commands_max: int) -> tuple[CommandMessage, ...]:
    if len(body) > bytes_max:
        problem = Problem(MESSAGE_TOO_LARGE, f"the pack has {len(body)} bytes; at most {bytes_max} are taken")
        return _refused_pack(envelope, body, problem)
    try:
        elements = _PACK.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Something in it is wrong: each element by itself shows what.
        return _decoded_elements(envelope, body, commands_max)
    if len(elements) > commands_max:
        return _refused_pack(envelope, body, _too_many(len(elements), commands_max))
    if not elements:
        return (_unreadable(envelope, body, Problem("malformed_pack", "a pack holds at least one command")),)
    return tuple(_of_packed(envelope, packed) for packed in elements)


def _decoded_elements(envelope: Envelope, body: bytes, commands_max: int) -> tuple[CommandMessage, ...]:
    try:
        elements = _elements(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = Problem("malformed_pack", f"the body of a pack must be a JSON array of objects: {error}")
        return (_unreadable(envelope, body, problem),)
    if len(elements) > commands_max:
        return _refused_pack(envelope, body, _too_many(len(elements), commands_max))
    return tuple(_decode_packed(envelope, element) for element in elements)


def _elements(body: bytes) -> list[bytes]:
    """The elements of a pack as they came, whatever is wrong with some. Raises an error of msgspec's for no array."""
    try:
        return [bytes(element) for element in _ELEMENTS.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text, taken_out = taken_apart(body, _WITHIN)
    return [taken_out.get(element, element) for element in map(bytes, _ELEMENTS.decode(text))]


def _refused_pack(envelope: Envelope, body: bytes, problem: Problem) -> tuple[CommandMessage, ...]:
    """The commands of a pack that is not taken, by their ids, without what they carry: whoever sent them hears of it.

    Those without an id of their own are one message, the pack.
    """
    if len(body) > UNPACKED_BYTES_MAX:
        return (_unreadable(envelope, body, problem),)
    try:
        elements = _elements(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return (_unreadable(envelope, body, problem),)
    named: list[CommandMessage] = []
    for element in elements[:UNPACKED_COMMANDS_MAX]:
        message = _named(envelope, element, problem)
        if message is not None:
            named.append(message)
    whole = [] if len(named) == len(elements) > 0 else [_unreadable(envelope, body, problem)]
    return (*named, *whole)


def _named(envelope: Envelope, element: bytes, problem: Problem, *, kept: bytes = b"") -> CommandMessage | None:
    """A command that is not taken, by its id; None: it has no usable one."""
    try:
        each = _name_of(element)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    message = _checked(
        envelope,
        each.id,
        each.type,
        kept,
        None,
        None,
        each.publisher,
        each.publisher_seq,
        None,
        each.continuation,
        each.origin,
    )
    return None if message.command_id is None else _cut(msgspec.structs.replace(message, problem=problem))


def _name_of(element: bytes) -> _Named:
    try:
        return _NAMED.decode(element)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _NAMED.decode(taken_apart(element, _WITHIN)[0])


def _too_many(commands: int, commands_max: int) -> Problem:
    return Problem(PACK_TOO_LARGE, f"the pack has {commands} commands; at most {commands_max} are taken")


def _unreadable(envelope: Envelope, body: bytes, problem: Problem) -> CommandMessage:
    origin = _origin(envelope, None)
    return _cut(CommandMessage(command_id=None, type=None, arguments=body, origin=origin, problem=problem))


def _origin(envelope: Envelope, said: object) -> Origin:
    """The way on which a message came decides. What came through `writes.system` may say that it is only public."""
    if not envelope.is_system or "public" in (said, envelope.headers.get(HEADER_ORIGIN)):
        return "public"
    return "system"


def _decode_packed(envelope: Envelope, element: bytes) -> CommandMessage:
    try:
        return _of_packed(envelope, msgspec.json.decode(element, type=Packed))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Where only its arguments are wrong, it is a command whose arguments are.
        text, taken_out = taken_apart(element, _WITHIN)
    try:
        message = _of_packed(envelope, msgspec.json.decode(text, type=Packed))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = Problem(MALFORMED_COMMAND, f"not the JSON object that a command of a pack is: {error}")
        return _named(envelope, element, problem, kept=element) or _unreadable(envelope, element, problem)
    return _cut(msgspec.structs.replace(message, arguments=taken_out.get(message.arguments, message.arguments)))


def _of_packed(envelope: Envelope, packed: Packed) -> CommandMessage:
    return _checked(
        envelope,
        packed.id,
        packed.type,
        bytes(packed.args),
        packed.deadline,
        packed.expected_version,
        packed.publisher,
        packed.publisher_seq,
        packed.traceparent,
        packed.continuation,
        packed.origin,
    )


def _checked(  # noqa: C901  # a line or two for each part of a command
    envelope: Envelope,
    command_id: object,
    command_type: object,
    arguments: bytes,
    deadline: object,
    expected_version: object,
    publisher: object,
    publisher_seq: object,
    traceparent: object,
    continuation: object,
    origin: object,
) -> CommandMessage:
    # What is wrong with a header hides whatever else is: without its conditions it is another command.
    problem: Problem | None = None
    clean_id: str | None = None
    if command_id is None:
        problem = Problem("missing_command_id", "a command needs an id, a UUID, as message_id or header command-id")
    elif not isinstance(command_id, str) or not COMMAND_ID.fullmatch(command_id):
        problem = Problem("invalid_command_id", f"the command id must be a UUID: {_shown(command_id)}")
    elif not envelope.is_system and is_system_id(command_id):
        text = f"ids of UUID version 8 are the system's own: choose another version than that of {command_id}"
        problem = Problem("reserved_command_id", text)
    else:
        clean_id = command_id.lower()
    clean_type: str | None = None
    if isinstance(command_type, str) and _TYPE.fullmatch(command_type):
        clean_type = command_type
    elif problem is None:
        problem = Problem(
            "missing_command_type",
            f"a command needs a type, 1 to {TYPE_CHARACTERS_MAX} visible ASCII characters, "
            "as property type or header command-type",
        )
    deadline_ms = version = number = None
    if deadline is not None:
        deadline_ms, problem = _integer(HEADER_DEADLINE, deadline, problem)
    if expected_version is not None:
        version, problem = _integer(HEADER_EXPECTED_VERSION, expected_version, problem)
    if publisher_seq is not None:
        number, problem = _integer(HEADER_PUBLISHER_SEQ, publisher_seq, problem, least=1)
    if (publisher is None) != (publisher_seq is None):
        problem = Problem(INVALID_HEADER, f"{HEADER_PUBLISHER} and {HEADER_PUBLISHER_SEQ} belong together")
    if publisher is not None and not (isinstance(publisher, str) and _TYPE.fullmatch(publisher)):
        text = f"publisher must be 1 to {TYPE_CHARACTERS_MAX} visible ASCII characters: {_shown(publisher)}"
        problem = Problem(INVALID_HEADER, text)
        publisher = None
    if continuation is not None and not (isinstance(continuation, str) and _CONTINUATION.fullmatch(continuation)):
        text = f"continuation must be a command type, such as orders.ship: {_shown(continuation)}"
        problem = Problem(INVALID_HEADER, text)
        continuation = None
    return CommandMessage(
        command_id=clean_id,
        type=clean_type,
        arguments=arguments,
        deadline_ms=deadline_ms,
        expected_version=version,
        publisher=publisher if isinstance(publisher, str) else None,
        publisher_seq=number,
        traceparent=traceparent if isinstance(traceparent, str) and len(traceparent) <= TYPE_CHARACTERS_MAX else None,
        continuation=continuation if isinstance(continuation, str) else None,
        origin=_origin(envelope, origin) if envelope.is_system else "public",
        problem=problem,
    )


def _integer(name: str, value: object, problem: Problem | None, least: int = 0) -> tuple[int | None, Problem | None]:
    """An integer header, which some clients can send only as text; and the problem that there is."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len(str(INTEGER_MAX)) + 1:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= INTEGER_MAX:
        # pika has an int of its own for the long ones, which no encoder knows.
        return int(value), problem
    text = f"{name} must be an integer from {least} to 2^53-1: {_shown(value)}"
    return None, Problem(INVALID_HEADER, text)


def _shown(value: object) -> str:
    """A value at fault, as an error names it; what is nested may be nested deeper than it can be written."""
    return f"{str(value)[:100]!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
