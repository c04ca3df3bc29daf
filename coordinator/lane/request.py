"""A command message made ready to be applied: parsed, checked, fingerprinted."""

from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.lane.control import CONTROL_TYPES
from coordinator.lane.delivery import Arrival, OldLetter
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints, arguments_again
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.service.commands import ClassFailed, Command, parse, repeated
from coordinator.service.continuation import is_continuation
from coordinator.service.descriptions import described
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import is_system_id
from coordinator.service.nesting import is_too_deep
from coordinator.service.repeated_names import colons_min, repeated_name
from coordinator.service.targets import ANYWHERE, Targets
from coordinator.service.unit_of_work import Handler
from coordinator.service.upgrades import UNKNOWN_VERSION, parse_sent

Handlers = Mapping[str, Handler[Any]]
UNKNOWN_TYPE: Final = "unknown_command_type"
READ_FIRST_BYTES_MAX: Final = 1024
"""Arguments above this are read by their class first, which stops at the first value that it does not take."""
_CANCELLED: Final = Defect(
    "cancelled", "an operator had cancelled it when it came, and its arguments were not read: replay it if it is wanted"
)
"""It only shows where the database has lost the cancellation since."""


class _PassedOver(Struct, gc=False):
    """Any JSON object. What is in it is passed over."""


_OBJECT: Final = msgspec.json.Decoder(_PassedOver)


class Request(Struct, frozen=True, kw_only=True):
    """One command of a batch. Either `command` and `handler` are there, or `defect` says why they cannot be.

    `parked_key`: it waited in the database for that key, and no delivery brings it. `parks_key`: if it fails, commands
    with its key wait. `is_newer`: a newer release may know it, since its type is not known here, or its arguments are
    of a version above those that are; never a stranger's, since anybody could have the lane wait. `letter`: it is the
    dead letter of an older release, and is only kept. `arrival` and `account` are those of its delivery.
    """

    message: CommandMessage
    redelivered: bool
    fingerprint: str
    command: Command | None = None
    handler: Handler[Any] | None = None
    defect: Defect | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    parked_key: str | None = None
    parks_key: bool = False
    is_newer: bool = False
    letter: OldLetter | None = None
    arrival: Arrival | None = None
    account: str | None = None

    @property
    def is_unread(self) -> bool:
        """Large, and refused: to bring such arguments into one form would cost as much as the sender likes.

        So its fingerprint is that of their bytes.
        """
        return self.command is None and len(self.message.arguments) > READ_FIRST_BYTES_MAX


def prepare(
    message: CommandMessage,
    handlers: Handlers,
    fingerprints: Fingerprints = UNKEYED,
    *,
    redelivered: bool,
    targets: Targets = ANYWHERE,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    parked_key: str | None = None,
    letter: OldLetter | None = None,
    cancelled: Container[str | None] = (),
    arrival: Arrival | None = None,
    account: str | None = None,
) -> Request:
    """Find the handler of a message and parse its arguments. Never raises.

    `targets` are the lanes that a continuation may name. The arguments of a command that is `cancelled` are
    not looked at: what an operator takes out of the way may be what never comes back from its upgrade or its class.
    """
    is_large = len(message.arguments) > READ_FIRST_BYTES_MAX
    again = None if is_large else arguments_again(message)
    defect = message.defect
    if message.continuation is not None:
        refusal = _refused_continuation(message, message.continuation, handlers, targets)
        if refusal is not None:
            # The continuation is not sent anywhere, not even with the outcome that refuses it.
            message, defect = msgspec.structs.replace(message, continuation=None), defect or refusal
    if defect is None and message.command_id in cancelled:
        defect = _CANCELLED
    handler = command = None
    is_newer = False
    if defect is None:
        handler = handlers.get(message.type or "")
        if handler is None or not _may_send(message, handler):
            defect = _refused_type(message, handler, handlers)
            # No release takes arguments that are no JSON object.
            is_object = _is_object(message.arguments) if is_large else again is not None and again.startswith(b"{")
            is_newer = handler is None and is_object and not message.is_strangers
    if handler is not None and defect is None:
        try:
            command, again = _parsed(handler, message, again)
        except ClassFailed as error:
            defect = Defect("handler_error", error.reason)
        except InvalidCommand as error:
            defect = Defect(error.code, str(error))
            is_newer = error.code == UNKNOWN_VERSION and _is_newer(handler, message) and not message.is_strangers
        except BaseException as error:  # noqa: BLE001  # of the command's own class
            defect = Defect("handler_error", described(error))
    # What was refused may repeat a name. Large arguments are not brought into one form for that.
    refused = message.arguments if is_large else None
    return Request(
        message=message,
        redelivered=redelivered,
        fingerprint=fingerprints.of(message, refused if command is None else again),
        command=command,
        handler=handler if defect is None else None,
        is_newer=is_newer,
        # Behind a key's first failure, order is kept among commands of all types.
        parks_key=parked_key is not None
        or (handler is not None and handler.on_failure == "park-key" and defect is None),
        defect=defect,
        reply_to=reply_to,
        correlation_id=correlation_id,
        parked_key=parked_key,
        letter=letter,
        arrival=arrival,
        account=account,
    )


def is_same(fingerprints: Fingerprints, kept: str, request: Request) -> bool:
    """Whether a fingerprint that the database keeps is that of this request's command."""
    if kept == request.fingerprint:
        return True
    return fingerprints.is_same(kept, request.message, request.fingerprint, is_unread=request.is_unread)


def _is_object(arguments: bytes) -> bool:
    """Whether they are JSON text of an object. Nothing is made of what is in it."""
    if is_too_deep(arguments):
        return False
    try:
        arguments.decode()
        _OBJECT.decode(arguments)
    except ValueError:
        return False
    return True


def _parsed(handler: Handler[Any], message: CommandMessage, again: bytes | None) -> tuple[Command, bytes | None]:
    """The command, and its arguments as we write them, if we could read them: `again`, where that was done before.

    Raises InvalidCommand.
    """
    model: type[Command] = handler.command
    arguments, version = message.arguments, message.command_version
    is_older = (version or 1) != model.command_version
    command = parse_sent(model, arguments, version, handler.upgrades) if is_older else parse(model, arguments)
    again = again or arguments_again(message)
    # Older arguments may have any number of names.
    if is_older or arguments.count(b":") != colons_min(model):
        name = repeated_name(arguments, again)
        if name is not None:
            raise repeated(name)
    return command, again


def _is_newer(handler: Handler[Any], message: CommandMessage) -> bool:
    command: type[Command] = handler.command
    return (message.command_version or 1) > command.command_version


def _refused_type(message: CommandMessage, handler: Handler[Any] | None, handlers: Handlers) -> Defect:
    if handler is None:
        own = sorted(name for name, each in handlers.items() if name not in CONTROL_TYPES and _may_send(message, each))
        text = f"this lane has no command type {message.type!r}; it has {', '.join(own) or 'none'}"
        return Defect(UNKNOWN_TYPE, text)
    if _may_issue(message, handler):
        text = f"{message.type} is what lanes make of outcomes: name it as the continuation of a command"
        return Defect("forbidden_command_type", text)
    return Defect(
        "forbidden_command_type",
        f"{message.type} is the system's own or an operator's, and is taken from the exchange writes.system only",
    )


def _refused_continuation(
    message: CommandMessage, continuation: str, handlers: Handlers, targets: Targets
) -> Defect | None:
    """A sender must have the right to issue the continuation that it names; other lanes check their own types."""
    lane = targets.of(continuation.partition(".")[0])
    if targets.known is not None and lane not in targets.known:
        # Effects are targets too, but they are not lanes: no command goes there.
        known = ", ".join(sorted(target for target in targets.known if "." not in target))
        return Defect("unknown_lane", f"continuation {continuation}: there is no lane {lane!r}; there are {known}")
    if not targets.has_answers_of(lane):
        return Defect("unknown_lane", f"continuation {continuation}: lane {lane!r} is not of this lane's tenant")
    handler = handlers.get(continuation)
    if handler is not None and not _may_issue(message, handler):
        return Defect(
            "forbidden_command_type", f"continuation {continuation}: it is the system's own, or an operator's"
        )
    return None


def _may_send(message: CommandMessage, handler: Handler[Any]) -> bool:
    """A continuation says what became of a command, which only lanes know: one that a lane has made has an id of the
    system's form, which no stranger's message has."""
    if not _may_issue(message, handler):
        return False
    is_made_by_a_lane = message.command_id is not None and is_system_id(message.command_id)
    return message.origin == "system" or is_made_by_a_lane or not is_continuation(handler.command)


def _may_issue(message: CommandMessage, handler: Handler[Any]) -> bool:
    return message.origin == "system" or not (handler.is_internal or handler.is_operators)
