"""Whether somebody may issue a command, by the rule that its service declares."""

from typing import Any

from coordinator.lane.handler_work import ReadingWork
from coordinator.lane.request import Request
from coordinator.service.allowing import CommandRule, HasScope, anybody
from coordinator.service.authors_code import place_of
from coordinator.service.errors import Rejected
from coordinator.service.principal import UnbelievedAccount


class RuleFailed(Exception):
    """Raised for a rule that raises, or gives no answer, by its error; and for what fails before it is asked.

    Nobody has said that its command may be issued. So no other command waits for it, as for one whose handler fails.
    """


def check_allowed(request: Request, rows: ReadingWork) -> None:
    """Raises Rejected for a command that its actor may not issue, and RuleFailed.

    What comes from the system, and what has no rule, is allowed.
    """
    rule = _rule_of(request)
    if rule is None:
        return
    refuse_without_rows(request)
    try:
        is_allowed = _answer(rule, request, rows)
    except Rejected:
        raise
    except BaseException as error:
        raise RuleFailed from error
    if not is_allowed:
        raise _forbidden(request)


def refuse_without_rows(request: Request) -> None:
    """Raises Rejected for a command of which it is certain, whatever the rows are, that its actor may not issue it."""
    rule, message = _rule_of(request), request.message
    if rule is None:
        return
    if message.actor is None:
        raise Rejected("forbidden", f"{message.type} is not for everybody, and it is not known who asks for it")
    if isinstance(message.actor, UnbelievedAccount):
        raise Rejected(
            "forbidden",
            f"{message.type} is not for everybody, and the lane does not believe its gateway who asks for it: "
            "LANE_GATEWAY_ACCOUNTS of the lane does not name the gateway's account",
        )
    if isinstance(rule, HasScope) and rule.scope not in message.actor.scopes:
        raise _forbidden(request)


def is_unasked(request: Request) -> bool:
    """Whether a command that is not tried has a rule, of which nobody knows what it would have said."""
    return _rule_of(request) is not None


def _rule_of(request: Request) -> CommandRule[Any] | None:
    """None: nobody is asked."""
    rule = None if request.handler is None or request.message.origin == "system" else request.handler.allow
    return None if rule is anybody else rule


def _answer(rule: CommandRule[Any], request: Request, rows: ReadingWork) -> bool:
    answer: object = rule(request.message.actor, request.command, rows)  # type: ignore[arg-type]  # he is known
    if not isinstance(answer, bool):
        place = place_of(rule)
        where = request.message.type if place is None else f"{request.message.type} ({place})"
        raise TypeError(f"`allow` of {where} must return True or False, and returned {answer!r:.100}")
    return answer


def _forbidden(request: Request) -> Rejected:
    message = request.message
    subject = "nobody" if message.actor is None else message.actor.subject
    return Rejected("forbidden", f"{subject} may not issue this {message.type}")
