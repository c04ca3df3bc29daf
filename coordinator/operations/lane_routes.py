"""The routes of one lane: letters, commands, acts."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.http.bodies import JSON_TYPES
from coordinator.http.described import described
from coordinator.http.problems import RequestRefused
from coordinator.http.requests import NoQuery, read_query
from coordinator.http.responses import json_response
from coordinator.operate.actors import actor_of_text, named
from coordinator.operate.output import REASON_CHARACTERS_MAX
from coordinator.operations import acts, letters
from coordinator.operations.acts import Done, checked_reason
from coordinator.operations.collector import LaneCollector
from coordinator.operations.content import act_without_content, key_without_content
from coordinator.operations.doors import (
    OF_ACTS,
    OF_LANES,
    WITHOUT_NUL,
    AskedOfLane,
    Route,
    acting,
    looking,
)
from coordinator.operations.lane_threads import LaneThreads
from coordinator.operations.letters import STEP_MAX, LetterPage, LetterResult, WholeLetter
from coordinator.operations.sessions import MARK_HEADER
from coordinator.operations.settled_commands import CommandPage, page_of_commands
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import NotFound
from coordinator.stores.admin import LetterQuery, ParkedKeySummary
from coordinator.stores.audit import ActQuery
from coordinator.stores.audit_tables import OperatorAct

THREADS: Final = web.AppKey("THREADS", LaneThreads)
COLLECTOR: Final = web.AppKey("COLLECTOR", LaneCollector)
WAIT_S: Final = web.AppKey("WAIT_S", float)
KEYS_MAX: Final = 200
MARGIN_S: Final = 10.0
"""Beyond the wait for a lane: to connect to its servers."""

_LANE: Final = {"lane": str}

Count: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Few: TypeAlias = Annotated[int, Meta(ge=1, le=200)]
Words: TypeAlias = Annotated[str, Meta(max_length=500, pattern=WITHOUT_NUL)]
LetterNumber: TypeAlias = Annotated[int, Meta(ge=1, le=9_999_999_999_999_999)]


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


class ReasonedAct(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of an act. The reason is kept with it: printable characters, and not spaces alone."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARACTERS_MAX)]


class CancelAct(ReasonedAct, kw_only=True):
    """The command that is never to be applied, by its id."""

    command_id: Annotated[str, Meta(max_length=100)]


class LettersAct(ReasonedAct, kw_only=True):
    """The letters that are meant, by their numbers."""

    letters: Annotated[list[Annotated[int, Meta(ge=1, le=INTEGER_MAX)]], Meta(min_length=1, max_length=STEP_MAX)]


class ReplayAct(LettersAct, kw_only=True):
    """The same; `args` are the new arguments of one letter, and `without_deadline` takes away that of their commands.

    `alone`: also one of which somebody, such as a saga, was told that it failed; nobody is told of its replay.
    """

    args: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})] | UnsetType = UNSET
    without_deadline: bool = False
    alone: bool = False


class ActPage(Struct, frozen=True, kw_only=True):
    """Acts, the last first. `next` is the `before` of the page behind it; None: there is none."""

    acts: list[OperatorAct]
    next: str | None


class ParkedKeys(Struct, frozen=True, kw_only=True):
    """Keys for which commands wait, the first `KEYS_MAX`. `actor` is who asked for the failed command, in words."""

    keys: list[ParkedKeySummary]


class LetterResults(Struct, frozen=True, kw_only=True):
    """What came of each letter, in the order in which they were named."""

    results: list[LetterResult]


@described(
    "A page of dead letters, oldest first, without their arguments. Only operators may search in these (`contains`).",
    path=_LANE,
    query=_LettersAsked,
    answer=LetterPage,
    codes=OF_LANES,
    links={
        "/api/lanes/{lane}/letters/{letter}": {
            "lane": "$request.path.lane",
            "letter": "$response.body#/letters/0/id",
        },
        "/api/commands/{id}": {"id": "$response.body#/letters/0/command_id"},
    },
)
@looking
async def show_letters(asked: AskedOfLane) -> web.Response:
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


@described(
    "One dead letter. Whoever may only look sees neither its arguments nor why it died.",
    path=_LANE | {"letter": LetterNumber},
    answer=WholeLetter,
    codes=OF_LANES | {"letter_not_found": 404, "not_found": 404},
)
@looking
async def show_letter(asked: AskedOfLane) -> web.Response:
    read_query(asked.request, NoQuery)
    number = int(asked.request.match_info["letter"])
    found = await asked.request.app[THREADS].read(
        asked.lane,
        asked.rights,
        lambda admin: letters.whole_letter(admin, asked.lane, number, with_content=asked.operates),
    )
    if found is None:
        raise NotFound("letter_not_found", f"lane {asked.lane} has no dead letter {number} (any more)")
    return json_response(found)


@described(
    "The keys for which commands wait, behind which failed command, and how many: the first 200. Whoever may only look "
    "sees which command and how many, and not the key.",
    path=_LANE,
    answer=ParkedKeys,
    codes=OF_LANES,
    links={"/api/commands/{id}": {"id": "$response.body#/keys/0/failed_id"}},
)
@looking
async def show_parked(asked: AskedOfLane) -> web.Response:
    read_query(asked.request, NoQuery)
    found = await asked.request.app[THREADS].read(asked.lane, asked.rights, lambda admin: admin.parked_keys(KEYS_MAX))
    named_keys = [msgspec.structs.replace(each, actor=named(actor_of_text(each.actor))) for each in found]
    if not asked.operates:
        named_keys = [key_without_content(each) for each in named_keys]
    return json_response(ParkedKeys(keys=named_keys))


@described(
    "A page of settled commands, latest first. With a type or a status it looks through 100,000 of them at a time.",
    path=_LANE,
    query=_CommandsAsked,
    answer=CommandPage,
    codes=OF_LANES,
    links={"/api/commands/{id}": {"id": "$response.body#/commands/0/command_id"}},
)
@looking
async def show_commands(asked: AskedOfLane) -> web.Response:
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


@described(
    "What operators did to the lane, the last first.",
    path=_LANE,
    query=_ActsAsked,
    answer=ActPage,
    codes=OF_LANES,
)
@looking
async def show_acts(asked: AskedOfLane) -> web.Response:
    query = read_query(asked.request, _ActsAsked)
    found = await asked.request.app[THREADS].read(
        asked.lane, asked.rights, lambda admin: admin.acts(ActQuery(), query.before, query.limit + 1)
    )
    more = found[query.limit - 1].id if len(found) > query.limit else None
    shown = found[: query.limit] if asked.operates else [act_without_content(each) for each in found[: query.limit]]
    return json_response(ActPage(acts=shown, next=more))


def _act(summary: str, body: type[ReasonedAct], answer: type[Struct] = Done) -> Callable[[Route], Route]:
    """The description of an act."""
    return described(
        summary,
        path=_LANE,
        body_types=dict.fromkeys(JSON_TYPES, body),
        headers=(MARK_HEADER,),
        answer=answer,
        codes=OF_ACTS,
    )


@_act("Stop the lane from committing. Commands are still taken, and wait in their order.", ReasonedAct)
@acting(ReasonedAct)
async def pause(asked: AskedOfLane, body: ReasonedAct) -> web.Response:
    return await _done(asked, body, lambda author, reason, _: acts.pause(asked.lane, author, reason))


@_act("Let a paused lane go on.", ReasonedAct)
@acting(ReasonedAct)
async def resume(asked: AskedOfLane, body: ReasonedAct) -> web.Response:
    return await _done(asked, body, lambda author, reason, _: acts.resume(asked.lane, author, reason))


@_act("Wait until what is in the lane's queue now is settled, for OPERATIONS_WAIT_S at most.", ReasonedAct)
@acting(ReasonedAct)
async def drain(asked: AskedOfLane, body: ReasonedAct) -> web.Response:
    return await _done(asked, body, lambda author, reason, wait_s: acts.drain(asked.lane, author, reason, wait_s))


async def _done(asked: AskedOfLane, body: ReasonedAct, act: Callable[[str, str, float], Done]) -> web.Response:
    """Do an act, given its author, its reason and how long it may wait."""
    app, author = asked.request.app, asked.author
    reason, wait_s = checked_reason(body.reason), app[WAIT_S]
    done = await app[THREADS].run(asked.lane, lambda: act(author, reason, wait_s), wait_s + MARGIN_S)
    app[COLLECTOR].hurry()
    return json_response(done)


@_act("Keep a command that is not settled yet from ever being applied.", CancelAct)
@acting(CancelAct)
async def cancel(asked: AskedOfLane, body: CancelAct) -> web.Response:
    app, author = asked.request.app, asked.author
    reason = checked_reason(body.reason)
    done = await app[THREADS].run(
        asked.lane, lambda: acts.cancel(asked.lane, author, reason, body.command_id), app[WAIT_S] + MARGIN_S
    )
    return json_response(done)


@_act("Have the commands of some letters tried again, each under a new id.", ReplayAct, LetterResults)
@acting(ReplayAct)
async def replay(asked: AskedOfLane, body: ReplayAct) -> web.Response:
    app, author, lane = asked.request.app, asked.author, asked.lane
    reason, wait_s, numbers = checked_reason(body.reason), app[WAIT_S], _numbers(body)
    if body.args is not UNSET and len(numbers) != 1:
        raise RequestRefused(422, "misused", "arguments are for one letter", field="args")
    arguments = None if isinstance(body.args, UnsetType) else bytes(body.args)
    results = await app[THREADS].run(
        lane,
        lambda: letters.replay_letters(
            lane,
            numbers,
            author,
            reason,
            wait_s,
            arguments,
            without_deadline=body.without_deadline,
            alone=body.alone,
        ),
        wait_s + MARGIN_S,
    )
    app[COLLECTOR].hurry()
    return json_response(LetterResults(results=results))


@_act("Remove some letters for good.", LettersAct, LetterResults)
@acting(LettersAct)
async def discard(asked: AskedOfLane, body: LettersAct) -> web.Response:
    app, author, lane = asked.request.app, asked.author, asked.lane
    reason, wait_s, numbers = checked_reason(body.reason), app[WAIT_S], _numbers(body)
    results = await app[THREADS].run(
        lane, lambda: letters.discard_letters(lane, numbers, author, reason, wait_s), wait_s + MARGIN_S
    )
    app[COLLECTOR].hurry()
    return json_response(LetterResults(results=results))


def _numbers(body: LettersAct) -> list[int]:
    return list(dict.fromkeys(body.letters))


routes: Final = (
    web.get("/api/lanes/{lane}/letters", show_letters),
    web.get(r"/api/lanes/{lane}/letters/{letter:[1-9][0-9]{0,15}}", show_letter),
    web.post("/api/lanes/{lane}/letters/replay", replay),
    web.post("/api/lanes/{lane}/letters/discard", discard),
    web.get("/api/lanes/{lane}/parked", show_parked),
    web.get("/api/lanes/{lane}/commands", show_commands),
    web.get("/api/lanes/{lane}/acts", show_acts),
    web.post("/api/lanes/{lane}/pause", pause),
    web.post("/api/lanes/{lane}/resume", resume),
    web.post("/api/lanes/{lane}/drain", drain),
    web.post("/api/lanes/{lane}/cancel", cancel),
)
