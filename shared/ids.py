"""Command ids."""

import os
import time
from typing import Final
from uuid import UUID, uuid5

_IDEMPOTENCY_NAMESPACE: Final = UUID("6f3a1d1e-6d0b-5f0e-9a43-0c5f0e7f2d11")


def new_command_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): ids made one after the other are near each other in an index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=value))


def command_id_for(lane: str, idempotency_key: str) -> str:
    """The id that an idempotency key stands for in one lane: the same key is the same command."""
    return str(uuid5(_IDEMPOTENCY_NAMESPACE, f"{lane}\n{idempotency_key}"))


def derived_command_id(parent_id: str, position: int) -> str:
    """The id of the command that `parent_id` emitted at `position` (0, 1, …), however often the parent is applied."""
    return str(uuid5(UUID(parent_id), str(position)))


def replay_command_id(command_id: str) -> str:
    """The id under which a failed command is replayed: the same however often. A replay that fails has its own."""
    return str(uuid5(UUID(command_id), "replay"))
