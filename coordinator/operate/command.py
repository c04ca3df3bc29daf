"""`coordinator command`: what all lanes know of one command."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import click
import msgspec

from coordinator.arguments import COORDINATORS, LANE
from coordinator.client.timeline import Moment, Related, Timeline
from coordinator.exemplified import Exemplified
from coordinator.operate import output
from coordinator.operate.actors import named
from coordinator.operate.following import Conditions, unsettled_words
from coordinator.operate.looking import addresses_of, look_at
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, json_option, print_fields, print_json, refusing
from coordinator.operate.reasons import with_reason_in
from coordinator.operate.relatives import emitter_of, with_relatives
from coordinator.operate.timelines import emitted_timeline, queued_timeline, timeline_in
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.text import printable
from coordinator.stores.admin import LaneAdmin, proved_entry
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.one_lane import WrongDatabase

_Found = tuple[Timeline, LogEntry | None]


@click.command("command", cls=Exemplified, example="command 0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11", looks=True)
@click.argument("command_id", metavar="ID", type=output.command_id)
@click.option("--lane", type=LANE, help="Look only there.  [default: all lanes]")
@COORDINATORS
@json_option
@refusing
def show_command(command_id: str, lane: str | None, coordinators: tuple[str, ...], *, as_json: bool) -> None:
    """Show where command ID stands, its outcome, and when it was received, delivered, applied and committed.

    It looks in the log, at parked keys and dead letters, in outboxes and at timers. Times are in ms since the request;
    `clock` says by whose clock each is. Exit status 1: it is not settled, or a failover to a
    synchronous standby could lose it, as far as is known; the last line says where it waits. With the addresses of
    coordinators and effect workers it knows more of why.
    """
    found, away, conditions = _find(command_id, lane, addresses_of(coordinators))
    shown = [_fields(timeline, entry) for timeline, entry in found]
    if as_json:
        if shown:
            print_json(shown[0] if len(shown) == 1 else shown)
    else:
        _print(found, shown)
    if any(entry is not None for _, entry in found):
        # What led to it, or what it led to, may be there.
        for text in away:
            click.echo(f"coordinator: not looked into: {printable(text)}", err=True)
    else:
        raise CommandRefused(_refusal(command_id, [timeline for timeline, _ in found], away, conditions))


def _find(command_id: str, lane: str | None, addresses: Sequence[str]) -> tuple[list[_Found], list[str], Conditions]:
    """What lanes know of it, the servers that are away, and how lanes do, where that was asked.

    Raises ConfigurationError only for a lane that is named.
    """
    away: list[str] = []
    there = _named(lane)
    with ExitStack() as stack:
        admins: dict[str, LaneAdmin] = {}
        for name in _named(lane):
            try:
                admin = stack.enter_context(lane_admin(name))
                admin.sequence()
            except WrongDatabase:
                raise
            except (Unavailable, ConfigurationError) as error:
                if isinstance(error, ConfigurationError):
                    if lane:
                        raise
                    there.remove(name)
                away.append(str(error))
            else:
                admins[name] = admin
        found = _known(command_id, admins, {})
        if any(entry is not None for _, entry in found):
            return [(with_relatives(timeline, admins), entry) for timeline, entry in found], away, {}
        # How lanes do takes a while to find out, and tells why a command waits.
        conditions = look_at(there, addresses) if found or not away else {}
        if found:
            return _known(command_id, admins, conditions), away, conditions
        emitted = emitter_of(command_id, None, admins)
        if emitted is not None:
            # The lane for which it is may be the one that is away.
            conditions = conditions or look_at(there, addresses)
            return [(emitted_timeline(emitted, conditions), None)], away, conditions
    return [(queued_timeline(condition, command_id), None) for condition in conditions.values()], away, conditions


def _known(command_id: str, admins: Mapping[str, LaneAdmin], conditions: Conditions) -> list[_Found]:
    timelines = [timeline_in(admin, name, command_id, conditions) for name, admin in admins.items()]
    return [
        (timeline, None if timeline.sequence is None else _entry(admin, command_id))
        for timeline, admin in zip(timelines, admins.values(), strict=True)
        if timeline is not None
    ]


def _named(lane: str | None) -> list[str]:
    return [lane] if lane else list(registry().names)


def _refusal(command_id: str, found: Sequence[Timeline], away: Sequence[str], conditions: Conditions) -> str:
    if away:
        return f"command {command_id} is not found where it can be looked for; {'; '.join(away)}"
    known = [timeline for timeline in found if timeline.standing not in ("unknown", "queued")]
    if known:
        words = (known[0].where, known[0].why, known[0].todo)
        return f"command {command_id}: {'; '.join(each for each in words if each is not None)}"
    return unsettled_words(command_id, conditions.values())


def _entry(admin: LaneAdmin, command_id: str) -> LogEntry | None:
    entry = proved_entry(admin, command_id)
    return None if entry is None else with_reason_in(admin, entry)


def _fields(timeline: Timeline, entry: LogEntry | None) -> dict[str, object]:
    """The entry of the log, as ever, and its timeline."""
    fields: dict[str, object] = {
        "lane": timeline.lane,
        "command_id": timeline.command_id,
        "type": timeline.type,
        "status": timeline.standing,
    }
    if entry is not None:
        fields |= {
            "sequence": entry.sequence,
            "epoch": entry.epoch,
            "settled_at": entry.settled_at,
            "error_code": entry.error_code,
            "error_message": entry.error_message,
            "result": None if entry.result is None else msgspec.json.decode(entry.result),
            "fingerprint": entry.fingerprint,
        }
    return fields | {"actor": timeline.actor, "timeline": timeline}


def _print(found: Sequence[_Found], shown: Sequence[dict[str, object]]) -> None:
    for place, ((timeline, _), fields) in enumerate(zip(found, shown, strict=True)):
        if place:
            click.echo()
        batch = None if timeline.batch_size is None else f"{timeline.place} of {timeline.batch_size}"
        print_fields(
            fields
            | {
                "actor": named(timeline.actor),
                "timeline": None,
                "where": timeline.where,
                "why": timeline.why,
                "what to do": timeline.todo,
                "waiting before": timeline.waiting_before,
                "batch": batch,
                "attempts": timeline.attempts,
                "consumer": timeline.consumer,
                "dead letters": ", ".join(map(str, timeline.letters)) or None,
                "parent": None if timeline.parent is None else _related(timeline.parent),
                "children": "\n".join(_children(timeline)) or None,
                "moments": "\n".join(map(_moment, timeline.moments)) or None,
                "clocks": timeline.clocks,
            }
        )


def _moment(each: Moment) -> str:
    latest = " at the latest" if each.at_latest else ""
    return f"{each.ms:>10.1f} ms  {each.name}{latest} ({each.clock}'s clock)"


def _children(timeline: Timeline) -> list[str]:
    more = [f"and {timeline.unnamed_children} more"] if timeline.unnamed_children else []
    return [*map(_related, timeline.children), *more]


def _related(each: Related) -> str:
    parts = (each.how, each.lane, each.type, each.command_id, each.standing)
    return " ".join(part for part in parts if part is not None)
