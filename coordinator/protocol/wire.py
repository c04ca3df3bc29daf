"""The messages of the wire protocol: a command message, its parts, and its encoding. docs/PROTOCOL.md describes them.

Nothing here knows an AMQP library: properties are a plain `Envelope`.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.protocol.actors import HEADER_ACTOR, encoded_actors
from coordinator.protocol.fields import OPTIONS, ORIGIN, with_fields
from coordinator.protocol.senders import HEADER_SENDER, actor_of, says_stranger, sender_words
from coordinator.protocol.tracestates import HEADER_TRACESTATE, encoded_tracestates
from coordinator.service.options import Options, Origin
from coordinator.service.principal import Principal

JSON_CONTENT: Final = "application/json"
PACK_CONTENT: Final = "application/vnd.write-coordinator.pack+json"

HEADER_REPLY_PACKS: Final = "reply-packs"
HEADER_REPLAYED: Final = "replayed"
HEADER_TRACEPARENT: Final = "traceparent"
HEADER_RESULT_OF: Final = "result-of"
"""Of a message through `writes.system`: the effect of which its command is the result, as `TYPE ID`; of an effect the
command that emitted it."""
HEADER_MALFORMED: Final = "x-malformed-properties"
"""The only header of a message whose properties could not be decoded: its value is the properties in hexadecimal."""

INVALID_HEADER: Final = "invalid_header"
"""The code of a command with a header, or a pack's member, that has no meaning: without it the command is another."""
BODY_BYTES_MAX: Final = 1 << 20
PACK_COMMANDS_MAX: Final = 1000


def is_yes(value: object) -> bool:
    """Whether a header says yes. A decimal may be none that can be compared."""
    return isinstance(value, int | str) and value in (True, "true")


class Envelope(Struct, frozen=True, kw_only=True):
    """The AMQP properties of a message that the protocol uses. `is_system`: it came through `writes.system`.

    `user_id` is the broker's user who published it, as the broker has verified; None: the message does not say.
    `is_gateway`: that user is a gateway, and believed when it says who asks. `scopes` are what the lane's settings give
    any other user. `is_strangers`: the lane knows its gateways, and it comes from none of them.
    `account_scopes` are those of each account that the settings name, for a gateway that asks for one; None: this
    broker has no accounts.
    """

    message_id: str | None = None
    type: str | None = None
    content_type: str | None = None
    headers: Mapping[str, Any] = {}
    is_system: bool = False
    user_id: str | None = None
    is_gateway: bool = False
    is_strangers: bool = False
    scopes: frozenset[str] = frozenset()
    account_scopes: Mapping[str, frozenset[str]] | None = None


class Defect(Struct, frozen=True):
    """Why a message cannot be taken as a command."""

    code: str
    message: str


class CommandMessage(Struct, frozen=True):
    """One command as it travels. `arguments` is JSON text; its content is not checked here.

    `continuation` is the type of the command that its outcome is to become (coordinator/service/continuation.py).
    `command_version` is the version of its type that its arguments have; None stands for the first.
    `origin` is the side that it comes from, by the exchange; it stays with the command wherever that goes.
    `actor` is who asks for it, as whoever found that out has said; None: nobody knows. It stays with the command, too.
    `tracestate` goes with its `traceparent`, as a header alone.
    `result_of` is what it comes of, as `TYPE ID`: of a result its effect, of an effect the command that emitted it;
    None: nobody has said so, or it is neither.

    `is_strangers`: no gateway has sent it that the lane knows, nor the system. That stays with it, too (`senders.py`).

    With a `defect` the other fields are the parts that could be read.
    """

    command_id: str | None
    type: str | None
    arguments: bytes
    origin: Origin = "public"
    defect: Defect | None = None
    deadline_ms: int | None = None
    expected_version: int | None = None
    publisher: str | None = None
    publisher_seq: int | None = None
    traceparent: str | None = None
    continuation: str | None = None
    command_version: int | None = None
    size_bytes: int | None = None
    """The size of the arguments as they came, if only their beginning is kept."""
    actor: Principal | None = None
    is_strangers: bool = False
    tracestate: str | None = None
    result_of: str | None = None


NO_ARGUMENTS = msgspec.Raw(b"")


class PackedBase(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A command in a pack without its options. It takes any values; they are checked later."""

    id: Any = None
    type: Any = None
    args: msgspec.Raw = NO_ARGUMENTS
    origin: Any = None


Packed = with_fields("Packed", PackedBase, OPTIONS, is_checked=True)
"""A command in a pack."""
values_of: Final[Callable[[CommandMessage], tuple[Any, ...]]] = attrgetter(*(field.attribute for field in OPTIONS))
"""The options of a command, in the order of their table; None for an option that it does not have."""
HEADERS: Final = tuple(field.header for field in OPTIONS)
_HEADER_OF: Final = tuple((field.attribute, field.header) for field in OPTIONS)
_KEPT: Final = tuple(name for name in Options.__struct_fields__ if name in CommandMessage.__struct_fields__)


def options_of(message: CommandMessage) -> Options:
    """The options of a message that a row of the lane keeps. Its publisher session has gone on by then."""
    kept = {name: getattr(message, name) for name in _KEPT}
    return Options(**kept, sender=sender_of(message))


def with_options(message: CommandMessage, options: Options) -> CommandMessage:
    """A message with the options that a row kept."""
    message = msgspec.structs.replace(message, **{name: getattr(options, name) for name in _KEPT})
    # What has become the system's own is no stranger's any more.
    return with_sender(message, options.sender if options.origin == "public" else None)


def sender_of(message: CommandMessage) -> str | None:
    """What is to be remembered of who has sent it, in words; None: nothing."""
    return sender_words(message.actor, is_strangers=message.is_strangers)


def with_sender(message: CommandMessage, sender: str | None) -> CommandMessage:
    """A message as whoever wrote these words has known its sender."""
    if sender is None:
        return message
    return msgspec.structs.replace(message, actor=actor_of(message.actor, sender), is_strangers=says_stranger(sender))


def headers_of(message: CommandMessage, *, is_lowered: bool = False) -> dict[str, Any]:
    """The headers with which a single command is published.

    `is_lowered`: through `writes.system`, though it is a stranger's.
    """
    headers: dict[str, Any] = {}
    for attribute, header in _HEADER_OF:
        value = getattr(message, attribute)
        if value is not None:
            headers[header] = value
    if is_lowered:
        headers[ORIGIN.header] = message.origin
        if (sender := sender_of(message)) is not None:
            headers[HEADER_SENDER] = sender
    if message.tracestate is not None:
        headers[HEADER_TRACESTATE] = message.tracestate
    if message.result_of is not None:
        headers[HEADER_RESULT_OF] = message.result_of
    if message.actor is not None:
        headers[HEADER_ACTOR] = message.actor.as_json
    return headers


def headers_of_pack(messages: Sequence[CommandMessage]) -> dict[str, Any]:
    """The headers with which a pack is published: what its commands have that is no member of it."""
    actors = encoded_actors([message.actor for message in messages])
    return actors | encoded_tracestates([message.tracestate for message in messages])


def encode_pack(messages: list[CommandMessage], *, with_origin: bool = False) -> bytes:
    """The body of a pack. The exchange gives the origin of its commands, or each of them carries it."""
    return msgspec.json.encode(
        [
            Packed(
                message.command_id,
                message.type,
                msgspec.Raw(message.arguments),
                "public" if with_origin and message.origin == "public" else None,
                *values_of(message),
            )
            for message in messages
        ]
    )
