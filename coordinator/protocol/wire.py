"""The wire protocol: command messages and outcome messages as bytes and AMQP properties. docs/PROTOCOL.md describes it.

Nothing here knows an AMQP library: properties are a plain `Envelope`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.service.nesting import is_too_deep
from coordinator.service.options import Origin

JSON_CONTENT: Final = "application/json"
PACK_CONTENT: Final = "application/vnd.write-coordinator.pack+json"

HEADER_COMMAND_ID: Final = "command-id"
HEADER_COMMAND_TYPE: Final = "command-type"
HEADER_DEADLINE: Final = "deadline"
HEADER_EXPECTED_VERSION: Final = "expected-version"
HEADER_PUBLISHER: Final = "publisher"
HEADER_PUBLISHER_SEQ: Final = "publisher-seq"
HEADER_TRACEPARENT: Final = "traceparent"
HEADER_CONTINUATION: Final = "continuation"
HEADER_REPLY_PACKS: Final = "reply-packs"
HEADER_ORIGIN: Final = "origin"
HEADER_REPLAYED: Final = "replayed"
HEADER_MALFORMED: Final = "x-malformed-properties"
"""The only header of a message whose properties could not be decoded: they themselves, as hexadecimal digits."""

TYPE_CHARACTERS_MAX: Final = 100
BODY_BYTES_MAX: Final = 1 << 20
PACK_COMMANDS_MAX: Final = 1000
LANE_CHARACTERS_MAX: Final = 64


class Envelope(Struct, frozen=True, kw_only=True):
    """The AMQP properties of a message that the protocol uses. `is_system`: it came through `writes.system`."""

    message_id: str | None = None
    type: str | None = None
    content_type: str | None = None
    headers: Mapping[str, Any] = {}
    is_system: bool = False


class Problem(Struct, frozen=True):
    """Why a message cannot be taken as a command."""

    code: str
    message: str


class CommandMessage(Struct, frozen=True, kw_only=True):
    """One command as it travels. `arguments` is JSON text; its content is not checked here.

    `continuation` is the type of the command that its outcome is to become (coordinator/service/continuation.py).
    `origin` is who says it, by the way on which it came; it stays with the command wherever that goes.

    With a `problem` the rest is what could be read of it.
    """

    command_id: str | None
    type: str | None
    arguments: bytes
    deadline_ms: int | None = None
    expected_version: int | None = None
    publisher: str | None = None
    publisher_seq: int | None = None
    traceparent: str | None = None
    continuation: str | None = None
    origin: Origin = "public"
    problem: Problem | None = None
    size_bytes: int | None = None
    """Of the arguments as they came, where only their beginning is kept."""


NO_ARGUMENTS = msgspec.Raw(b"")


class Packed(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A command in a pack."""

    id: Any = None
    type: Any = None
    args: msgspec.Raw = NO_ARGUMENTS
    deadline: Any = None
    expected_version: Any = None
    publisher: Any = None
    publisher_seq: Any = None
    traceparent: Any = None
    continuation: Any = None
    origin: Any = None


def fingerprint_of(message: CommandMessage) -> str:
    """What must be the same for a repeated id to mean the same command: type, arguments and expected version.

    Spacing and the order of keys in the JSON text do not matter.
    """
    content = message.arguments
    # What is nested too deep is refused, and must not be read differently wherever the stack is nearer to its end.
    if message.problem is None and not is_too_deep(content):
        try:
            content = msgspec.json.encode(msgspec.json.decode(content), order="deterministic")
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            content = message.arguments
    digest = hashlib.blake2b(f"{message.type}\n{message.expected_version}\n".encode(), digest_size=16)
    digest.update(content)
    return digest.hexdigest()


def headers_of(message: CommandMessage, *, is_lowered: bool = False) -> dict[str, str | int]:
    """The headers with which a single command is published.

    `is_lowered`: through `writes.system`, though it is a stranger's.
    """
    pairs = (
        (HEADER_DEADLINE, message.deadline_ms),
        (HEADER_EXPECTED_VERSION, message.expected_version),
        (HEADER_PUBLISHER, message.publisher),
        (HEADER_PUBLISHER_SEQ, message.publisher_seq),
        (HEADER_TRACEPARENT, message.traceparent),
        (HEADER_CONTINUATION, message.continuation),
        (HEADER_ORIGIN, message.origin if is_lowered else None),
    )
    return {name: value for name, value in pairs if value is not None}


def encode_pack(messages: list[CommandMessage], *, with_origin: bool = False) -> bytes:
    """The body of a pack. The origin of its commands is the way on which it travels, or stands with each of them."""
    return msgspec.json.encode(
        [
            Packed(
                id=message.command_id,
                type=message.type,
                args=msgspec.Raw(message.arguments),
                deadline=message.deadline_ms,
                expected_version=message.expected_version,
                publisher=message.publisher,
                publisher_seq=message.publisher_seq,
                traceparent=message.traceparent,
                continuation=message.continuation,
                origin="public" if with_origin and message.origin == "public" else None,
            )
            for message in messages
        ]
    )
