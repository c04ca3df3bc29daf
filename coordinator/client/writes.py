"""The port through which services issue commands, and how an outcome becomes a value or an error.

Two adapters implement it (coordinator/writing.py): `RabbitWrites` where there is a broker, and `InProcessWrites` in a
monolith and in tests. `BlockingWrites` (blocking.py) is for programs without an event loop.
"""

from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Struct

from coordinator.client.acting import acting_for
from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command, check_is_command, check_storable, encoded, validated, version_sent
from coordinator.service.descriptions import described
from coordinator.service.errors import CommandFailed, CommandRejected, OutcomeUnreadable
from coordinator.service.ids import command_id_for, new_command_id
from coordinator.service.lane_names import lane_of
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome
from coordinator.service.principal import Principal


class Writes(Protocol):
    """Hands a command to its lane and waits for the outcome."""

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        """Return the outcome of `message`.

        `wait_s` bounds the wait for it (None: the adapter's own limit; 0: return as soon as the command is safe).
        Raises CommandPending when the command is safe but not settled yet, Unavailable when it was not accepted, and
        OutcomeUnknown (an Unavailable) when it may have been accepted: issued again with the same id it is applied once
        at most. Raises InvalidCommand for an id that is not a UUID, or has the system's own form in a stranger's
        command, and for a type or an option that no message can have (coordinator/protocol/issuing.py).
        """


class SentArguments(Struct, frozen=True):
    """Arguments as a client sent them, as JSON text, and the version that it said they have; None: the first."""

    arguments: bytes
    version: int | None


class WriteOptions(Struct, frozen=True, kw_only=True):
    """How one command is issued.

    `idempotency_key` (or `command_id`, a UUID) makes repeating safe across processes: the same key with the same
    content returns the first outcome. `expected_version` applies the command only to that version of its target.
    After `deadline` it is not applied. `wait_s` as in `Writes.issue`. `parsed` is a command that `parse` has made: if
    that is the one that is issued, it is not checked again; and with `sent` these are its arguments, from which it was
    made, so that the same request is the same command for a gateway of any release. `actor` is who asks for it, where
    no gateway of ours has found that out: an application that checks credentials itself says it here. `traceparent` and
    `tracestate` are the trace that the command belongs to (W3C Trace Context); malformed ones have no weight. `tenant`
    is the one in whose lane it is applied, where each tenant of its service has one; a key is that lane's, too.
    """

    idempotency_key: str | None = None
    command_id: str | None = None
    expected_version: int | None = None
    deadline: datetime | None = None
    wait_s: float | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    parsed: Command | None = None
    sent: SentArguments | None = None
    actor: Principal | None = None
    tenant: str | None = None


T = TypeVar("T")

DEFAULT_OPTIONS = WriteOptions()


class Written(Struct, Generic[T], frozen=True):
    """An applied command's result, and its place in its lane's order.

    `shown` is what a gateway may answer with, where that is not all of `value`.
    """

    value: T
    command_id: str
    sequence: int
    replayed: bool
    shown: Any = UNSET


async def execute(
    writes: Writes, command: Command, result: type[T], options: WriteOptions, *, origin: Origin = "public"
) -> Written[T]:
    """Issue a command and return its result as `result`. Commands of the system itself have the origin `system`.

    Raises InvalidCommand, CommandRejected, CommandFailed, CommandPending, Unavailable. Raises TypeError for what is no
    command.
    """
    message = message_of(command, options, origin)
    outcome = await writes.issue(lane_of(command.lane(), options.tenant), message, options.wait_s)
    return value_of(outcome, message.command_id or "", result)


def message_of(command: Command, options: WriteOptions, origin: Origin) -> CommandMessage:
    """The message by which a command is issued. Raises InvalidCommand, and TypeError for what is no command."""
    check_is_command(command)
    version = version_sent(command)
    if command is not options.parsed:
        arguments = validated(command)[1]
        if origin == "public":
            check_storable(command, arguments)
    elif options.sent is None:
        arguments = encoded(command)
    else:
        arguments, version = options.sent.arguments, options.sent.version
    if options.command_id is not None:
        # The transport spells it so, too.
        command_id = options.command_id.lower()
    elif options.idempotency_key is not None:
        command_id = command_id_for(lane_of(command.lane(), options.tenant), options.idempotency_key)
    else:
        command_id = new_command_id()
    return CommandMessage(
        command_id=command_id,
        type=command.type,
        arguments=arguments,
        deadline_ms=None if options.deadline is None else int(options.deadline.timestamp() * 1000),
        expected_version=options.expected_version,
        command_version=version,
        traceparent=options.traceparent,
        tracestate=options.tracestate,
        origin=origin,
        # Here, where the message is made: to make another one of it later takes longer.
        actor=acting_for() if options.actor is None else options.actor,
    )


def value_of(outcome: Outcome, command_id: str, result: type[T]) -> Written[T]:
    """The result of an applied command. Raises CommandRejected and CommandFailed for the other outcomes.

    Raises OutcomeUnreadable for a result that is not a `result`: the command is applied, so the caller is not at fault.
    """
    if outcome.status == "applied":
        try:
            value = msgspec.json.decode(outcome.result, type=result)
        except BaseException as error:  # noqa: BLE001  # also of the result's own class
            raise OutcomeUnreadable(command_id, described(error)) from None
        return Written(value, command_id, outcome.sequence or 0, outcome.replayed)
    reason = outcome.error
    code, text = (reason.code, reason.message) if reason is not None else (outcome.status, outcome.status)
    if outcome.status == "rejected":
        raise CommandRejected(command_id, code, text, replayed=outcome.replayed, sequence=outcome.sequence)
    raise CommandFailed(command_id, code, text, replayed=outcome.replayed, sequence=outcome.sequence)
