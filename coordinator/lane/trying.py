"""Trying a command: running its handler, and the verdict that follows."""

import re
from typing import Any

from msgspec import Struct

from coordinator.lane.allowed import RuleFailed, check_allowed, is_unasked
from coordinator.lane.authors import abandon, attribute, reference, traced
from coordinator.lane.basis import Basis
from coordinator.lane.control import CONTROL_TYPES
from coordinator.lane.follow_up import continuation_of
from coordinator.lane.given_values import fault_of_sender
from coordinator.lane.request import Request
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.descriptions import described
from coordinator.service.errors import Rejected
from coordinator.service.rows import Ref, Row, VersionedRow, shown_key
from coordinator.service.unit_of_work import Handler
from coordinator.stores.row_checks import InvalidRow

CODE_CHARACTERS_MAX = 100
_CODE_IS = (
    f"clients branch for it, so it is 1 to {CODE_CHARACTERS_MAX} visible ASCII characters without a space, such as "
    "not_found; words for people are the second argument"
)
_CODE = re.compile(rf"[!-~]{{1,{CODE_CHARACTERS_MAX}}}")


def is_code(text: str) -> bool:
    """Whether it can be the code of a rejection, for which clients branch: visible ASCII without spaces."""
    return _CODE.fullmatch(text) is not None


class Verdict(Struct, frozen=True):
    """A status with its result or error."""

    status: str
    code: str | None = None
    text: str | None = None
    result: bytes | None = None
    traceback: str | None = None
    is_deferred: bool = False
    subjects: tuple[str, ...] = ()
    """Whose personal data an applied command leaves, as digests."""
    is_of_rule: bool = False
    """Whether it is the failure of a rule, or came before the rule: nobody has said that this command may be issued."""


def tried(basis: Basis, request: Request) -> Verdict:
    """Run the handler of a command, and judge whatever it does."""
    message, work = request.message, basis.work
    continuation = None if message.continuation is None else continuation_of(message)
    work.begin_command(
        message.command_id or "",
        message.type or "",
        continuation,
        message.actor,
        message.traceparent,
        message.tracestate,
    )
    done: Struct | None = None
    try:
        if continuation is not None:
            work.check_continuation(continuation)
        order = request.command if message.type in CONTROL_TYPES else None
        # First, so that a fault in it is found whatever becomes of the command.
        named = _named(basis, request) if basis.subjects.are_any else []
        done = _handle(basis, request) if order is None else basis.orders.carry_out(order, request.account)
        verdict = Verdict(
            "applied",
            result=basis.results.encoded(message.type or "", done, work),
            is_deferred=work.is_deferred,
            subjects=_subjects(basis, named) if basis.subjects.are_any else (),
        )
    except BaseException as error:  # whatever a handler does must not stop the lane
        if error is work.interruption:
            raise
        verdict = _failure(request, error)
        work.undo()
        abandon(done)
    if work.interruption is not None:
        # The handler caught the error, or raised another: it has not seen the rows as they are.
        raise work.interruption
    return verdict


def _named(basis: Basis, request: Request) -> list[Ref[Row]]:
    """The persons whom a command names. Raises an error of any kind, of the author's function: Rejected, or RuleFailed
    where the rule was not asked yet."""
    try:
        return basis.subjects.named_by(request)
    except Rejected:
        raise
    except BaseException as error:
        if is_unasked(request):
            raise RuleFailed from error
        raise


def _subjects(basis: Basis, named: list[Ref[Row]]) -> tuple[str, ...]:
    return basis.subjects.digests_of(basis.work, [*named, *basis.subjects.changed_by(basis.work)])


def _failure(request: Request, failed: BaseException) -> Verdict:
    """The verdict for an error of a handler or a rule: it refuses the command, or is a fault."""
    error = (failed.__cause__ or failed) if isinstance(failed, RuleFailed) else failed
    if isinstance(error, InvalidRow) and (fault := fault_of_sender(request, error)) is not None:
        return Verdict("rejected", "invalid_arguments", fault)
    if isinstance(failed, RuleFailed):
        return Verdict("failed", "handler_error", described(error), traceback=traced(error), is_of_rule=True)
    if isinstance(error, Rejected):
        code, text = attribute(error, "code"), described(error, with_type=False)
        if isinstance(code, str) and is_code(code):
            return Verdict("rejected", code, text)
        shown = f"the code {described(code, with_type=False)!r:.120}" if isinstance(code, str) else described(code)
        text = f"Rejected with {shown}, which is none: {_CODE_IS}"
        return Verdict("failed", "handler_error", text, traceback=traced(error))
    code = "invalid_row" if isinstance(error, InvalidRow) else "handler_error"
    return Verdict("failed", code, described(error), traceback=traced(error))


def _handle(basis: Basis, request: Request) -> Struct | None:
    work, handlers = basis.work, basis.handlers_work
    handler: Handler[Any] | None = request.handler
    if handler is None or request.command is None:
        raise TypeError("a request without a defect has a handler and a command")
    if handler.allow is not None:
        check_allowed(request, basis.reading_work)
    expected = request.message.expected_version
    if expected is not None:
        target = None if handler.target is None else reference(handler.target(request.command))
        if target is None or not issubclass(target.model, VersionedRow):
            raise Rejected("expected_version_unsupported", f"{request.message.type} has no version to expect")
        if not _has_version(work, target, expected):
            # It is up to the handler to refuse a command for a missing row, in its own words: it may also make one.
            abandon(handler.handle(handlers, request.command))
            raise Rejected(
                "version_conflict",
                f"{target.model.table} {shown_key(target.value)} is not there, nor its version {expected}",
            )
    return handler.handle(handlers, request.command)


def _has_version(work: BatchWork, target: Ref[Row], expected: int) -> bool:
    """False: the row is not there. Raises Rejected where it has another version."""
    row = work.find(target.model, target.column, target.value)
    if isinstance(row, VersionedRow) and row.version != expected:
        raise Rejected(
            "version_conflict",
            # Which one it has is for those who see the row: its rule is a gateway's to ask.
            f"{target.model.table} {shown_key(target.value)} has another version than {expected}",
        )
    return row is not None
