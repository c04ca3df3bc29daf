"""A command that is not even tried, and why."""

from coordinator.lane.allowed import is_unasked
from coordinator.lane.basis import BARE, Basis
from coordinator.lane.newer import is_announced
from coordinator.lane.parking import Standing
from coordinator.lane.request import Request
from coordinator.lane.trying import Verdict
from coordinator.protocol.wire import CommandMessage
from coordinator.service.authors_code import shown_function
from coordinator.stores.lane_tables import Cancellation
from coordinator.stores.port import Refusal, RowFault


def untried(  # noqa: PLR0911  # one return for each answer of the protocol
    basis: Basis,
    request: Request,
    standing: Standing,
    cancellation: Cancellation | None,
    fault: Refusal | str | None,
) -> Verdict | None:
    """The answer to a command without a try; None: it is to be tried."""
    message = request.message
    if cancellation is not None:
        if basis.spared < BARE:
            basis.work.drop(cancellation)
        # The reason is for operators: it is among their acts, and whoever issued the command reads this.
        return Verdict("rejected", "cancelled", "an operator has cancelled it before its turn")
    if message.publisher_seq is not None and (verdict := verdict_on_number(basis, message)) is not None:
        return verdict
    # What only a newer release can say, nobody needs to say of a command that is over.
    if request.defect is not None and not (request.is_newer and _is_over_before(basis, request)):
        return Verdict("failed", request.defect.code, request.defect.message)
    if standing.is_behind and request.parked_key is None:
        every, own = basis.parking.waiting, basis.parking.waiting_of(message.actor)
        text = (
            f"{every.commands} commands of {every.size_bytes} bytes wait behind failed ones already, {own.commands} of "
            f"{own.size_bytes} bytes of the same sender"
        )
        return Verdict("rejected", "too_many_parked", text)
    if isinstance(fault, RowFault):
        return Verdict("failed", "row_unreadable", str(fault), is_of_rule=is_unasked(request))
    if isinstance(fault, Refusal):
        # No line of the handler: the database says so when all that it has done is written.
        by = "" if request.handler is None else f"; it was written by {shown_function(request.handler.handle)}"
        return Verdict("failed", "database_refused", f"{fault}{by}")
    if is_over(basis, message):
        return Verdict("expired", "deadline_expired", "the deadline had passed when the command's turn came")
    fault = fault or standing.fault
    return None if fault is None else Verdict("failed", "handler_error", fault, is_of_rule=is_unasked(request))


def is_over(basis: Basis, message: CommandMessage) -> bool:
    """Whether its deadline has passed."""
    return message.deadline_ms is not None and basis.work.now.timestamp() * 1000 > message.deadline_ms


def _is_over_before(basis: Basis, request: Request) -> bool:
    """Whether a command that a newer release may know has expired; any other that nobody announced has failed."""
    return is_over(basis, request.message) and is_announced(basis.work, request)


def is_past_trying(basis: Basis, message: CommandMessage) -> bool:
    """Whether no release would try it, whatever it says: its deadline has passed, or its number has an answer."""
    return is_over(basis, message) or verdict_on_number(basis, message) is not None


def verdict_on_number(basis: Basis, message: CommandMessage) -> Verdict | None:
    """Why its number in the publisher's session keeps a command from being applied, and from waiting."""
    if message.publisher_seq is None:
        return None
    named = f"number {message.publisher_seq} of publisher {message.publisher}"
    if basis.progress.is_counted(message):
        return Verdict("rejected", "publisher_seq_settled", f"{named} is settled already, or below 1")
    if basis.progress.leaves_too_many_gaps(message):
        text = f"{named} leaves too many others out: publish those first, or begin another session"
        return Verdict("rejected", "too_many_gaps", text)
    return None
