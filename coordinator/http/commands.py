"""Several commands in one request: `POST /commands`.

Every command has an outcome of its own; the request is not a transaction. No command is issued before all are found to
be valid.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import msgspec
import structlog
from aiohttp import web

from coordinator.client.writes import Writes
from coordinator.http.bodies import JSON_TYPES, body_in_turn, media_type
from coordinator.http.command_bodies import (
    NDJSON,
    AnsweredCommand,
    CommandAnswer,
    CommandElement,
    PendingCommand,
    UnavailableCommand,
    decoded_commands,
    elements_of,
    encode_answers,
)
from coordinator.http.command_ids import MISMATCH, ids_of_keys, told_of_key
from coordinator.http.described import described
from coordinator.http.headers import idempotency_key, preferences
from coordinator.http.keys import CONTEXT, SETTINGS, UPGRADES
from coordinator.http.principal_limits import PrincipalShare
from coordinator.http.problems import NothingIssued, RequestRefused, shown
from coordinator.http.receipts import RECEIPTS
from coordinator.http.requests import NoQuery, granted_wait_s, read_query
from coordinator.http.responses import command_location, note_preferences
from coordinator.http.shown_results import SHOWN_RESULTS, ShownResults
from coordinator.http.slices import Slices, in_turns
from coordinator.http.waiting_requests import WAITING_REQUESTS
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.telemetry import Stages, measured
from coordinator.service.commands import Command
from coordinator.service.errors import CommandPending, OutcomeUnknown, Unavailable
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome, OutcomeError

COMMANDS: Final[web.AppKey[Mapping[str, type[Command]]]] = web.AppKey("COMMANDS")
WRITES: Final[web.AppKey[Writes]] = web.AppKey("WRITES")

log = structlog.get_logger("gateway")

routes = web.RouteTableDef()


@routes.post("/commands")
@described(
    "Issue many commands of the service's lane, in their order.",
    body="a JSON array of commands, or one command a line (`application/x-ndjson`)",
    body_types=dict.fromkeys((*JSON_TYPES, NDJSON), list[CommandElement]),  # type: ignore[valid-type]  # made of a table
    headers=("Idempotency-Key", "Prefer"),
    answer="the outcome of each, in their order and in the form of the request",
    answer_types=dict.fromkeys((*JSON_TYPES, NDJSON), list[AnsweredCommand]),
    answer_headers=("Preference-Applied", "Read-After"),
    codes={"internal_error": 503},
)
async def issue_commands(request: web.Request) -> web.Response:
    messages, key = await _read_messages(request)
    context, settings = request[CONTEXT], request.app[SETTINGS]
    wait_s = granted_wait_s(context.preferences, settings.wait_s)
    with request.app[WAITING_REQUESTS].for_outcome(wait_s, len(messages), context.share):
        of_key = [place for place, message in enumerate(messages) if message.command_id is None]
        messages = await _with_ids(request, messages, of_key, key)
        context.stages.end("validate")
        answers = await _issue(request, messages, wait_s)
    if key is not None:
        for place in of_key:
            if isinstance(answer := answers[place], Outcome):
                answers[place] = told_of_key(answer, key)
    answers = await _shown_in_slices(request, answers)
    context.places = _places_of(request, answers)
    context.statuses = dict(Counter(each.status for each in answers))
    unavailable = [each for each in answers if isinstance(each, UnavailableCommand)]
    if len(unavailable) == len(answers):
        raise _nothing_issued(unavailable)
    form = media_type(request)
    response = web.Response(body=encode_answers(answers, form), content_type=form)
    if "pending" in context.statuses:
        note_preferences(response, context.preferences, settings.wait_s)
    return response


async def _read_messages(request: web.Request) -> tuple[list[CommandMessage], str | None]:
    """The commands that the request asks for, and its key. Raises RequestRefused and InvalidCommand."""
    read_query(request, NoQuery)
    async with body_in_turn(request, (*JSON_TYPES, NDJSON), "a JSON array of commands, or one command a line") as body:
        headers = request.headers
        if "If-Match" in headers:
            text = "If-Match is for a request of one command: here each has its own `expected_version`"
            raise RequestRefused(400, "invalid_header", text, field="If-Match")
        if "Command-Id" in headers:
            text = "Command-Id is for a request of one command: here each may have its own `id`"
            raise RequestRefused(400, "invalid_header", text, field="Command-Id")
        if "Command-Version" in headers:
            text = "Command-Version is for a request of one command: here each may have its own `command_version`"
            raise RequestRefused(400, "invalid_header", text, field="Command-Version")
        context = request[CONTEXT]
        context.preferences = preferences(headers.getall("Prefer", ()))
        key = idempotency_key(headers.getall("Idempotency-Key", ()))
        context.is_repeatable = key is not None
        messages = decoded_commands(
            elements_of(body, media_type(request), request.app[SETTINGS].commands_max),
            request.app[COMMANDS],
            traceparent=context.trace.traceparent,
            tracestate=context.trace.tracestate,
            upgrades=request.app[UPGRADES],
        )
        return await _read_in_slices(messages, context.share), key


async def _read_in_slices(messages: Iterator[CommandMessage], share: PrincipalShare | None) -> list[CommandMessage]:
    """All of them, read so that others are served between: what the class of a command checks may take long.

    What was read is paid for, though another one is refused. Raises InvalidCommand.
    """
    read, slices = list[CommandMessage](), Slices()
    try:
        for message in messages:
            read.append(message)
            await slices.pause()
    finally:
        if share is not None and read:
            share.pay_commands(len(read))
    return read


async def _with_ids(
    request: web.Request, messages: list[CommandMessage], without: list[int], key: str | None
) -> list[CommandMessage]:
    """Each with an id: its own, one made from the request's key and its place, or a new one. Raises Unavailable.

    `without` has the places of those that have none of their own.
    """
    if key is None:
        ids = [new_command_id() for _ in without]
    else:
        # No key has a line break, so no other request can have that id: with another key, or of one command.
        ids = await ids_of_keys(
            request, [(_lane_of(request, messages[place].type), f"{key}\n{place}") for place in without]
        )
    slices = Slices()
    for place, command_id in zip(without, ids, strict=True):
        await slices.pause()
        messages[place] = msgspec.structs.replace(messages[place], command_id=command_id)
    return messages


def _lane_of(request: web.Request, command_type: str | None) -> str:
    """The lane of a command whose type is known."""
    return request[CONTEXT].targets.of((command_type or "").partition(".")[0])


async def _issue(request: web.Request, messages: list[CommandMessage], wait_s: float) -> list[CommandAnswer]:
    """Issue all, and return the answer to each, in order: the commands reach the writes in it, in turns."""
    done = await in_turns(messages, partial(_answer, request, request.app[WRITES], wait_s))
    request[CONTEXT].stages.end_issued(stages for _, stages in done)
    return [answer for answer, _ in done]


async def _answer(
    request: web.Request, writes: Writes, wait_s: float, message: CommandMessage
) -> tuple[CommandAnswer, Stages]:
    """The answer to one command. It has stages of its own, since other commands end at other times."""
    command_id, command_type = message.command_id or "", message.type or ""
    with measured() as stages:
        receipts, asker = request.app[RECEIPTS], request[CONTEXT].principal
        lane = _lane_of(request, command_type)
        receipts.keep(command_id, lane, asker, request[CONTEXT].stages, stages)
        try:
            outcome = await writes.issue(lane, message, wait_s)
        except CommandPending:
            location = command_location(command_id)
            return PendingCommand(command_id=command_id, type=command_type, location=location), stages
        except Unavailable as error:
            context = request[CONTEXT]
            context.error = context.error or error
            reason = OutcomeError(code=error.code, message=shown(error))
        except Exception:  # a defect of ours; the other commands have their own outcomes
            log.exception("internal_error", command_id=command_id)
            reason = OutcomeError(code="internal_error", message="a defect of this service; its log has the details")
        else:
            if outcome.replayed or (outcome.error is not None and outcome.error.code == MISMATCH):
                receipts.withdraw(command_id, asker, stages)
            return outcome, stages
        return UnavailableCommand(command_id=command_id, type=command_type, error=reason), stages


def _places_of(request: web.Request, answers: list[CommandAnswer]) -> dict[str, int] | None:
    """Of each lane the place of the last command that is settled, in the order of the lanes; None: none is."""
    places: dict[str, int] = {}
    for each in answers:
        if isinstance(each, Outcome) and each.sequence is not None:
            lane = _lane_of(request, each.type)
            places[lane] = max(each.sequence, places.get(lane, 0))
    return places or None


async def _shown_in_slices(request: web.Request, answers: list[CommandAnswer]) -> list[CommandAnswer]:
    """The answers, of which the outcomes have what whoever asks may see of their results."""
    results, slices, shown = request.app[SHOWN_RESULTS], Slices(), list[CommandAnswer]()
    for each in answers:
        shown.append(_shown(request, results, each) if isinstance(each, Outcome) else each)
        await slices.pause()
    return shown


def _shown(request: web.Request, results: ShownResults, outcome: Outcome) -> Outcome:
    """The outcome with what whoever asks may see of its result."""
    result = results.of_logged(request, outcome.type, outcome.result)
    return outcome if result is outcome.result else msgspec.structs.replace(outcome, result=result)


def _nothing_issued(answers: list[UnavailableCommand]) -> NothingIssued:
    """The request has the worst reason of all: a command that may be applied must not look like one that is not."""
    reason = next((each.error for each in answers if each.error.code == OutcomeUnknown.code), answers[0].error)
    known = "is known to be safe" if reason.code == OutcomeUnknown.code else "was handed over"
    text = f"none of the {len(answers)} commands {known}, repeat them with the ids in `outcomes`: {reason.message}"
    return NothingIssued(reason.code, text, answers)
