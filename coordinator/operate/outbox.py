"""`coordinator outbox`: emitted commands that the broker has not confirmed yet."""

import click
import msgspec

from coordinator.arguments import LANE, TEXT, Whole
from coordinator.exemplified import ExemplifiedGroup
from coordinator.lane.control import WITHDRAWN_MAX, WithdrawEmitted, Withdrawn
from coordinator.operate import output
from coordinator.operate.actors import actor_of_options, named, shown_actor
from coordinator.operate.acts import reason_option
from coordinator.operate.asked_lanes import AskedLanes
from coordinator.operate.dead import wait_option
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    CommandRefused,
    json_option,
    print_json,
    print_table,
    refusing,
)
from coordinator.registry import registry
from coordinator.stores.admin import EmittedSummary
from coordinator.stores.port import Backlog

PAGE_ENTRIES = 1000


@click.group(cls=ExemplifiedGroup, example="outbox list seats")
def outbox() -> None:
    """Commands and effects that lanes have emitted, and that are not with RabbitMQ yet.

    They leave by themselves. Entries that stay name a target that takes nothing: it has no queue, or a full one.
    """


@outbox.command("list", example="outbox list seats --target effects.orders", looks=True)
@click.argument("lanes", nargs=-1, type=LANE)
@click.option("--target", type=TEXT, help="Only entries for this lane, or these effects, such as effects.orders.")
@click.option("--limit", type=Whole(0, 100_000), default=100, show_default=True, help="Entries of each lane.")
@click.option("--after", type=Whole(0), default=0, help="Only with a higher number, of one LANE.")
@json_option
@refusing
def list_outbox(lanes: tuple[str, ...], target: str | None, limit: int, after: int, *, as_json: bool) -> None:
    """List what waits in the outboxes of LANES (all, if none is named): by target, and the oldest entries."""
    if after and len(lanes) != 1:
        raise click.UsageError("--after needs one LANE: numbers are of one lane's database")
    targets: list[tuple[str, Backlog]] = []
    entries: list[tuple[str, EmittedSummary]] = []
    notes: list[str] = []
    asked = AskedLanes(are_named=bool(lanes))
    for lane in lanes or registry().names:
        read = asked.ask(lane, lambda admin: (admin.backlog(), admin.emitted(target, after, limit + 1)))
        if read is None:
            continue
        backlog, page = read
        targets += [(lane, each) for each in backlog if target in (None, each.target)]
        entries += [(lane, entry) for entry in page[:limit]]
        if len(page) > limit > 0:
            notes.append(f"there are more: coordinator outbox list {lane} --after {page[limit - 1].id}")
    asked.show(
        {"targets": [_counted(*each) for each in targets], "entries": [_entry(*each) for each in entries]},
        lambda: _print(targets, entries),
        notes,
        as_json=as_json,
        is_empty=not targets,
    )


@outbox.command(example="outbox discard seats --target nobody --all")
@click.argument("lane", type=LANE)
@click.option("--entry", "numbers", type=Whole(1), multiple=True, help="By its number in the outbox.")
@click.option("--target", type=TEXT, help="With --all: everything for this lane, or these effects.")
@click.option("--all", "is_all", is_flag=True, help="Everything for --target that is in the outbox now.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@reason_option
@wait_option
@json_option
@refusing
def discard(
    lane: str,
    numbers: tuple[int, ...],
    target: str | None,
    reason: str | None,
    wait_s: float,
    *,
    is_all: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Withdraw entries of LANE's outbox, so that they are never sent, and print them. The lane carries out this order.

    A saga or a row that waits for the result of such a command waits for ever. An entry that RabbitMQ has already is
    not found any more, and not taken back. Exit status 3: the lane has not done it yet, and will.
    """
    if is_all == bool(numbers) or is_all != (target is not None):
        raise click.UsageError("name each --entry, or --target with --all")
    entries = _meant(lane, target, numbers)
    if not as_json:
        _print([], [(lane, entry) for entry in entries])
    if dry_run:
        if as_json:
            print_json([_entry(lane, entry) for entry in entries])
        return
    withdrawn, refused, pending = _withdraw(lane, entries, reason or "", wait_s)
    if as_json:
        print_json([_entry(lane, entry) | {"withdrawn": entry.command_id in withdrawn} for entry in entries])
    else:
        click.echo(f"{lane}: {len(withdrawn)} of {len(entries)} are withdrawn")
    output.end_orders(refused, pending, wait_s)


def _withdraw(lane: str, entries: list[EmittedSummary], reason: str, wait_s: float) -> tuple[set[str], list[str], int]:
    """The ids of the commands that are withdrawn, why others are not, and how many may be yet."""
    pages = [entries[start : start + WITHDRAWN_MAX] for start in range(0, len(entries), WITHDRAWN_MAX)]
    withdrawn: set[str] = set()
    refused: list[str] = []
    pending = 0

    def on_answer(answer: OrderAnswer) -> None:
        nonlocal pending
        outcome = answer.outcome
        if outcome is None:
            pending += len(pages[answer.position])
        elif outcome.status == "applied":
            withdrawn.update(msgspec.json.decode(outcome.result, type=Withdrawn).command_ids)
        else:
            refused.append(f"{lane}: {outcome.error.code}: {outcome.error.message}" if outcome.error else lane)

    by = output.as_user()
    orders = [WithdrawEmitted(entries=[entry.id for entry in page], by=by, reason=reason) for page in pages]
    give(lane, orders, wait_s, on_answer)
    return withdrawn, refused, pending


def _meant(lane: str, target: str | None, numbers: tuple[int, ...]) -> list[EmittedSummary]:
    entries: list[EmittedSummary] = []
    with lane_admin(lane) as admin:
        if numbers:
            for number in dict.fromkeys(numbers):
                entries += [entry for entry in admin.emitted(None, number - 1, 1) if entry.id == number]
            missing = sorted(set(numbers) - {entry.id for entry in entries})
            if missing:
                raise CommandRefused(
                    f"the outbox of {lane} has no entry {', '.join(map(str, missing))}: sent meanwhile?"
                )
            return entries
        while True:
            page = admin.emitted(target, entries[-1].id if entries else 0, PAGE_ENTRIES)
            entries += page
            if len(page) < PAGE_ENTRIES:
                return entries


def _print(targets: list[tuple[str, Backlog]], entries: list[tuple[str, EmittedSummary]]) -> None:
    if targets:
        columns = ("LANE", "TARGET", "ENTRIES", "OLDEST")
        print_table(columns, [(lane, each.target, each.rows, output.age(each.oldest_at)) for lane, each in targets])
        click.echo()
    print_table(
        ("LANE", "ENTRY", "TARGET", "COMMAND ID", "TYPE", "AGE", "CONTINUATION", "ACTOR"),
        [
            (
                lane,
                each.id,
                each.target,
                each.command_id,
                each.type,
                output.age(each.created_at),
                each.continuation,
                named(actor_of_options(each.options)),
            )
            for lane, each in entries
        ],
    )


def _counted(lane: str, each: Backlog) -> dict[str, object]:
    return {"lane": lane, "target": each.target, "entries": each.rows, "oldest_at": each.oldest_at}


def _entry(lane: str, entry: EmittedSummary) -> dict[str, object]:
    fields = msgspec.structs.asdict(entry)
    actor = shown_actor(fields.pop("options"))
    return {"lane": lane, "entry": fields.pop("id"), **fields, "actor": actor}
