"""How much a pack may hold: the limits of one message, and how many bytes a command takes of them."""

from coordinator.protocol.wire import CommandMessage, values_of

PACK_COMMANDS_MAX = 500
PACK_BYTES_MAX = 120 << 10
"""The most bytes of one pack's message: a queue's prefetch counts messages, whatever their size."""
ENVELOPE_BYTES_MAX = 4096
"""The most bytes that a command's message adds to the client's: defaults, and other ways to write a value."""

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
