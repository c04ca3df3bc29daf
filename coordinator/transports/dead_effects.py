"""Effects that workers cannot read: their lane makes dead letters of them."""

import secrets

import structlog
from msgspec import UNSET
from prometheus_client import Counter

from coordinator.lane.control import EFFECT_TEXT_CHARACTERS_MAX, DeadEffect
from coordinator.lane.dead_letters import REASON_CHARACTERS_MAX, TRACEBACK_CHARACTERS_MAX
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.service.ids import system_command_id
from coordinator.service.text import storable, storable_end

DEAD = Counter(
    "coordinator_effects_dead_total", "Messages that are no effect, or met a defect; their lane has them.", ["service"]
)

log = structlog.get_logger("effects")


def dead_effect(message: CommandMessage, defect: Defect, traceback: str | None = None) -> DeadEffect:
    """The command to the lane for an unreadable effect, with as much of its text as fits."""
    body = message.arguments.decode("utf-8", "backslashreplace")[:EFFECT_TEXT_CHARACTERS_MAX]
    return DeadEffect(
        command_id=message.command_id,
        effect_type=message.type,
        body=body,
        size_bytes=None if body.encode() == message.arguments else len(message.arguments),
        code=defect.code,
        reason=storable(defect.message, REASON_CHARACTERS_MAX),
        traceback=None if traceback is None else storable_end(traceback, TRACEBACK_CHARACTERS_MAX),
        origin=message.origin,
        effect_version=UNSET if message.command_version is None else message.command_version,
    )


def dead_effect_id(service: str, dead: DeadEffect, copy: str) -> str:
    """The id of that command. `copy` tells the deliveries of one copy from those of a replay.

    Without an id of its own only its content tells one message from another, and by an id of that whoever sees it could
    prove a guess at it. So there it is new each time: what is delivered again counts as one more copy of its letter.
    """
    name = dead.command_id or secrets.token_hex(16)
    # A stranger may write any id, and any headers by which a copy is known.
    parts = (name, "dead", copy) if dead.origin == "system" else (name, dead.origin, "dead", copy)
    return system_command_id(service, *parts)


def log_dead(dead: DeadEffect) -> None:
    """A line for an operator, who finds it among the dead letters."""
    log.error(
        "effect_dead",
        command_id=dead.command_id,
        type=dead.effect_type,
        code=dead.code,
        personal={"reason": dead.reason},
    )
