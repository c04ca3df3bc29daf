"""A command message made ready to be applied: parsed, checked, fingerprinted."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from shared.commands import Command, parse
from shared.errors import InvalidCommand
from shared.messaging.wire import CommandMessage, Problem, fingerprint_of
from shared.unit_of_work import Handler

Handlers = Mapping[str, Handler[Any]]


class Request(Struct, frozen=True, kw_only=True):
    """One command of a batch. Either `command` and `handler` are there, or `problem` says why they cannot be.

    `parked_key`: it waited in the database for that key, and no delivery brings it.
    """

    message: CommandMessage
    redelivered: bool
    fingerprint: str
    command: Command | None = None
    handler: Handler[Any] | None = None
    problem: Problem | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    parked_key: str | None = None


def prepare(
    message: CommandMessage,
    handlers: Handlers,
    *,
    redelivered: bool,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    parked_key: str | None = None,
) -> Request:
    """Find the handler of a message and parse its arguments. Never raises."""
    fingerprint = fingerprint_of(message)
    problem = message.problem
    if problem is None:
        handler = handlers.get(message.type or "")
        if handler is None:
            problem = Problem(
                "unknown_command_type",
                f"this lane has no command type {message.type!r}; it has {', '.join(sorted(handlers))}",
            )
        else:
            try:
                return Request(
                    message=message,
                    redelivered=redelivered,
                    fingerprint=fingerprint,
                    command=parse(handler.command, message.arguments),
                    handler=handler,
                    reply_to=reply_to,
                    correlation_id=correlation_id,
                    parked_key=parked_key,
                )
            except InvalidCommand as error:
                problem = Problem(error.code, str(error))
    return Request(
        message=message,
        redelivered=redelivered,
        fingerprint=fingerprint,
        problem=problem,
        reply_to=reply_to,
        correlation_id=correlation_id,
        parked_key=parked_key,
    )
