"""What an operator says came of a command, checked before it is sent.

A continuation has one id, and whatever is sent first has taken it: a wrong answer would keep out the right one. So an
answer is what the lane itself could have sent, and no other may be on its way.
"""

import msgspec

from coordinator.lane.trying import CODE_CHARACTERS_MAX, is_code
from coordinator.operate.output import CommandRefused, Misused
from coordinator.protocol.wire import BODY_BYTES_MAX, CommandMessage
from coordinator.service.commands import parse
from coordinator.service.continuation import Continuation, Deferred
from coordinator.service.errors import InvalidCommand
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.options import Origin
from coordinator.service.outcome import NO_RESULT, Outcome, OutcomeError
from coordinator.service.repeated_names import repeated_name
from coordinator.service.rows import shown_key
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import from_log, is_forgotten

_PAGE_ENTRIES = 1000
_ORIGINS: tuple[Origin, ...] = ("system", "public")


def check_said(result: str | None, rejected: str | None) -> None:
    """Raises Misused for what is no answer of any command."""
    if rejected is not None and not is_code(rejected):
        raise Misused(
            f"--rejected {rejected[:CODE_CHARACTERS_MAX]!a} is no code: it has 1 to {CODE_CHARACTERS_MAX} visible "
            "characters of ASCII and no spaces, such as card_declined"
        )
    if result is None:
        return
    text = result.encode(errors="surrogateescape")
    if is_too_deep(text):
        raise Misused(f"--result is nested deeper than {NESTING_MAX} levels")
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misused(f"--result is no JSON: {error}") from None
    if (name := repeated_name(text)) is not None:
        raise Misused(f"--result: an object has the name {name[:100]!a} twice: readers differ in the value that counts")


def outcome_of(entry: LogEntry, result: str | None, rejected: str | None) -> Outcome:
    """What came of a command: as the log has it, or as an operator says."""
    logged = from_log(entry, replayed=False)
    if rejected is not None:
        error = OutcomeError(code=rejected, message="as an operator says")
        return msgspec.structs.replace(logged, status="rejected", result=NO_RESULT, error=error)
    if result is None:
        return logged
    said = msgspec.Raw(result.encode(errors="surrogateescape"))
    return msgspec.structs.replace(logged, status="applied", result=said, error=None)


def check_fits(entry: LogEntry, service: Service, result: str | None, rejected: str | None) -> None:
    """Raises CommandRefused for an answer that this command could not have had, and Misused for another type's result.

    `service` is that of the lane that settled it.
    """
    if result is None and rejected is None:
        if is_forgotten(entry):
            raise CommandRefused(
                f"the outcome of command {entry.command_id} is forgotten in the log of lane {service.lane}: say what "
                "it was, with --result or --rejected"
            )
        return
    if entry.status != "applied":
        raise CommandRefused(
            f"command {entry.command_id} is {entry.status} in the log of lane {service.lane}, and so no answer came "
            "later: say --logged"
        )
    if result is None:
        return
    handlers = {handler.command.type: handler for handler in service.handlers}
    if entry.type not in handlers:
        raise CommandRefused(
            f"lane {service.lane} of this release has no command {entry.type}, so nothing shows whether --result is "
            "one of its results: use the release that has it"
        )
    try:
        model = handlers[entry.type].result
    except (TypeError, NameError):
        # Its handler does not say what it returns.
        return
    try:
        msgspec.json.decode(result, type=type(None) if model is None else model)
    except msgspec.ValidationError as error:
        kind = "nothing (null)" if model is None else f"a whole {model.__name__}"
        raise Misused(f"--result is no result of {entry.type}, which is {kind}: {error}") from None


def check_sendable(message: CommandMessage, continuation: type[Continuation]) -> None:
    """Raises Misused for a continuation that its lane would not read."""
    if len(message.arguments) > BODY_BYTES_MAX:
        raise Misused(f"with this --result the continuation has more than {BODY_BYTES_MAX} bytes")
    try:
        parse(continuation, message.arguments)
    except InvalidCommand as error:
        raise Misused(f"with this --result {continuation.type} cannot be read: {error}") from None


def check_not_awaited(admin: LaneAdmin, service: Service, entry: LogEntry, continuation: str) -> None:
    """Raises CommandRefused if a row keeps the command's continuation, put off (`UnitOfWork.defer`).

    Such a row waits for the answer: its lane will tell it.
    """
    texts = [
        Deferred(command_id=entry.command_id, type=entry.type, continuation=continuation, origin=origin).encode()
        for origin in _ORIGINS
    ]
    row = admin.keeping(service.models, texts)
    if row is not None:
        raise CommandRefused(
            f"the answer to command {entry.command_id} is still to come: the row {shown_key(row.value)} of "
            f"{row.model.table} waits for it, and lane {service.lane} will tell it. If it certainly never comes, say "
            "--even-if-awaited: "
            "should it come after all, the flow that was continued does not hear of it, and money may stay held"
        )


def check_not_on_its_way(admin: LaneAdmin, lane: str, target: str, message: CommandMessage) -> None:
    """Raises CommandRefused if the continuation is in the outbox. Look at rows first: it goes from there to here."""
    after = 0
    while page := admin.emitted(target, after, _PAGE_ENTRIES):
        if any(entry.command_id == message.command_id for entry in page):
            raise CommandRefused(
                f"the continuation waits in the outbox of lane {lane} and will come by itself: "
                f"`coordinator outbox list {lane} --target {target}`"
            )
        after = page[-1].id
