"""The routes of one lane: letters, commands, acts."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.http.problems import RequestRefused
from coordinator.http.responses import json_response
from coordinator.operations import acts, letters
from coordinator.operations.acts import checked_reason
from coordinator.operations.collector import LaneCollector
from coordinator.operations.doors import AskedOfLane, acting, looking, read_json, read_query
from coordinator.operations.lane_threads import LaneThreads
from coordinator.operations.letters import STEP_MAX
from coordinator.operations.settled_commands import page_of_commands
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import NotFound
from coordinator.stores.admin import LetterQuery
from coordinator.stores.audit import ActQuery

THREADS: Final = web.AppKey("THREADS", LaneThreads)
COLLECTOR: Final = web.AppKey("COLLECTOR", LaneCollector)
WAIT_S: Final = web.AppKey("WAIT_S", float)
MARGIN_S: Final = 10.0
"""Beyond the wait for a lane: to connect to its servers."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Few: TypeAlias = Annotated[int, Meta(ge=1, le=200)]
Words: TypeAlias = Annotated[str, Meta(max_length=500)]


class _LettersAsked(Struct, forbid_unknown_fields=True):
    """Which page of letters."""

    after: Count = 0
    limit: Few = 50
    type: Words | None = None
    code: Words | None = None
    contains: Words | None = None
    target: Words | None = None
    command_id: Words | None = None


class _CommandsAsked(Struct, forbid_unknown_fields=True):
    """Which page of commands."""

    before: Count | None = None
    limit: Few = 50
    type: Words | None = None
    status: Literal["applied", "rejected", "failed", "expired"] | None = None
    until: datetime | None = None


class _ActsAsked(Struct, forbid_unknown_fields=True):
    """Which page of acts."""

    before: Annotated[str, Meta(max_length=64, pattern=r"\A[0-9T:.Za-f-]+\Z")] | None = None
    limit: Few = 50


class _Act(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of an act."""

    reason: str


class _CancelAct(_Act, kw_only=True):
    """The command that is never to be applied."""

    command_id: str


class _LettersAct(_Act, kw_only=True):
    """The letters that are meant. `args` are one letter's new arguments."""

    letters: Annotated[list[Annotated[int, Meta(ge=1, le=INTEGER_MAX)]], Meta(min_length=1, max_length=STEP_MAX)]
    args: msgspec.Raw | UnsetType = UNSET
    without_deadline: bool = False


@looking
async def show_letters(asked: AskedOfLane) -> web.Response:
    """A page of dead letters."""
    query = read_query(asked.request, _LettersAsked)
    if query.contains is not None and not asked.operates:
        raise RequestRefused(403, "forbidden", "whoever may not see arguments cannot search in them")
    wanted = LetterQuery(
        type=query.type,
        code=query.code,
        contains=None if query.contains is None else query.contains.encode("utf-8", "surrogateescape"),
        target=query.target,
        command_id=None if query.command_id is None else query.command_id.lower(),
    )
    page = await asked.request.app[THREADS].read(
        asked.lane,
        asked.rights,
        lambda admin: letters.page_of_letters(admin, wanted, query.after, query.limit, with_content=asked.operates),
    )
    return json_response(page)


@looking
async def show_letter(asked: AskedOfLane) -> web.Response:
    """One dead letter, whole."""
    number = int(asked.request.match_info["letter"])
    found = await asked.request.app[THREADS].read(
        asked.lane,
        asked.rights,
        lambda admin: letters.whole_letter(admin, asked.lane, number, with_content=asked.operates),
    )
    if found is None:
        raise NotFound("letter_not_found", f"lane {asked.lane} has no dead letter {number} (any more)")
    return json_response(found)


@looking
async def show_commands(asked: AskedOfLane) -> web.Response:
    """A page of settled commands."""
    query = read_query(asked.request, _CommandsAsked)
    until = query.until
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    page = await asked.request.app[THREADS].read(
        asked.lane,
        asked.rights,
        lambda admin: page_of_commands(admin, query.before, query.limit, query.type, query.status, until),
    )
    return json_response(page)


@looking
async def show_acts(asked: AskedOfLane) -> web.Response:
    """What operators did to the lane, the last first."""
    query = read_query(asked.request, _ActsAsked)
    found = await asked.request.app[THREADS].read(
        asked.lane, asked.rights, lambda admin: admin.acts(ActQuery(), query.before, query.limit + 1)
    )
    more = found[query.limit - 1].id if len(found) > query.limit else None
    return json_response({"acts": found[: query.limit], "next": more})


@acting
async def do_act(asked: AskedOfLane) -> web.Response:
    """Pause, resume, drain."""
    app, author, lane = asked.request.app, asked.author, asked.lane
    body = await read_json(asked.request, _Act)
    reason, wait_s = checked_reason(body.reason), app[WAIT_S]
    work = {
        "pause": lambda: acts.pause(lane, author, reason),
        "resume": lambda: acts.resume(lane, author, reason),
        "drain": lambda: acts.drain(lane, author, reason, wait_s),
    }[asked.request.match_info["act"]]
    done = await app[THREADS].run(lane, work, wait_s + MARGIN_S)
    app[COLLECTOR].hurry()
    return json_response(done)


@acting
async def do_cancel(asked: AskedOfLane) -> web.Response:
    """Cancel a command."""
    app, author = asked.request.app, asked.author
    body = await read_json(asked.request, _CancelAct)
    reason = checked_reason(body.reason)
    done = await app[THREADS].run(
        asked.lane, lambda: acts.cancel(asked.lane, author, reason, body.command_id), app[WAIT_S] + MARGIN_S
    )
    return json_response(done)


@acting
async def do_to_letters(asked: AskedOfLane) -> web.Response:
    """Replay or discard letters, one step."""
    app, author, lane = asked.request.app, asked.author, asked.lane
    body = await read_json(asked.request, _LettersAct)
    reason, wait_s = checked_reason(body.reason), app[WAIT_S]
    numbers = list(dict.fromkeys(body.letters))
    if body.args is not UNSET and len(numbers) != 1:
        raise RequestRefused(422, "invalid_request", "arguments are for one letter", field="args")
    arguments = None if isinstance(body.args, UnsetType) else bytes(body.args)
    if asked.request.match_info["act"] == "discard":
        results = await app[THREADS].run(
            lane, lambda: letters.discard_letters(lane, numbers, author, reason, wait_s), wait_s + MARGIN_S
        )
    else:
        results = await app[THREADS].run(
            lane,
            lambda: letters.replay_letters(
                lane, numbers, author, reason, wait_s, arguments, without_deadline=body.without_deadline
            ),
            wait_s + MARGIN_S,
        )
    app[COLLECTOR].hurry()
    return json_response({"results": results})


routes: Final = (
    web.get("/api/lanes/{lane}/letters", show_letters),
    web.get(r"/api/lanes/{lane}/letters/{letter:[1-9][0-9]{0,15}}", show_letter),
    web.post("/api/lanes/{lane}/letters/{act:replay|discard}", do_to_letters),
    web.get("/api/lanes/{lane}/commands", show_commands),
    web.get("/api/lanes/{lane}/acts", show_acts),
    web.post("/api/lanes/{lane}/{act:pause|resume|drain}", do_act),
    web.post("/api/lanes/{lane}/cancel", do_cancel),
)
