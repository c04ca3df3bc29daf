"""`coordinator timers`: commands that wait for their time."""

import click
import msgspec

from coordinator.arguments import LANE, TEXT, Whole
from coordinator.exemplified import ExemplifiedGroup
from coordinator.lane.control import WITHDRAWN_MAX, CancelTimers, TimersCancelled
from coordinator.operate import output
from coordinator.operate.actors import actor_of_options, named, shown_actor
from coordinator.operate.acts import reason_option
from coordinator.operate.asked_lanes import AskedLanes
from coordinator.operate.dead import wait_option
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, json_option, print_json, print_table, refusing
from coordinator.registry import registry
from coordinator.stores.admin import TimerSummary

PAGE_TIMERS = 1000


@click.group(cls=ExemplifiedGroup, example="timers list seats")
def timers() -> None:
    """Commands and effects that handlers have emitted for later: rows of their lane's database until they are due."""


@timers.command("list", example="timers list seats --limit 20", looks=True)
@click.argument("lanes", nargs=-1, type=LANE)
@click.option("--limit", type=Whole(1, 100_000), default=100, show_default=True, help="Timers of each lane.")
@click.option("--after", type=TEXT, default="", help="Only those behind the one with this key, of one LANE.")
@json_option
@refusing
def list_timers(lanes: tuple[str, ...], limit: int, after: str, *, as_json: bool) -> None:
    """List the timers of LANES (all, if none is named), the first that is due first.

    One with a command under UNLESS ANSWERED is a limit: it says that there was no answer to that command in time.
    """
    if after and len(lanes) != 1:
        raise click.UsageError("--after needs one LANE: keys are of one lane's database")
    found: list[tuple[str, TimerSummary]] = []
    notes: list[str] = []
    asked = AskedLanes(are_named=bool(lanes))
    for lane in lanes or registry().names:
        page = asked.ask(lane, lambda admin: admin.timers(after, limit + 1)) or []
        found += [(lane, timer) for timer in page[:limit]]
        if len(page) > limit:
            notes.append(f"there are more: coordinator timers list {lane} --after {page[limit - 1].id}")
    asked.show([_shown(*each) for each in found], lambda: _print(found), notes, as_json=as_json, is_empty=not found)


@timers.command("cancel", example="timers cancel seats 0b0e7b6e-6d4e-8a57-9a5e-3f5d9f3c9b11")
@click.argument("lane", type=LANE)
@click.argument("commands", metavar="COMMAND_ID...", nargs=-1, required=True, type=TEXT)
@reason_option
@wait_option
@json_option
@refusing
def cancel_timers(lane: str, commands: tuple[str, ...], reason: str | None, wait_s: float, *, as_json: bool) -> None:
    """Take back the timers of LANE that have these command ids, so that the commands are never sent.

    The lane carries out this order. A timer whose time has come is not found any more, and not taken back: its command
    is on its way, and `coordinator cancel` keeps it from being applied. Whoever has set it is not told. Exit status 3:
    the lane has not done it yet, and will.
    """
    meant = _meant(lane, {command.lower() for command in commands})
    by = output.as_user()
    orders = [
        CancelTimers(timers=[timer.id for timer in meant[start : start + WITHDRAWN_MAX]], by=by, reason=reason or "")
        for start in range(0, len(meant), WITHDRAWN_MAX)
    ]
    cancelled: set[str] = set()
    refused: list[str] = []
    pending = 0

    def on_answer(answer: OrderAnswer) -> None:
        nonlocal pending
        outcome = answer.outcome
        if outcome is None:
            pending += len(orders[answer.position].timers)
        elif outcome.status == "applied":
            cancelled.update(msgspec.json.decode(outcome.result, type=TimersCancelled).command_ids)
        else:
            refused.append(f"{lane}: {outcome.error.code}: {outcome.error.message}" if outcome.error else lane)

    give(lane, orders, wait_s, on_answer)
    if as_json:
        print_json([_shown(lane, timer) | {"cancelled": timer.command_id in cancelled} for timer in meant])
    else:
        _print([(lane, timer) for timer in meant])
        click.echo(f"{lane}: {len(cancelled)} of {len(meant)} are taken back")
    output.end_orders(refused, pending, wait_s)


def _meant(lane: str, ids: set[str]) -> list[TimerSummary]:
    found: list[TimerSummary] = []
    after = ""
    with lane_admin(lane) as admin:
        while page := admin.timers(after, PAGE_TIMERS):
            found += [timer for timer in page if timer.command_id in ids]
            after = page[-1].id
    missing = sorted(ids - {timer.command_id for timer in found})
    if missing:
        text = f"no timer of {lane} has the command id {', '.join(map(ascii, missing))}"
        raise CommandRefused(f"{text}: `coordinator timers list {lane}` has those that wait; was it due meanwhile?")
    return found


def _print(found: list[tuple[str, TimerSummary]]) -> None:
    print_table(
        ("LANE", "DUE", "TARGET", "COMMAND ID", "TYPE", "SET", "UNLESS ANSWERED", "ACTOR"),
        [
            (
                lane,
                timer.due_at,
                timer.target,
                timer.command_id,
                timer.type,
                timer.set_at,
                "" if timer.about == timer.command_id else timer.about,
                named(actor_of_options(timer.options)),
            )
            for lane, timer in found
        ],
    )


def _shown(lane: str, timer: TimerSummary) -> dict[str, object]:
    fields = msgspec.structs.asdict(timer)
    actor = shown_actor(fields.pop("options"))
    return {"lane": lane, **fields, "actor": actor}
