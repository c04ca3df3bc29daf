"""For whom the current task issues commands, whoever asks for what it does, and which these are."""

from contextvars import ContextVar

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import CommandMessage
from coordinator.service.outcome import Outcome
from coordinator.service.principal import Principal


class Issued(Struct):
    """One command of a request, and its outcome once it has arrived."""

    lane: str
    message: CommandMessage
    outcome: Outcome | None = None


class Acting:
    """For whom a request's task acts, None while nobody is known; and what it has issued, in the order of its calls.

    One value for both: each context variable that is set costs a request more than a call.
    """

    __slots__ = ("actor", "issued")

    def __init__(self) -> None:
        self.actor: Principal | None = None
        self.issued: list[Issued] = []


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


def begin_acting() -> Acting:
    """The current task, and the tasks that it starts, serve a request from here on."""
    acting = Acting()
    _acting.set(acting)
    return acting


def acting_for() -> Principal | None:
    """For whom the current task acts; None: for nobody known."""
    acting = _acting.get()
    return None if acting is None else acting.actor


def note_issued(lane: str, message: CommandMessage) -> Issued:
    """A command that is about to be issued, with its actor: for whom the current task acts, unless it has one."""
    acting = _acting.get()
    if acting is None:
        return Issued(lane, message)
    if acting.actor is not None and message.actor is None:
        message = msgspec.structs.replace(message, actor=acting.actor)
    issued = Issued(lane, message)
    acting.issued.append(issued)
    return issued
