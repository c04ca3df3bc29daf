"""Command ids."""

import hashlib
import time
from typing import Final

from shared.draws import Draws

_IDEMPOTENCY_NAMESPACE: Final = "6f3a1d1e-6d0b-5f0e-9a43-0c5f0e7f2d11"

_draws = Draws(10)


def new_command_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): ids made one after the other are near each other in an index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(_draws.next())
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return _text(value)


def command_id_for(lane: str, idempotency_key: str) -> str:
    """The id that an idempotency key stands for in one lane: the same key is the same command."""
    return _named(_IDEMPOTENCY_NAMESPACE, f"{lane}\n{idempotency_key}")


def derived_command_id(parent_id: str, position: int) -> str:
    """The id of the command that `parent_id` emitted at `position` (0, 1, …), however often the parent is applied."""
    return _named(parent_id, str(position))


def continuation_command_id(command_id: str) -> str:
    """The id of the command that the outcome of `command_id` becomes, however often it is told."""
    return _named(command_id, "continuation")


def replay_command_id(command_id: str) -> str:
    """The id under which a failed command is replayed: the same however often. A replay that fails has its own."""
    return _named(command_id, "replay")


def _named(namespace: str, name: str) -> str:
    """A UUID of version 5 (RFC 9562, section 5.5), in a third of the time that `uuid.uuid5` takes."""
    digest = hashlib.sha1(bytes.fromhex(namespace.replace("-", "")) + name.encode(), usedforsecurity=False).digest()
    value = int.from_bytes(digest[:16])
    value = value & ~(0xF << 76) | 5 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return _text(value)


def _text(value: int) -> str:
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
