"""For whom the current task issues commands: whoever asks for what it does."""

from contextvars import ContextVar

import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.service.principal import Principal

_acting_for: ContextVar[Principal | None] = ContextVar("acting_for", default=None)


def act_for(actor: Principal | None) -> None:
    """The current task, and the tasks that it starts from here on, act for this principal; None: for nobody known."""
    _acting_for.set(actor)


def acting_for() -> Principal | None:
    """For whom the current task acts; None: for nobody known."""
    return _acting_for.get()


def with_actor(message: CommandMessage) -> CommandMessage:
    """A command that is about to be issued, with its actor: for whom the current task acts, unless it has one."""
    actor = _acting_for.get()
    return message if actor is None or message.actor is not None else msgspec.structs.replace(message, actor=actor)
