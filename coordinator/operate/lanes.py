"""Commands on one lane's database: `pause`, `resume`, `cancel`, `log prune`."""

from datetime import timedelta

import click

from coordinator.arguments import LANE, Whole
from coordinator.exemplified import Exemplified, ExemplifiedGroup
from coordinator.operate import output
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.cancelling import cancel_command, check_somebodys
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    CommandRefused,
    Misused,
    json_option,
    now,
    print_json,
    refusing,
)
from coordinator.service.json_text import time_for_people
from coordinator.stores.clocks import clocks_apart

OLDER_THAN_MIN = timedelta(days=2)
"""A worker repeats a call to the outside for a day, and the other side may remember its key for another day."""
BATCH_ROWS = 5000


@click.command(cls=Exemplified, example='pause seats --reason "moving the disk"')
@click.argument("lane", type=LANE)
@click.option("--reason", required=True, type=output.reason, help="Shown by `status`.")
@json_option
@refusing
def pause(lane: str, reason: str, *, as_json: bool) -> None:
    """Stop LANE from committing, until `resume`.

    When this returns, nothing commits. Commands are still taken and wait in order; restarts change nothing.
    """
    with lane_admin(lane) as admin:
        lease = admin.pause(reason, now(), act_of(lane, "pause", reason))
    if as_json:
        print_json({"lane": lane, "paused": lease.paused, "sequence": lease.sequence, "revision": lease.revision})
    else:
        click.echo(f"{lane} is paused at sequence {lease.sequence}: {lease.paused}")


@click.command(cls=Exemplified, example="resume seats")
@click.argument("lane", type=LANE)
@reason_option
@json_option
@refusing
def resume(lane: str, reason: str | None, *, as_json: bool) -> None:
    """Let a paused LANE go on. One that is not paused stays as it is."""
    with lane_admin(lane) as admin:
        paused = admin.resume(now(), act_of(lane, "resume", reason))
    if as_json:
        print_json({"lane": lane, "was_paused": paused is not None, "reason": paused})
    else:
        click.echo(f"{lane} was not paused" if paused is None else f"{lane} goes on (it was paused: {paused})")


@click.command(
    cls=Exemplified, example='cancel 0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11 --lane seats --reason "wrong customer"'
)
@click.argument("command_id", metavar="ID", type=output.command_id)
@click.option("--lane", required=True, type=LANE)
@click.option("--reason", type=output.reason, default="no reason given", show_default=True)
@json_option
@refusing
def cancel(command_id: str, lane: str, reason: str, *, as_json: bool) -> None:
    """Keep command ID, which is not settled yet, from ever being applied.

    Exit status 0 means that LANE never will apply it: it settles it as `rejected` with the code `cancelled` when it
    comes to it, even if it is published later. Exit status 1: it is settled already, or LANE has emitted it and another
    lane is to apply it, which is named then, or it is a call to the outside.
    """
    check_somebodys(command_id)
    with lane_admin(lane) as admin:
        said = cancel_command(admin, lane, command_id, reason, act_of(lane, "cancel", reason, command_id=command_id))
    if as_json:
        print_json({"lane": lane, "command_id": command_id, "reason": reason})
    else:
        click.echo(said)


@click.group("log", cls=ExemplifiedGroup, example="log prune seats --older-than 7d --dry-run")
def log_group() -> None:
    """The command log."""


@log_group.command(example="log prune seats --older-than 7d --dry-run")
@click.argument("lane", type=LANE)
@click.option("--older-than", required=True, type=output.duration, help="Such as 7d. Under 2d it needs --force.")
@click.option("--batch-rows", type=Whole(1, 10_000), default=BATCH_ROWS, show_default=True)
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--force", is_flag=True)
@reason_option
@json_option
@refusing
def prune(  # click gives each option by its name
    lane: str,
    older_than: timedelta,
    batch_rows: int,
    reason: str | None,
    *,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Delete the log entries of LANE that were settled before so long; the latest one stays.

    Those of failed commands stay as long as their dead letters do. It looks at the whole log, in small steps.

    So do the positions of publisher sessions go that were not heard of for so long. Cancellations stay until their
    command comes, however late that is.

    The log is how a repeated id is recognised: a command published again after its entry is gone is applied AGAIN,
    unless its deadline or publisher session shows it to be old. Keep at least as long as any publisher, queue, replay
    or backup may repeat a command: 7d is a good value.
    """
    if older_than < OLDER_THAN_MIN and not force:
        raise Misused(
            f"--older-than {older_than} would forget commands that may still be repeated, and would then be applied "
            "again: name at least 2d (better 7d), or --force"
        )
    cutoff = now() - older_than
    with lane_admin(lane) as admin:
        # What is old enough must not depend on one clock that is wrong: what is forgotten may be applied again.
        if (problem := clocks_apart(lane, now(), admin.clock())) is not None:
            raise CommandRefused(f"{problem}; nothing was deleted")
        gone = publishers = 0
        if dry_run:
            gone, publishers = admin.settled_before(cutoff), admin.silent_publishers(cutoff)
        else:
            admin.record(act_of(lane, "log prune", reason, before=cutoff))
            for rows in admin.prune(cutoff, batch_rows):
                gone += rows
                if rows and not as_json:
                    click.echo(f"{gone} deleted", err=True)
            publishers = sum(admin.forget_publishers(cutoff, now(), batch_rows))
    if as_json:
        found = {"deleted": 0 if dry_run else gone, "found": gone, "publishers": publishers}
        print_json({"lane": lane, "before": cutoff, "dry_run": dry_run, **found})
    else:
        click.echo(
            f"{lane}: {gone} log entries settled before {time_for_people(cutoff)}, {publishers} publisher sessions "
            f"not seen since {'found' if dry_run else 'deleted'}"
        )
