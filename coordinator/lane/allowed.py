"""Whether somebody may issue a command, by the rule that its service declares."""

from typing import Any

from coordinator.lane.request import Request
from coordinator.lane.unit_of_work import ReadingWork
from coordinator.service.allowing import CommandRule, anybody
from coordinator.service.errors import Rejected


def check_allowed(rule: CommandRule[Any], request: Request, rows: ReadingWork) -> None:
    """Raises Rejected for a command that its actor may not issue, and TypeError for a rule that gives no answer."""
    if rule is anybody:
        return
    message = request.message
    if message.actor is None:
        raise Rejected("forbidden", f"{message.type} is not for everybody, and it is not known who asks for it")
    is_allowed: object = rule(message.actor, request.command, rows)
    if is_allowed is True:
        return
    if is_allowed is not False:
        raise TypeError(f"`allow` of {message.type} must return True or False, and returned {is_allowed!r:.100}")
    raise Rejected("forbidden", f"{message.actor.subject} may not issue this {message.type}")
