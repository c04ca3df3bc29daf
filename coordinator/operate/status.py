"""`coordinator status`: every lane at a glance, once or again and again. It shows which servers are away."""

import sys
from functools import partial
from typing import Final

import click

from coordinator.arguments import COORDINATORS, LANE, Seconds
from coordinator.exemplified import Exemplified
from coordinator.operate.effects_conditions import EffectsCondition
from coordinator.operate.lane_status import LaneLooks, LaneStatus
from coordinator.operate.looking import addresses_of, look_and_note
from coordinator.operate.move_status import in_words
from coordinator.operate.output import EXIT_REFUSED, age, json_option, now, print_fields, print_json, print_table, quiet
from coordinator.operate.repeating import Screen, numbered, rounds_option, until_interrupted
from coordinator.registry import registry
from coordinator.service.json_text import time_for_people
from coordinator.service.text import counted
from coordinator.stores.admin import FAILED_AMONG

WATCHED_S_MIN: Final = 0.1
_AWAY: Final = frozenset({"provider_away", "no_worker"})
"""Of calls to the outside: none is answered."""


@click.command(cls=Exemplified, example="status --watch", looks=True)
@click.argument("lanes", nargs=-1, type=LANE)
@click.option("--sample-s", type=Seconds(0, 60), default=1.0, show_default=True, help="How long to measure the rate.")
@click.option("--watch", is_flag=True, help="Again and again, each time after --sample-s, until Ctrl-C.")
@rounds_option
@COORDINATORS
@json_option
def status(
    lanes: tuple[str, ...],
    sample_s: float,
    rounds: int | None,
    coordinators: tuple[str, ...],
    *,
    watch: bool,
    as_json: bool,
) -> None:
    """Show LANES (all, if none is named): who holds them, how far they are, what waits, what failed.

    DEAD are its dead letters, PARKED the commands that wait for their key behind one of them (`parked` lists the keys),
    OUTBOX what it has emitted and RabbitMQ has not confirmed.
    READY are messages in the queue that no coordinator holds yet; up to LANE_PREFETCH more are with the active one. A
    paused lane keeps those that it has: `held` says how many, with the coordinator's address.
    CONSUMERS are counted by RabbitMQ, which (3.10) counts the active one and no standby. With RABBITMQ_ADMIN_URL each
    lane has the members of its queue, its leader, and whether a majority is online, and what policies do to its queues
    by which they would lose messages. With the addresses of coordinators and effect workers it also knows why a lane is
    suspended, and that a provider is away. Exit status 1: something is away; the rest is shown. With --watch and --json
    each line is one JSON value, and the status is that of the last.
    """
    quiet()
    if rounds is not None and not watch:
        raise click.UsageError("--rounds is for --watch")
    if watch and sample_s < WATCHED_S_MIN:
        raise click.BadParameter(
            f"with --watch it is at least {WATCHED_S_MIN:g}: each round asks all servers.", param_hint="'--sample-s'"
        )
    addresses = addresses_of(coordinators)
    found: list[LaneStatus] = []
    silent: list[str] = []
    screen = Screen(is_plain=as_json or not watch)
    with LaneLooks(lanes or registry().names) as looks, until_interrupted():
        for _ in numbered(rounds if watch else 1):
            found, silent = look_and_note(looks, sample_s, addresses)
            show = partial(print_json, found) if as_json else partial(_print, found, silent)
            screen.show(f"every {sample_s:g} s; Ctrl-C ends it", show)
    if silent and as_json:
        click.echo("\n".join(silent), err=True)
    if silent or any(lane.errors or (lane.effects is not None and lane.effects.state in _AWAY) for lane in found):
        sys.exit(EXIT_REFUSED)


def _held(status: LaneStatus) -> str | None:
    """What a paused lane keeps of what was delivered to it, beside READY."""
    if not status.is_paused or not status.consumers:
        return None
    if status.held is None:
        return "up to LANE_PREFETCH messages more; how many its coordinator knows: --coordinator URL"
    return counted(status.held, "message more", "messages more")


def _holder(status: LaneStatus) -> str | None:
    if status.holder is None or status.taken_at is None:
        return status.holder
    return f"{status.holder}, since {time_for_people(status.taken_at)}"


def _effects(effects: EffectsCondition) -> str:
    parts = [effects.state.replace("_", " ") if effects.why is None else effects.why]
    if effects.waiting is not None:
        parts.append(f"{effects.waiting} wait")
    if effects.under_way is not None:
        parts.append(f"{effects.under_way} under way")
    if effects.oldest_s:
        parts.append(f"the oldest for {effects.oldest_s:.0f} s")
    return ", ".join(parts)


def _parked(status: LaneStatus) -> str | None:
    if not status.parked_keys or status.parked is None:
        return None
    keys = counted(status.parked_keys, "key")
    return f"{counted(status.parked, 'command waits', 'commands wait')} for {keys} (`coordinator parked {status.lane}`)"


def _timers(status: LaneStatus) -> str | None:
    if not status.timers or status.next_timer_at is None:
        return None
    when = time_for_people(status.next_timer_at)
    overdue = f", {age(status.next_timer_at)} ago" if status.next_timer_at < now() else ""
    return f"{counted(status.timers, 'waits', 'wait')}, the next is due at {when}{overdue}"


def _failed(status: LaneStatus) -> str | None:
    failed = status.last_failed
    if failed is not None:
        gone = " (its dead letter is gone: replayed, or discarded)" if failed.letter is None else ""
        return f"{failed.command_id} {failed.type}: {failed.code}: {failed.message}{gone}"
    return f"none of the last {FAILED_AMONG}" if (status.sequence or 0) > FAILED_AMONG else None


def _print(found: list[LaneStatus], silent: list[str]) -> None:
    columns = (
        *("LANE", "STATE", "EPOCH", "SEQUENCE", "READY", "CONSUMERS", "DEAD", "PARKED", "OUTBOX"),
        *("RATE/S", "LAG S", "LAST SETTLED"),
    )
    print_table(
        columns,
        [
            (
                status.lane,
                status.state,
                status.epoch,
                status.sequence,
                status.ready,
                status.consumers,
                status.dead_letters,
                status.parked,
                None if status.outbox is None else sum(each.entries for each in status.outbox),
                status.rate,
                status.lag_s,
                status.last_settled_at,
            )
            for status in found
        ],
    )
    for status in found:
        click.echo(f"\n{status.lane}")
        # Of a suspended one it stands above, as why.
        away = [each for each in status.errors if status.state != "suspended" or each != status.why]
        print_fields(
            {
                "  holder": _holder(status),
                "  paused": status.why if status.state == "paused" else status.paused,
                "  queue": status.queue and str(status.queue),
                "  policies": "\n".join(status.policies or []) or None,
                "  held": _held(status),
                "  full": status.full,
                "  move": None if status.move is None else in_words(status.move),
                # Of a paused one it stands above, under the same name.
                **({} if status.is_paused or status.why in away else {f"  {status.state}": status.why}),
                "  calls outside": None if status.effects is None else _effects(status.effects),
                "  parked": _parked(status),
                "  outbox": "\n".join(
                    f"{each.entries} for {each.target}, the oldest for {age(each.oldest_at)}"
                    for each in status.outbox or []
                )
                or None,
                "  timers": _timers(status),
                "  dead, not taken in": status.dead_in_broker or None,
                "  last failed": _failed(status),
                "  forget": "\n".join(
                    f"asked for {age(each.asked_at)} ago: {each.where} (order {each.order})"
                    for each in status.forgets or []
                )
                or None,
                "  away": "\n".join(away) or None,
            }
        )
    if silent:
        click.echo()
        print_fields({"away": "\n".join(silent)})
