"""The dead letters that an operator chooses, and the form in which they are shown."""

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import click
import msgspec
from msgspec import Struct

from coordinator.arguments import TEXT, Named, Whole
from coordinator.operate import output
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, Misused
from coordinator.operate.reasons import told_of
from coordinator.protocol.actors import HEADER_ACTOR
from coordinator.protocol.fields import OPTIONS
from coordinator.protocol.senders import HEADER_SENDER
from coordinator.protocol.wire import HEADER_REPLAYED
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.nesting import is_too_deep
from coordinator.service.options import Options, Origin
from coordinator.service.outside_calls import effects_key
from coordinator.stores.admin import LetterQuery, LetterSummary
from coordinator.stores.audit import ActQuery
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import DeadLetter
from coordinator.stores.one_lane import WrongDatabase


def sources_there_are() -> tuple[str, ...]:
    """Lanes, and the effects of services: their letters are in the lane's database."""
    known = registry()
    return (*known.names, *(effects_key(service.lane) for service in known.calling))


SOURCE = Named("lane", sources_there_are)
SHOWN_CHARACTERS_MAX = 4000
"""The most characters of arguments that are shown for eyes."""
_PAGE_LETTERS = 500
_ENDING_ACTS = ("dead replay", "dead discard")
_ACTS_LOOKED_AT = 1000
"""Of each of them, the latest."""


class Letter(Struct, frozen=True):
    """A dead letter, and the lane with it in its database."""

    lane: str
    summary: LetterSummary

    @property
    def name(self) -> str:
        """Its name in the output of the operator's commands."""
        known = f"command {self.summary.command_id}" if self.summary.command_id else "without a usable id"
        return f"letter {self.summary.id} ({known})"


class Selection(Struct, frozen=True, kw_only=True):
    """The letters that a command is for: one command's, some by their numbers, or all that a query finds."""

    sources: tuple[str, ...]
    numbers: tuple[int, ...]
    query: LetterQuery


def filtering(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose letters; the command gets them as `query`."""

    @click.option("--type", "command_type", type=TEXT, help="Only commands of this type.")
    @click.option("--code", type=TEXT, help="Only with this error code.")
    @click.option("--since", type=output.past, help="Only since then: 2h (ago), or 2030-01-31T12:00:00Z.")
    @click.option("--until", type=output.past, help="Only before that.")
    @click.option("--contains", help="Only with this text in their arguments, as they came.")
    @click.option("--origin", type=click.Choice(("public", "system")), help="Only those from this side.")
    @functools.wraps(command)
    def wrapped(
        *,
        command_type: str | None,
        code: str | None,
        since: datetime | None,
        until: datetime | None,
        contains: str | None,
        origin: Origin | None,
        **others: Any,
    ) -> None:
        query = LetterQuery(
            type=command_type,
            code=code,
            since=since,
            until=until,
            contains=None if contains is None else contains.encode(errors="surrogateescape"),
            origin=origin,
        )
        command(query=query, **others)

    return wrapped


def _command_id(value: str) -> str:
    """The id of a command whose letters are meant. Who gives a letter's number, or a lane, is told how it is said."""
    if value.isdecimal():
        raise click.BadParameter(f"{value} is no command id; the number of a letter is: --letter {value} --lane LANE")
    if value in registry().names:
        raise click.BadParameter(
            f"{value} is a lane, and no command id; its letters are: --letter NUMBER --lane {value}"
        )
    return output.command_id(value)


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """One command's letters, some by number, or all that a query finds; the command gets them as `selection`."""

    @click.argument("command_id", metavar="[ID]", required=False, type=_command_id)
    @click.option("--letter", "numbers", type=Whole(1), multiple=True, help="By its number in --lane.")
    @click.option("--all", "is_all", is_flag=True, help="Every letter in --lane that the other options choose.")
    @click.option("--lane", "sources", type=SOURCE, multiple=True, help="Only there.  [default: everywhere]")
    @filtering
    @functools.wraps(command)
    def wrapped(
        *,
        command_id: str | None,
        numbers: tuple[int, ...],
        is_all: bool,
        sources: tuple[str, ...],
        query: LetterQuery,
        **others: Any,
    ) -> None:
        if (command_id is not None) + bool(numbers) + is_all != 1:
            raise click.UsageError("name one ID, or --letter with its --lane, or --all")
        if is_all and not sources:
            raise click.UsageError("--all needs the lanes: --lane")
        if numbers and len(sources) != 1:
            raise click.UsageError("--letter needs its lane: numbers are of one lane's database")
        if not is_all and query != LetterQuery():
            raise click.UsageError("options that choose letters go with --all")
        query = msgspec.structs.replace(query, command_id=command_id)
        command(selection=Selection(sources=sources, numbers=numbers, query=query), **others)

    return wrapped


def places(sources: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """The databases to look into, each with the only target to show; those of all lanes, if none is named."""
    for name in registry().names:
        key = effects_key(name)
        if not sources or name in sources:
            yield name, None
        elif key in sources:
            yield name, key


def found(selection: Selection) -> list[Letter]:
    """The letters that are meant, as they are now, oldest first by lane. Raises Refused if one was named and is not."""
    letters: list[Letter] = []
    away: list[str] = []
    # A lane that no other try mends counts more.
    refused: type[CommandRefused] = CommandRefused
    for lane, target in places(selection.sources):
        query = msgspec.structs.replace(selection.query, target=target)
        try:
            letters += _in(lane, query, selection.numbers)
        except WrongDatabase:
            raise
        except (Unavailable, ConfigurationError) as error:
            if selection.sources:
                raise
            away.append(str(error))
            if isinstance(error, ConfigurationError):
                refused = Misused
    if selection.query.command_id is not None and not letters:
        missing = f"; not looked into: {'; '.join(away)}" if away else ""
        where = ", ".join(selection.sources) or "any lane"
        command_id = selection.query.command_id
        missing += "".join(_ends(selection.sources, lambda details: details.get("command_id") == command_id))
        raise refused(f"no dead letter of command {command_id} in {where}{missing}")
    return letters


def _in(lane: str, query: LetterQuery, numbers: tuple[int, ...]) -> list[Letter]:
    with lane_admin(lane) as admin:
        if not numbers:
            letters: list[Letter] = []
            while True:
                after = letters[-1].summary.id if letters else 0
                page = admin.letters(query, after, _PAGE_LETTERS)
                letters += [Letter(lane, summary) for summary in page]
                if len(page) < _PAGE_LETTERS:
                    return letters
        by_number = {}
        for number in dict.fromkeys(numbers):
            by_number[number] = next(iter(admin.letters(query, number - 1, 1)), None)
    missing = [number for number, each in by_number.items() if each is None or each.id != number]
    if missing:
        ends = "".join(_ends((lane,), lambda details: details.get("letter") in missing))
        raise CommandRefused(f"there is no dead letter {', '.join(map(str, missing))} of {query.target or lane}{ends}")
    return [Letter(lane, summary) for summary in by_number.values() if summary is not None]


def _ends(sources: tuple[str, ...], is_meant: Callable[[dict[str, object]], bool]) -> Iterator[str]:
    """How letters ended that are gone, as the record of what operators did has it, the latest first."""
    for lane, _ in places(sources):
        acts = list[OperatorAct]()
        # That a letter is not there is true without the record, too.
        with suppress(Unavailable, ConfigurationError), lane_admin(lane) as admin:
            acts = [act for name in _ENDING_ACTS for act in admin.acts(ActQuery(act=name), None, _ACTS_LOOKED_AT)]
        for act in sorted(acts, key=lambda act: act.id, reverse=True):
            details = msgspec.json.decode(act.details, type=dict[str, object])
            if is_meant(details):
                done = f"replayed as {details['replayed_as']}" if "replayed_as" in details else "discarded"
                yield f"; {lane}: letter {details['letter']} was {done} at {output.cell(act.done_at)} by {act.author}"


def whole(letters: list[Letter]) -> Iterator[tuple[Letter, DeadLetter]]:
    """Those of them that are still there, as whole rows."""
    for lane in dict.fromkeys(each.lane for each in letters):
        with lane_admin(lane) as admin:
            for each in letters:
                row = admin.letter(each.summary.id) if each.lane == lane else None
                if row is not None:
                    yield each, row


def summarized(letter: Letter) -> dict[str, object]:
    """A dead letter as JSON, without its large parts."""
    fields = msgspec.structs.asdict(letter.summary)
    return {"lane": letter.lane, "letter": fields.pop("id"), **fields}


def described(letter: Letter, row: DeadLetter) -> dict[str, object]:
    """A whole dead letter as JSON. Arguments that are not JSON are text in `text`, of which `kept_bytes` are there."""
    fields = summarized(letter) | {"traceback": row.traceback, "kept_bytes": len(row.arguments)}
    is_whole = row.size_bytes == len(row.arguments)
    readable = is_whole and _is_json(row.arguments)
    return fields | {
        "arguments": msgspec.Raw(row.arguments) if readable else None,
        "text": None if readable else row.arguments.decode(errors="backslashreplace"),
        "options": _options(row),
        "told": told_of(row),
    }


def print_letter(letter: Letter, row: DeadLetter) -> None:
    """A dead letter for eyes, with long arguments cut; as JSON it is whole."""
    fields = described(letter, row)
    arguments, options = fields.pop("arguments"), fields.pop("options")
    if isinstance(arguments, msgspec.Raw):
        fields["arguments"] = output.json_text(arguments)
    for name in ("arguments", "text"):
        text = fields.get(name)
        if isinstance(text, str) and len(text) > SHOWN_CHARACTERS_MAX:
            fields[name] = f"{text[:SHOWN_CHARACTERS_MAX]}… ({len(text)} characters: --json has them all)"
    for name, value in options.items() if isinstance(options, dict) else ():
        fields[name] = output.json_text(value) if isinstance(value, msgspec.Raw) else value
    if fields["told"] is not None:
        fields["told"] = f"{fields['told']}, of the failure: a replay would be applied alone"
    output.print_fields(fields)
    click.echo()


def _options(row: DeadLetter) -> dict[str, object]:
    options = Options.decode(row.options)
    known = {field.name: getattr(options, field.attribute, None) for field in OPTIONS}
    known[HEADER_REPLAYED] = options.replayed or None
    known[HEADER_ACTOR] = None if options.actor is None else msgspec.Raw(options.actor.as_json.encode())
    known[HEADER_SENDER] = options.sender
    return {name: value for name, value in known.items() if value is not None}


def _is_json(arguments: bytes) -> bool:
    if is_too_deep(arguments):
        return False
    try:
        arguments.decode()
        msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
