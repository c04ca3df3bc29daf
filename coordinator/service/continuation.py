"""Continuations: commands that the outcomes of other commands become.

A command may name a *continuation*, a command type. When its lane settles it, whatever the outcome, it puts a command
of that type into its outbox, in the same transaction. So a flow across several databases goes on, and cannot stop
half-way or be lost. The new command's id is derived from that of the settled one, so it is applied once. A continuation
has the rights of the sender that named it: a stranger's continuation has a stranger's origin, may not be of an
internal type, and keeps what the lane knew of him.

A handler whose result comes later, such as an order that waits for a carrier, defers: `UnitOfWork.defer` takes the
continuation from the lane, the handler keeps it in a row, and a later handler resumes it (`UnitOfWork.resume`).
"""

from datetime import timedelta
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.ids import continuation_command_id, limit_command_id
from coordinator.service.options import NO_OPTIONS, Options, Origin
from coordinator.service.outcome import NO_RESULT, OutcomeError, Status
from coordinator.service.principal import Principal

NO_ANSWER: Final = "no_answer"
"""The code of a continuation that comes since the time for an answer is over."""


class Continuation(Command):
    """The base of commands that outcomes become. `result` is the handler's result as JSON text, or null."""

    command_id: str
    command_type: str
    status: Status
    result: msgspec.Raw = NO_RESULT
    error: OutcomeError | None = None

    @property
    def is_unanswered(self) -> bool:
        """Whether it is no outcome: the time for one is over (`limit`), and nobody knows what became of the command.

        Its outcome may come later, as another continuation.
        """
        # A handler that refuses with this code makes the status `rejected`.
        return self.status == "expired" and self.error is not None and self.error.code == NO_ANSWER


def is_continuation(command: object) -> bool:
    """Whether this is the class of one. What is declared wrongly is not known to be a class."""
    return isinstance(command, type) and issubclass(command, Continuation)


class Emission(Struct, frozen=True, kw_only=True):
    """A command on its way out of a lane. `lane` is its target, a lane or a service's effects."""

    lane: str
    command_id: str
    type: str
    arguments: bytes
    continuation: str | None = None
    options: Options = NO_OPTIONS


class Deferred(Struct, frozen=True, kw_only=True):
    """A command whose continuation has been put off. `encode` makes a text of at most 256 characters for a row.

    The text leaves `actor` and the trace out: who resumes the command acts for somebody, and in a trace, himself. It
    leaves out `sender`, too: words of what the lane knew of who sent the command (coordinator/protocol/senders.py).
    """

    command_id: str
    type: str
    continuation: str
    origin: Origin = "system"
    actor: Principal | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    sender: str | None = None

    def encode(self) -> str:
        """As text."""
        text = f"{self.command_id} {self.type} {self.continuation}"
        return text if self.origin == "system" else f"{text} {self.origin}"

    @classmethod
    def decode(cls, text: str) -> "Deferred":
        """The inverse of `encode`. Raises ValueError for another text."""
        match text.split(" ") if isinstance(text, str) else []:
            case [command_id, command_type, continuation, *rest] if len(rest) <= 1:
                pass
            case _:
                raise ValueError(f"a Deferred is decoded from the text that its encode() made, not from {text!r:.100}")
        origin: Origin = "public" if "public" in rest else "system"
        return cls(command_id=command_id, type=command_type, continuation=continuation, origin=origin)


def continued(
    deferred: Deferred,
    status: Status,
    result: bytes | None,
    error: OutcomeError | None,
) -> Emission:
    """The command that an outcome becomes; `result` is JSON text."""
    outcome = {
        "command_id": deferred.command_id,
        "command_type": deferred.type,
        "status": status,
        "result": NO_RESULT if result is None else msgspec.Raw(result),
        "error": error,
    }
    return Emission(
        lane=deferred.continuation.partition(".")[0],
        # The id includes the type: commands of two lanes may have the same id, and name the same continuation.
        command_id=continuation_command_id(f"{deferred.type} {deferred.command_id}"),
        type=deferred.continuation,
        arguments=msgspec.json.encode(outcome),
        options=NO_OPTIONS
        if deferred.origin == "system" and deferred.actor is None and deferred.traceparent is None
        else Options(
            origin=deferred.origin,
            actor=deferred.actor,
            traceparent=deferred.traceparent,
            tracestate=deferred.tracestate,
            sender=deferred.sender,
        ),
    )


def unanswered(deferred: Deferred, limit: timedelta) -> Emission:
    """The continuation of a command whose outcome has not come in time."""
    error = OutcomeError(code=NO_ANSWER, message=f"there was no answer within {limit}")
    emission = continued(deferred, "expired", None, error)
    return msgspec.structs.replace(emission, command_id=limit_command_id(deferred.command_id))
