"""RabbitMQ's direct reply-to, by which outcomes reach a client that has no right to declare a queue.

The client consumes `amq.rabbitmq.reply-to`, which is not a queue, and names it as `reply_to`. RabbitMQ replaces it by
an address: this prefix, the number of the client's channel process on its node, and a key that only the client knows.

Any publisher may write any address. RabbitMQ 3.10 decodes the part after the prefix. If that is not the number of a
process, names a node that is not there, or has a number that no process of this node can have, RabbitMQ closes the
connection that publishes to it (INTERNAL_ERROR). So we take an address only if it is like one that the node has made
for our own connection: the same except for the process's number, within its range, and the key. Such an address names a
channel, or nothing at all, and then the message is dropped at no cost.
"""

import base64
import binascii
import re
import struct
from typing import Final

DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"
DIRECT_REPLY_PREFIX: Final = f"{DIRECT_REPLY}."
_ADDRESS = re.compile(r"amq\.rabbitmq\.reply-to\.([A-Za-z0-9+/]{8,160}={0,2})\.[A-Za-z0-9+/]{22}==")
_NUMBER = struct.Struct(">II")
_CREATION_BYTES = 4
"""The part behind the number, which tells one run of a node from the next."""
ID_MAX, SERIAL_MAX = (1 << 15) - 1, (1 << 13) - 1
"""The two parts of a process's number in Erlang before 26. Wider ones crash the channel of RabbitMQ 3.10."""
FORGIVING: Final = (4, 1)
"""From this RabbitMQ on, an address that cannot be decoded does no harm; processes may have wider numbers."""


class DirectReplies:
    """The direct reply-to addresses of one node of RabbitMQ, known by one that it made for us."""

    def __init__(self, own: str | None, version: str) -> None:
        node = _process(own)
        self._head = node[: -_NUMBER.size - _CREATION_BYTES]
        self._creation = node[-_CREATION_BYTES:]
        self._size = len(node)
        self._is_wide = _release(version) >= FORGIVING

    def takes(self, name: str) -> bool:
        """Whether it is safe to publish to this address, which anybody may have written."""
        process = _process(name)
        if not self._head or len(process) != self._size:
            return False
        if not (process.startswith(self._head) and process.endswith(self._creation)):
            return False
        number, serial = _NUMBER.unpack_from(process, len(self._head))
        return self._is_wide or (number <= ID_MAX and serial <= SERIAL_MAX)


def _process(name: str | None) -> bytes:
    """The process that an address names, as Erlang writes it; empty if it is not an address."""
    found = _ADDRESS.fullmatch(name or "")
    if found is None:
        return b""
    try:
        process = base64.b64decode(found.group(1), validate=True)
    except binascii.Error:
        return b""
    # Refuse text that two decoders could read in two ways.
    return process if base64.b64encode(process).decode() == found.group(1) else b""


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found is not None else (0, 0)
