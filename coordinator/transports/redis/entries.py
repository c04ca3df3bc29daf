"""The entries of streams: what a message is there, and what a delivery is made from. No reading of one ever raises.

An entry has two fields: `head`, which is JSON text and has what AMQP has as properties, and `body`. Other fields are
ignored. An entry that somebody has added by hand may have anything: then it is a message whose properties cannot be
read, which the lane keeps as a dead letter.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import HEADER_MALFORMED, JSON_CONTENT, PACK_CONTENT, CommandMessage, Envelope
from coordinator.transports.redis.scripts import ENTRY_BYTES

HEAD: Final = b"head"
BODY: Final = b"body"
HEAD_BYTES_MAX: Final = 128 << 10
"""A longer head is not read: what is made of it may take fifty times as much memory. It is a frame of AMQP, into which
all that stands in a head has to fit there."""
_SHOWN_BYTES: Final = 1000
_TIME_S_MAX: Final = 1 << 40


class Head(Struct, omit_defaults=True):
    """What travels with a body. `at`: when it was sent, in seconds since the Unix epoch; of an effect, when its lane
    emitted it. `by` names the process that sent it, for whoever looks."""

    id: Any = None
    type: Any = None
    content: Any = None
    headers: dict[str, Any] = {}
    reply_to: Any = None
    correlation: Any = None
    at: Any = None
    by: Any = None


class StreamEntry(Struct, frozen=True):
    """One entry as it was read, with so many bytes. `counted_bytes` is what the counter has counted it as; 0: it was
    added by hand."""

    id: bytes
    head: Head
    body: bytes
    counted_bytes: int
    is_system: bool
    size_bytes: int

    @property
    def number(self) -> int:
        """Its place in the order of both streams."""
        return number_of(self.id)

    @property
    def reply_to(self) -> str | None:
        """The channel to which its outcomes go."""
        return _text(self.head.reply_to)

    @property
    def correlation_id(self) -> str | None:
        """What names its message to whoever waits."""
        return _text(self.head.correlation)

    @property
    def sent_at_s(self) -> int | None:
        """When it was sent, as its sender says."""
        at = self.head.at
        return at if isinstance(at, int) and not isinstance(at, bool) and 0 < at < _TIME_S_MAX else None

    @property
    def envelope(self) -> Envelope:
        """As the protocol reads it.

        Redis names no account of whoever added an entry. Whoever may add one to a lane's public stream is a gateway:
        the right to that key is for gateways alone.
        """
        head = self.head
        return Envelope(
            message_id=head.id,
            type=head.type,
            content_type=head.content,
            headers=head.headers,
            is_system=self.is_system,
            is_gateway=not self.is_system,
        )


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Head)


def encoded_head(
    message: CommandMessage | None,
    headers: dict[str, Any],
    *,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    at: int | None = None,
    by: str | None = None,
) -> bytes:
    """The head of a command, an effect, or a pack of commands (None)."""
    return _encoder.encode(
        Head(
            id=None if message is None else message.command_id,
            type=None if message is None else message.type,
            content=PACK_CONTENT if message is None else JSON_CONTENT,
            headers=headers,
            reply_to=reply_to,
            correlation=correlation_id,
            at=at,
            by=by,
        )
    )


def entry_of(raw: Sequence[Any], *, is_system: bool) -> StreamEntry:
    """An entry as the driver gives it: its id, and its fields and values in turn."""
    entry_id, fields = raw[0], raw[1] or ()
    values = dict(zip(fields[::2], fields[1::2], strict=False))
    head, body = values.get(HEAD), values.get(BODY, b"")
    counted = len(head) + len(body) + ENTRY_BYTES if head is not None and BODY in values else 0
    return StreamEntry(bytes(entry_id), _head_of(head, fields), body, counted, is_system, sum(map(len, fields)))


def _head_of(head: bytes | None, fields: Sequence[bytes]) -> Head:
    if head is not None and len(head) > HEAD_BYTES_MAX:
        text = f"the head has {len(head)} bytes; at most {HEAD_BYTES_MAX} are read"
        return Head(headers={HEADER_MALFORMED: text})
    try:
        return _decoder.decode(head if head is not None else b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        shown = head if head is not None else b" ".join(fields)
        return Head(headers={HEADER_MALFORMED: shown[:_SHOWN_BYTES].hex()})


def number_of(entry_id: bytes) -> int:
    """The number that an id begins with."""
    return int(entry_id.partition(b"-")[0])


def place_of(entry_id: bytes) -> tuple[int, int]:
    """An id, as ids are ordered."""
    number, _, part = entry_id.partition(b"-")
    return int(number), int(part or b"0")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
