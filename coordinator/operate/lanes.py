"""Commands on one lane's database: `pause`, `resume`, `cancel`, `command`, `log prune`."""

from datetime import timedelta

import click
import msgspec

from coordinator.arguments import LANE, Whole
from coordinator.exemplified import Exemplified, ExemplifiedGroup
from coordinator.operate import output
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    CommandRefused,
    Misused,
    json_option,
    now,
    print_fields,
    print_json,
    refusing,
)
from coordinator.operate.parked import keys_of
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.ids import NOBODYS_WORDS, is_nobodys_id
from coordinator.stores.clocks import clocks_apart
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.one_lane import WrongDatabase

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

    Exit status 0 means that it never will be: LANE settles it as `rejected` with the code `cancelled` when it comes to
    it, even if it is published later. Exit status 1: it is settled already.
    """
    if is_nobodys_id(command_id):
        raise Misused(f"{command_id} is {NOBODYS_WORDS}")
    with lane_admin(lane) as admin:
        settled = admin.cancel(command_id, reason, now(), act_of(lane, "cancel", reason, command_id=command_id))
    if settled is not None:
        raise CommandRefused(
            f"command {command_id} is settled already, as {settled.status} with sequence {settled.sequence}: "
            "it cannot be cancelled any more"
        )
    if as_json:
        print_json({"lane": lane, "command_id": command_id, "reason": reason})
    else:
        click.echo(f"command {command_id} will not be applied")


@click.command("command", cls=Exemplified, example="command 0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11")
@click.argument("command_id", metavar="ID", type=output.command_id)
@click.option("--lane", type=LANE, help="Look only there.  [default: all lanes]")
@json_option
@refusing
def show_command(command_id: str, lane: str | None, *, as_json: bool) -> None:
    """Show the outcome of command ID: its entry in the command log."""
    found, away = find_logged(command_id, lane)
    if not found:
        if away:
            raise CommandRefused(f"command {command_id} is not found where it can be looked for; {'; '.join(away)}")
        waits = [wait for wait in (_wait_of(command_id, name) for name in _named(lane)) if wait is not None]
        if waits:
            raise CommandRefused(waits[0])
        raise CommandRefused(
            f"command {command_id} is not settled in {lane or 'any lane'}: it waits in a queue, was never published, "
            "or is older than the log"
        )
    entries = [_entry_fields(name, entry) for name, entry in found]
    if as_json:
        print_json(entries[0] if len(entries) == 1 else entries)
        return
    for fields in entries:
        print_fields(fields)


def find_logged(command_id: str, lane: str | None) -> tuple[list[tuple[str, LogEntry]], list[str]]:
    """The log entries of this id by lane, and the servers that are away.

    Raises ConfigurationError only for a lane that is named.
    """
    found: list[tuple[str, LogEntry]] = []
    away: list[str] = []
    for name in _named(lane):
        try:
            with lane_admin(name) as admin:
                entry = admin.find(command_id)
        except WrongDatabase:
            raise
        except (Unavailable, ConfigurationError) as error:
            if lane and isinstance(error, ConfigurationError):
                raise
            away.append(str(error))
        else:
            if entry is not None:
                found.append((name, entry))
    return found, away


def _named(lane: str | None) -> list[str]:
    return [lane] if lane else list(registry().names)


def _wait_of(command_id: str, lane: str) -> str | None:
    """The failed command behind which this one waits with the same key, in words; None if it does not."""
    for key in keys_of(lane):
        if command_id in key.waiting:
            return (
                f"command {command_id} is not settled in {lane}: it waits for {key.ordering_key}, behind command "
                f"{key.failed_id}, which failed ({key.error_code}): replay or discard that (`coordinator dead`), "
                "or release the key (`coordinator release`)"
            )
    return None


def _entry_fields(lane: str, entry: LogEntry) -> dict[str, object]:
    return {
        "lane": lane,
        "command_id": entry.command_id,
        "type": entry.type,
        "status": entry.status,
        "sequence": entry.sequence,
        "epoch": entry.epoch,
        "settled_at": entry.settled_at,
        "actor": None if entry.actor is None else msgspec.json.decode(entry.actor),
        "error_code": entry.error_code,
        "error_message": entry.error_message,
        "result": None if entry.result is None else msgspec.json.decode(entry.result),
        "fingerprint": entry.fingerprint,
    }


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
            f"{lane}: {gone} log entries settled before {cutoff:%Y-%m-%d %H:%M:%SZ}, {publishers} publisher sessions "
            f"not seen since {'found' if dry_run else 'deleted'}"
        )
