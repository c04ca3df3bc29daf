"""`coordinator find`: where a saga, a command or a row is, why it is stuck there, and what to do."""

import sys

import click

from coordinator.arguments import COORDINATORS, LANE, TEXT
from coordinator.exemplified import Exemplified
from coordinator.operate.finding import Finder
from coordinator.operate.found import Found, FoundCommand, FoundRow, FoundSaga
from coordinator.operate.looking import addresses_of, look_at
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.operate.output import (
    EXIT_REFUSED,
    CommandRefused,
    age,
    json_option,
    print_fields,
    print_json,
    print_table,
    refusing,
)
from coordinator.operate.places import Stop
from coordinator.registry import registry
from coordinator.service.json_text import time_for_people
from coordinator.service.text import printable


@click.command(cls=Exemplified, example="find order 17", looks=True)
@click.argument("what", nargs=-1, required=True, type=TEXT)
@click.option("--lane", type=LANE, help="Look only there.  [default: all lanes]")
@click.option("--subject", type=TEXT, help="Whose idempotency key it is.  [default: each owner of an API key]")
@click.option("--tenant", type=TEXT, help="The customer for whom he acted.")
@COORDINATORS
@json_option
@refusing
def find(
    what: tuple[str, ...],
    lane: str | None,
    subject: str | None,
    tenant: str | None,
    coordinators: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Find WHAT somebody asks for, and say where it is, why it is stuck there, and what to do.

    WHAT is an id that a person has: of a saga (`order 17`), of a row (`seats/7`, or `17` alone: every row and saga
    of this id; a name may stand behind its lane's, `seats/seats/7`; a key of several columns is `slots/kim/17`, or as
    `parked` prints it), of a command, or an idempotency key; or the value of a unique column (`seats?code=A1`); or the
    type of commands (`seats.book`), or its class (`BookSeat`): those that failed, and the last that were settled. A
    saga is followed from step to step, through the lanes, their outboxes, dead letters and parked keys, to the place
    where it stands. With the addresses of coordinators and effect workers it knows more of them: which suspended lane
    waits for what, and that a provider is away.
    Exit status 1: nothing was found, or something is away that may have it.
    """
    lanes = (lane,) if lane else registry().names
    addresses = addresses_of(coordinators)
    known = registry()
    conditions = look_at(known.names, addresses)
    finder = Finder(conditions, known.service, lane_admin, lane_api_keys)
    found = finder.find(" ".join(what), lanes, frozenset(lanes), subject, tenant)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.is_empty or found.away:
        sys.exit(EXIT_REFUSED)


def _print(found: Found) -> None:
    for saga in found.sagas:
        _print_saga(saga)
    for command in found.commands:
        click.echo(f"command {command.command_id}, lane {command.lane}")
        _print_answer(command)
        _print_stops(command.stops)
    for row in found.rows:
        click.echo(f"{row.table}/{printable(row.key)}, lane {row.lane}")
        _print_answer(row)
        if row.row is not None:
            click.echo(printable(row.row, keep="\n"))
    for text in found.away:
        click.echo(f"coordinator: not looked into: {printable(text)}", err=True)
    if found.nothing is not None:
        raise CommandRefused(found.nothing)


def _print_saga(saga: FoundSaga) -> None:
    click.echo(f"{saga.saga} {saga.id}, lane {saga.lane}: {saga.status}")
    _print_answer(saga)
    print_table(
        ("STEP", "DIRECTION", "COMMAND", "STATUS", "BEGAN", "TOOK", "COMMAND ID"),
        [
            (
                step.name,
                step.direction,
                step.command_type,
                step.status if step.error_code is None else f"{step.status}: {step.error_code}",
                step.began_at,
                f"for {age(step.began_at)}"
                if step.ended_at is None
                else f"{(step.ended_at - step.began_at).total_seconds() * 1000:.0f} ms",
                step.command_id,
            )
            for step in saga.steps
        ],
    )
    _print_stops(saga.stops)


def _print_answer(answer: FoundSaga | FoundCommand | FoundRow) -> None:
    print_fields(
        {"  where": answer.where, "  why": answer.why, "  what to do": answer.todo}
        if answer.is_stuck
        else {"  where": answer.where, "  because": answer.why}
    )


def _print_stops(stops: list[Stop]) -> None:
    for stop in stops:
        at = "" if stop.at is None else f"{time_for_people(stop.at, 'milliseconds')} "
        said = "" if stop.said is None else f": {printable(stop.said)}"
        named = "" if stop.type is None else f"{stop.type} "
        click.echo(f"  {at}{printable(named + (stop.command_id or ''))}: {printable(stop.text)}{said}")
