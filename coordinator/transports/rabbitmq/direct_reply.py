"""RabbitMQ's direct reply-to, by which a client that may declare nothing is sent its outcomes.

The client consumes `amq.rabbitmq.reply-to`, which is no queue, and names it as `reply_to`; RabbitMQ puts an address in
its place: this prefix, the number of the client's channel process on its node, a key that nobody else knows.

Whoever publishes may write any address. RabbitMQ 3.10 decodes what comes after the prefix, and closes the connection
that publishes to it (INTERNAL_ERROR) where that is not the number of a process, names a node that is not there, or has
a number that no process of this node can have. So an address is taken only if it is like one of our own connection,
which its node has made: all the same but the process's number, in its range, and the key. What is left names a channel,
or nothing, and then the message is gone, at no cost.
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
"""What tells one run of a node from the next, behind the number."""
ID_MAX, SERIAL_MAX = (1 << 15) - 1, (1 << 13) - 1
"""The two parts of the number, of processes of Erlang's before 26. Wider ones crash the channel of RabbitMQ 3.10."""
FORGIVING: Final = (4, 1)
"""The RabbitMQ from which on an address that cannot be decoded is nobody's; its processes may have wider numbers."""


class DirectReplies:
    """The direct reply-to addresses of one node of RabbitMQ, known by one that it made for us."""

    def __init__(self, own: str | None, version: str) -> None:
        node = _process(own)
        self._head = node[: -_NUMBER.size - _CREATION_BYTES]
        self._creation = node[-_CREATION_BYTES:]
        self._size = len(node)
        self._is_wide = _release(version) >= FORGIVING

    def takes(self, name: str) -> bool:
        """Whether something may be published to this address, which anybody may have written."""
        process = _process(name)
        if not self._head or len(process) != self._size:
            return False
        if not (process.startswith(self._head) and process.endswith(self._creation)):
            return False
        number, serial = _NUMBER.unpack_from(process, len(self._head))
        return self._is_wide or (number <= ID_MAX and serial <= SERIAL_MAX)


def _process(name: str | None) -> bytes:
    """The process that an address names, as Erlang writes it; nothing: it is no address."""
    found = _ADDRESS.fullmatch(name or "")
    if found is None:
        return b""
    try:
        process = base64.b64decode(found.group(1), validate=True)
    except binascii.Error:
        return b""
    # Nothing that two decoders could read in two ways.
    return process if base64.b64encode(process).decode() == found.group(1) else b""


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found is not None else (0, 0)
