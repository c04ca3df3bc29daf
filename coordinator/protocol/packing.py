"""How much a pack may hold: the limits of one message, and how many bytes a command takes of them."""

import msgspec

from coordinator.protocol.actors import HeaderRoom
from coordinator.protocol.wire import CommandMessage, sender_of, values_of

PACK_COMMANDS_MAX = 500
PACK_BYTES_MAX = 120 << 10
"""The most bytes of one pack's message: a queue's prefetch counts messages, whatever their size."""
ENVELOPE_BYTES_MAX = 4096
"""The most bytes that a command's message adds to the client's: defaults, and other ways to write a value."""

_Raw = msgspec.json.Decoder(msgspec.Raw)
_FRAME_BYTES = 70
"""The bytes of `{"id":"","type":"","args":},` and an id."""
_OPTION_BYTES = 40
"""The bytes of an option: its name, and a number of at most 2^53, or the quotation marks of a text."""


def packed_bytes(message: CommandMessage) -> int:
    """An upper bound of a command's bytes in a pack: JSON writes a character of a text with at most six."""
    size_bytes = len(message.arguments) + 6 * len(message.type or "") + _FRAME_BYTES
    for value in values_of(message):
        if value is not None:
            size_bytes += _OPTION_BYTES + (6 * len(value) if isinstance(value, str) else 0)
    return size_bytes


class PackRoom:
    """The room in one pack, as its commands are added: of the first one there always is enough."""

    __slots__ = ("_actors", "_commands", "_commands_max", "_size_bytes")

    def __init__(self, commands_max: int = PACK_COMMANDS_MAX) -> None:
        self._actors, self._commands_max = HeaderRoom(), commands_max
        self._commands = self._size_bytes = 0

    def take(self, message: CommandMessage) -> bool:
        """Take the room of one more command; False: there is none beside the others."""
        size_bytes = self._size_bytes + packed_bytes(message)
        if self._commands and (self._commands >= self._commands_max or size_bytes > PACK_BYTES_MAX):
            return False
        if not self._actors.take(message.actor):
            return False
        self._commands, self._size_bytes = self._commands + 1, size_bytes
        return True


def is_packable(message: CommandMessage) -> bool:
    """Whether a pack has all that a command is: no member of one says whose result it is, or what is remembered of its
    sender; and what is not JSON would make the whole pack unreadable."""
    return message.result_of is None and sender_of(message) is None and is_json_text(message.arguments)


def is_json_text(arguments: bytes) -> bool:
    try:
        _Raw.decode(arguments)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
