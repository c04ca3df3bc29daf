"""`coordinator parked`, `coordinator release`: commands that wait for their key behind one that failed."""

from collections.abc import Sequence
from datetime import datetime

import click
import msgspec
from msgspec import Struct

from coordinator.arguments import LANE, TEXT
from coordinator.exemplified import Exemplified
from coordinator.lane.control import Release
from coordinator.operate.actors import actor_of_text, named
from coordinator.operate.acts import reason_option
from coordinator.operate.asked_lanes import AskedLanes
from coordinator.operate.dead import wait_option
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    CommandRefused,
    as_user,
    end_orders,
    json_option,
    print_json,
    print_table,
    refusing,
)
from coordinator.protocol.actors import Logged
from coordinator.registry import registry
from coordinator.service.text import counted
from coordinator.stores.admin import LaneAdmin, ParkedSummary


class ParkedKey(Struct, frozen=True, kw_only=True):
    """A key for which commands wait, by id, behind one that failed.

    `actor` asked for the failed one, and `waiting_actors` by place for those that wait; None: nobody who is known.
    """

    ordering_key: str
    failed_id: str
    error_code: str | None
    parked_at: datetime
    waiting: list[str]
    actor: Logged | None
    waiting_actors: list[Logged | None]


@click.command(cls=Exemplified, example="parked seats", looks=True)
@click.argument("lanes", nargs=-1, type=LANE)
@json_option
@refusing
def parked(lanes: tuple[str, ...], *, as_json: bool) -> None:
    """List the keys of LANES (all, if none is named) for which commands wait, and behind which failed command.

    ACTOR is who asked for the failed one; --json also says who asked for those that wait. `dead replay` of the failed
    command, `dead discard`, or `release` of the key lets them go on.
    """
    asked = AskedLanes(are_named=bool(lanes))
    found = [(lane, key) for lane in lanes or registry().names for key in asked.ask(lane, _keys_in) or []]

    def table() -> None:
        print_table(
            ("LANE", "KEY", "BEHIND COMMAND", "REASON", "SINCE", "WAITING", "ACTOR"),
            [
                (
                    lane,
                    key.ordering_key,
                    key.failed_id,
                    key.error_code,
                    key.parked_at,
                    len(key.waiting),
                    named(key.actor),
                )
                for lane, key in found
            ],
        )

    shown = [{"lane": lane} | msgspec.to_builtins(key) for lane, key in found]
    asked.show(shown, table, as_json=as_json, is_empty=not found)


@click.command(cls=Exemplified, example="release seats 'seats.id=1'")
@click.argument("lane", type=LANE)
@click.argument("ordering_key", metavar="KEY", type=TEXT)
@reason_option
@wait_option
@json_option
@refusing
def release(lane: str, ordering_key: str, reason: str | None, wait_s: float, *, as_json: bool) -> None:
    """Let the commands of LANE that wait for KEY go on, as if the failed one before them were not there.

    KEY is as `parked` prints it. The failed command stays failed, and its dead letter, or its replay on the way, stays
    too. It is an order, which the lane carries out. Exit status 3: the lane has not done it yet, and will.
    """
    with lane_admin(lane) as admin:
        key = key_named(admin, ordering_key)
    if key is None:
        raise CommandRefused(
            f"no command of {lane} waits for {ordering_key!r}: `coordinator parked {lane}` has the keys"
        )
    answers: list[OrderAnswer] = []
    ordering_key = key.ordering_key
    order = Release(ordering_key=ordering_key, command_id=key.failed_id, by=as_user(), reason=reason or "")
    give(lane, [order], wait_s, answers.append)
    outcome = answers[0].outcome
    if as_json:
        status = "pending" if outcome is None else outcome.status
        print_json({"lane": lane, "status": status} | msgspec.to_builtins(key))
    elif outcome is not None and outcome.status == "applied":
        click.echo(f"{lane}: {ordering_key} is released; {counted(len(key.waiting), 'command')} waited for it")
    error = None if outcome is None else outcome.error
    refused = [] if error is None else [f"{lane}: {ordering_key} still waits: {error.code}: {error.message}"]
    end_orders(refused, int(outcome is None), wait_s)


def _keys_in(admin: LaneAdmin) -> list[ParkedKey]:
    return _keys(admin.parked())


def key_named(admin: LaneAdmin, ordering_key: str) -> ParkedKey | None:
    """One key, as it is or as it is shown, with escapes in its JSON; None: no command waits for it."""
    for text in dict.fromkeys((ordering_key, _as_it_is(ordering_key))):
        keys = _keys(admin.parked(key=text))
        if (found := next((key for key in keys if key.ordering_key == text), None)) is not None:
            return found
    return None


def _as_it_is(ordering_key: str) -> str:
    """A key with its value as lanes write it: what shows it escapes what nobody sees (`printable`)."""
    names, sign, value = ordering_key.partition("=")
    try:
        return f"{names}{sign}{msgspec.json.encode(msgspec.json.decode(value)).decode()}"
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The digest of a long one, say.
        return ordering_key


def key_of_command(admin: LaneAdmin, command_id: str) -> ParkedKey | None:
    """The key for which a command waits, or keeps others waiting; None: it does neither."""
    return next(iter(_keys(admin.parked(command_id=command_id))), None)


def waiters(key: ParkedKey) -> str:
    """How many commands wait for a key, in words."""
    return counted(len(key.waiting), "command waits", "commands wait")


def _keys(rows: Sequence[ParkedSummary]) -> list[ParkedKey]:
    waiting: dict[str, list[ParkedSummary]] = {}
    for row in rows:
        if row.error_code is None:
            waiting.setdefault(row.ordering_key, []).append(row)
    return [
        ParkedKey(
            ordering_key=row.ordering_key,
            failed_id=row.command_id,
            error_code=row.error_code,
            parked_at=row.parked_at,
            waiting=[each.command_id for each in waiting.get(row.ordering_key, ())],
            actor=actor_of_text(row.actor),
            waiting_actors=[actor_of_text(each.actor) for each in waiting.get(row.ordering_key, ())],
        )
        for row in rows
        if row.error_code is not None
    ]
