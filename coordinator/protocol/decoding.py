"""Decoding command messages. It is total: any message becomes commands, each with its defect if it has one."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from coordinator.protocol.attributing import attributed
from coordinator.protocol.fields import ID, OPTIONS, ORIGIN, TYPE, Field, with_fields
from coordinator.protocol.tracestates import HEADER_TRACESTATE, HEADER_TRACESTATES, decoded_tracestates
from coordinator.protocol.wire import (
    BODY_BYTES_MAX,
    HEADER_MALFORMED,
    HEADER_RESULT_OF,
    HEADERS,
    INVALID_HEADER,
    PACK_COMMANDS_MAX,
    PACK_CONTENT,
    CommandMessage,
    Defect,
    Envelope,
    Packed,
    PackedBase,
)
from coordinator.service.ids import NOBODYS_WORDS, is_nobodys_id, is_system_id
from coordinator.service.nesting import has_more_tokens, taken_apart
from coordinator.service.options import Origin
from coordinator.service.repeated_names import may_repeat_names, repeated_name

UNPACKED_BYTES_MAX: Final = 2 << 20
"""A larger pack is not read, not even for the ids of its commands."""
UNPACKED_COMMANDS_MAX: Final = 5_000
"""How many commands of a refused pack are read for their ids."""
TOKENS_MAX: Final = 50_000
"""Of a pack, or of a command of one, that is looked through where something in it is wrong: texts, and brackets that do
not follow each other."""
KEPT_BYTES_MAX: Final = 1 << 20
"""How much of a refused body is kept: it may be as large as the broker lets messages be."""
MESSAGE_TOO_LARGE: Final = "message_too_large"
PACK_TOO_LARGE: Final = "pack_too_large"
MALFORMED_COMMAND: Final = "malformed_command"
UNREAD_PACK: Final = frozenset({MESSAGE_TOO_LARGE, PACK_TOO_LARGE})
"""A pack with one of these defects is read only for the ids and options of its commands."""


class _Element(Struct, gc=False):
    """Any JSON object. What is in it is passed over."""


class _NamedBase(Struct):
    """The part of a command in a refused pack that identifies it, beside the options that are read of it."""

    id: Any = None
    type: Any = None
    origin: Any = None


_Named = with_fields("_Named", _NamedBase, [each for each in OPTIONS if each.is_read_unread], is_checked=False)
_Unchecked = with_fields("_Unchecked", PackedBase, OPTIONS, is_checked=False)
_PLACES: Final = {field.header: (place, field.form.check) for place, field in enumerate(OPTIONS)}
_PUBLISHER, _PUBLISHER_SEQ = HEADERS.index("publisher"), HEADERS.index("publisher-seq")
_check_id, _check_type = ID.form.check, TYPE.form.check
_PACK: Final[msgspec.json.Decoder[list[PackedBase]]] = msgspec.json.Decoder(list[Packed])  # type: ignore[valid-type]
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_OF_OBJECTS = msgspec.json.Decoder(list[_Element])
_UNCHECKED = msgspec.json.Decoder(_Unchecked)
_NAMED = msgspec.json.Decoder(_Named)
_ID_NAME: Final = "id"
_WITHIN: Final = 2
"""The level of what stands in an array, and in an object."""
_COMMAS_MAX: Final = 20_000
"""With more of them a text may have more elements than it could have commands."""
_NAMED_BYTES_MIN: Final = 40
"""No command with an id is shorter."""


def decode(
    envelope: Envelope, body: bytes, bytes_max: int = BODY_BYTES_MAX, commands_max: int = PACK_COMMANDS_MAX
) -> tuple[CommandMessage, ...]:
    """The commands of one message, in order: at least one. Never raises: a fault is its command's `defect`."""
    try:
        commands = attributed(envelope, _decoded(envelope, body, bytes_max, commands_max))
        has_state = HEADER_TRACESTATE in envelope.headers or HEADER_TRACESTATES in envelope.headers
        return _with_tracestates(commands, envelope) if has_state else commands
    except Exception as error:  # noqa: BLE001  # strangers may make a parser fail in any way; the message is settled
        defect = Defect("malformed_message", f"it cannot be read: {type(error).__name__}: {str(error)[:500]}")
        return (_unreadable(envelope, body, defect),)


def _decoded(envelope: Envelope, body: bytes, bytes_max: int, commands_max: int) -> tuple[CommandMessage, ...]:
    headers = envelope.headers
    if HEADER_MALFORMED in headers:
        text = f"the AMQP properties cannot be decoded: {str(headers[HEADER_MALFORMED])[:1000]}"
        return (_unreadable(envelope, body, Defect("malformed_properties", text)),)
    if envelope.content_type == PACK_CONTENT:
        return _decoded_pack(envelope, body, bytes_max, commands_max)
    values, defect = _checked(headers.items())
    message = _message(
        envelope,
        envelope.message_id if envelope.message_id is not None else headers.get(ID.header),
        envelope.type if envelope.type is not None else headers.get(TYPE.header),
        body,
        values,
        defect,
        None,
    )
    if len(body) > bytes_max and message.defect is None:
        defect = Defect(MESSAGE_TOO_LARGE, f"the body has {len(body)} bytes; at most {bytes_max} are taken")
        message = msgspec.structs.replace(message, defect=defect)
    if envelope.is_system and HEADER_RESULT_OF in headers:
        message = msgspec.structs.replace(message, result_of=_effect_named(headers[HEADER_RESULT_OF]))
    return (_cut(message),)


def _effect_named(value: object) -> str | None:
    """An effect as `TYPE ID`; what is malformed has no weight."""
    if not isinstance(value, str):
        return None
    effect_type, _, effect_id = value.partition(" ")
    is_one = _check_type(effect_type) is not None and _check_id(effect_id) == effect_id
    return value if is_one else None


def _with_tracestates(commands: tuple[CommandMessage, ...], envelope: Envelope) -> tuple[CommandMessage, ...]:
    if commands[0].defect is not None and commands[0].defect.code in UNREAD_PACK:
        # Not every command is there, so their places are not known.
        return commands
    states = decoded_tracestates(envelope.headers, len(commands))
    return tuple(
        command if state is None else msgspec.structs.replace(command, tracestate=state)
        for command, state in zip(commands, states, strict=True)
    )


def _cut(message: CommandMessage) -> CommandMessage:
    size_bytes = len(message.arguments)
    if message.defect is None or size_bytes <= KEPT_BYTES_MAX:
        return message
    return msgspec.structs.replace(message, arguments=message.arguments[:KEPT_BYTES_MAX], size_bytes=size_bytes)


def _decoded_pack(envelope: Envelope, body: bytes, bytes_max: int, commands_max: int) -> tuple[CommandMessage, ...]:
    if len(body) > bytes_max:
        defect = Defect(MESSAGE_TOO_LARGE, f"the pack has {len(body)} bytes; at most {bytes_max} are taken")
        return _refused_pack(envelope, body, defect)
    try:
        _check_lengths(body)
        elements = _PACK.decode(body)
    except (ValueError, RecursionError):
        # Some element is malformed, or in another form (a number as text): decode each element by itself.
        return _decoded_elements(envelope, body, commands_max)
    if len(elements) > commands_max:
        return _refused_pack(envelope, body, _too_many(len(elements), commands_max))
    if not elements:
        return (_unreadable(envelope, body, Defect("malformed_pack", "a pack holds at least one command")),)
    if may_repeat_names(body, msgspec.json.encode(elements)):
        # Perhaps a command has one member twice, and the decoder has kept the last: look at each closely.
        return _decoded_elements(envelope, body, commands_max)
    return tuple(_of_packed(envelope, packed) for packed in elements)


def _decoded_elements(envelope: Envelope, body: bytes, commands_max: int) -> tuple[CommandMessage, ...]:
    try:
        elements = _elements(body)
    except (ValueError, RecursionError) as error:
        defect = Defect("malformed_pack", f"the body of a pack must be a JSON array of objects: {error}")
        return (_unreadable(envelope, body, defect),)
    if len(elements) > commands_max:
        return _refused_pack(envelope, body, _too_many(len(elements), commands_max))
    return tuple(_decode_packed(envelope, element) for element in elements)


def _elements(body: bytes) -> list[bytes]:
    """The elements of a pack as they came, malformed ones too. Raises a ValueError or RecursionError if it is not an
    array, or if it costs too much to tell.
    """
    try:
        return _split(body)
    except (ValueError, RecursionError):
        if has_more_tokens(body, TOKENS_MAX):
            raise
        text, taken_out = taken_apart(body, _WITHIN)
    return [taken_out.get(element, element) for element in _split(text)]


def _split(text: bytes) -> list[bytes]:
    """The elements of a JSON array. Raises ValueError and RecursionError."""
    _check_lengths(text)
    return [bytes(element) for element in _ELEMENTS.decode(text)]


def _check_lengths(text: bytes) -> None:
    """Raise ValueError or RecursionError unless an array's elements can be commands, or are few: before anything is
    made of them.
    """
    if text.count(b",") > _COMMAS_MAX and len(_OF_OBJECTS.decode(text)) * _NAMED_BYTES_MIN > len(text):
        raise ValueError("its elements are too short for commands")


def _refused_pack(envelope: Envelope, body: bytes, defect: Defect) -> tuple[CommandMessage, ...]:
    """The commands of a refused pack, by their ids, without their arguments, so that each gets an outcome.

    The commands without a usable id are one message, the pack.
    """
    if len(body) > UNPACKED_BYTES_MAX:
        return (_unreadable(envelope, body, defect),)
    try:
        elements = _elements(body)
    except (ValueError, RecursionError):
        return (_unreadable(envelope, body, defect),)
    named: list[CommandMessage] = []
    for element in elements[:UNPACKED_COMMANDS_MAX]:
        message = _named(envelope, element, defect)
        if message is not None:
            named.append(message)
    whole = [] if len(named) == len(elements) > 0 else [_unreadable(envelope, body, defect)]
    return (*named, *whole)


def _named(envelope: Envelope, element: bytes, defect: Defect, *, kept: bytes = b"") -> CommandMessage | None:
    """A refused command, by its id; None: it has no usable one."""
    try:
        each = _name_of(element)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    values, _ = _checked((field.header, getattr(each, field.name, None)) for field in OPTIONS)
    message = _message(envelope, each.id, each.type, kept, values, defect, each.origin)
    return None if message.command_id is None else _cut(message)


def _name_of(element: bytes) -> _NamedBase:
    try:
        return _NAMED.decode(element)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if has_more_tokens(element, TOKENS_MAX):
            raise
        return _NAMED.decode(taken_apart(element, _WITHIN)[0])


def _too_many(commands: int, commands_max: int) -> Defect:
    return Defect(PACK_TOO_LARGE, f"the pack has {commands} commands; at most {commands_max} are taken")


def _unreadable(envelope: Envelope, body: bytes, defect: Defect) -> CommandMessage:
    origin = _origin(envelope, None)
    return _cut(CommandMessage(command_id=None, type=None, arguments=body, origin=origin, defect=defect))


def _origin(envelope: Envelope, said: object) -> Origin:
    """The exchange decides. A message that came through `writes.system` may say that it is only public."""
    if not envelope.is_system or "public" in (said, envelope.headers.get(ORIGIN.header)):
        return "public"
    return "system"


def _decode_packed(envelope: Envelope, element: bytes) -> CommandMessage:
    if has_more_tokens(element, TOKENS_MAX):
        why = f"something in its pack is wrong, and it has more than {TOKENS_MAX} texts and brackets: send it alone"
        defect = Defect(MALFORMED_COMMAND, why)
        return _named(envelope, element, defect, kept=element) or _unreadable(envelope, element, defect)
    text, taken_out = taken_apart(element, _WITHIN)
    if (name := repeated_name(text)) is not None:
        defect = Defect(MALFORMED_COMMAND, f"it has the member {name[:100]!a} twice")
        # Of two ids neither is the command's.
        named = None if name == _ID_NAME else _named(envelope, element, defect, kept=element)
        return named or _unreadable(envelope, element, defect)
    try:
        return _of_unchecked(envelope, _UNCHECKED.decode(element))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # If only its arguments are malformed, it is a command with malformed arguments.
        pass
    try:
        message = _of_unchecked(envelope, _UNCHECKED.decode(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        defect = Defect(MALFORMED_COMMAND, f"not the JSON object that a command of a pack is: {error}")
        return _named(envelope, element, defect, kept=element) or _unreadable(envelope, element, defect)
    return _cut(msgspec.structs.replace(message, arguments=taken_out.get(message.arguments, message.arguments)))


def _of_packed(envelope: Envelope, packed: PackedBase, defect: Defect | None = None) -> CommandMessage:
    """A command of a pack with checked options; `defect` is the fault of one of them."""
    command_id, command_type, arguments, origin, *values = astuple(packed)
    return _message(envelope, command_id, command_type, bytes(arguments), values, defect, origin)


def _of_unchecked(envelope: Envelope, packed: PackedBase) -> CommandMessage:
    values, defect = _checked(zip(HEADERS, astuple(packed)[len(PackedBase.__struct_fields__) :], strict=True))
    return _message(envelope, packed.id, packed.type, bytes(packed.args), values, defect, packed.origin)


def _checked(given: Iterable[tuple[str, object]]) -> tuple[list[Any], Defect | None]:
    """The readable options among some headers, in the order of their table; also the defect of one of them."""
    values: list[Any] = [None] * len(OPTIONS)
    defect: Defect | None = None
    for header, value in given:
        known = _PLACES.get(header)
        if known is not None and value is not None:
            place, check = known
            values[place] = checked = check(value)
            if checked is None:
                defect = _wrong_option(OPTIONS[place], value) or defect
    return values, defect


def _message(
    envelope: Envelope,
    command_id: object,
    command_type: object,
    arguments: bytes,
    values: list[Any],
    defect: Defect | None,
    origin: object,
) -> CommandMessage:
    """A command made from its parts. `defect` is the fault of its options.

    It hides any other fault: without its conditions the command is another one.
    """
    if defect is None and (values[_PUBLISHER] is None) != (values[_PUBLISHER_SEQ] is None):
        defect = Defect(INVALID_HEADER, f"{HEADERS[_PUBLISHER]} and {HEADERS[_PUBLISHER_SEQ]} belong together")
    clean_id: str | None = _check_id(command_id)
    if clean_id is None:
        defect = defect or _wrong_id(command_id)
    elif not envelope.is_system and is_system_id(clean_id):
        text = f"ids of UUID version 8 are the system's own: choose another version than that of {clean_id}"
        defect, clean_id = defect or Defect("reserved_command_id", text), None
    elif not envelope.is_system and is_nobodys_id(clean_id):
        defect, clean_id = defect or Defect("invalid_command_id", f"{clean_id} is {NOBODYS_WORDS}"), None
    clean_type: str | None = _check_type(command_type)
    if clean_type is None:
        text = f"a command needs a type, {TYPE.form.words}, as property type or header {TYPE.header}"
        defect = defect or Defect("missing_command_type", text)
    return CommandMessage(
        clean_id,
        clean_type,
        arguments,
        _origin(envelope, origin) if envelope.is_system else "public",
        defect,
        *values,
    )


def _wrong_id(command_id: object) -> Defect:
    if command_id is None:
        text = f"a command needs an id, {ID.form.words}, as message_id or header {ID.header}"
        return Defect("missing_command_id", text)
    return Defect("invalid_command_id", f"the command id must be {ID.form.words}: {_shown(command_id)}")


def _wrong_option(field: Field, value: object) -> Defect | None:
    if field.form.words is None:
        return None
    return Defect(INVALID_HEADER, f"{field.header} must be {field.form.words}: {_shown(value)}")


def _shown(value: object) -> str:
    """A value at fault, as an error names it; a nested value may be too deep to be written."""
    return f"{str(value)[:100]!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
