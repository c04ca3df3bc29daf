"""`continue`: sends the continuation of a settled command again, as its lane did.

After a restored backup a lane waits for outcomes that other lanes have told it before, and tell once only. The
continuation has the id that it had then. So where it was not lost it changes nothing, and the commands that it emits
have the ids that they had, too: the lanes that have applied them do not do so again.

A log entry does not show whether its handler put the continuation off. So an operator says where the answer is: in the
log (`--logged`), or elsewhere (`--result`, `--rejected`).
"""

import sys

import click
import msgspec

from coordinator.arguments import LANE, TEXT, Seconds
from coordinator.operate import output
from coordinator.operate.giving_orders import issue
from coordinator.operate.open import lane_admin
from coordinator.operate.output import EXIT_PENDING, EXIT_REFUSED, CommandRefused, Misused, json_option, refusing
from coordinator.operate.send import print_outcome
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.continuation import Continuation, Deferred, continued
from coordinator.service.outcome import NO_RESULT, Outcome, OutcomeError
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import from_log


@click.command("continue")
@click.argument("lane", type=LANE)
@click.argument("command_id", metavar="ID", type=output.command_id)
@click.option("--to", "continuation", required=True, type=TEXT, metavar="TYPE", help="The continuation's type.")
@click.option("--logged", "is_logged", is_flag=True, help="With the outcome that the log of LANE has.")
@click.option("--result", type=TEXT, metavar="JSON", help="As applied, with this: for an answer that came later.")
@click.option("--rejected", type=TEXT, metavar="CODE", help="As rejected, with this code: likewise.")
@click.option("--wait", "wait_s", type=Seconds(0), default=10.0, show_default=True)
@json_option
@refusing
def continue_(
    lane: str,
    command_id: str,
    continuation: str,
    result: str | None,
    rejected: str | None,
    wait_s: float,
    *,
    is_logged: bool,
    as_json: bool,
) -> None:
    """Send the continuation of command ID again, which LANE has settled, to the lane that has TYPE.

    Say --logged only where the outcome in the log is the answer. Where the command asked for a call to the outside, it
    is not: the answer came later. See what became of its row, and say it with --result or --rejected.

    Exit status 0: the continuation is applied; 1: it is rejected, for example because nobody waits for it; 3: it is not
    settled yet.
    """
    if [is_logged, result is not None, rejected is not None].count(True) != 1:
        raise Misused("say one of --logged, --result and --rejected: what came of the command")
    target = _lane_with(continuation)
    with lane_admin(lane) as admin:
        entry = admin.find(command_id)
    if entry is None:
        raise CommandRefused(f"lane {lane} has not settled command {command_id}: its continuation will come by itself")
    message = message_of(entry, continuation, outcome_of(entry, result, rejected))
    outcome = issue(target, message, wait_s)
    if outcome is None:
        click.echo(f"not settled within {wait_s:g} s: ask `coordinator command {message.command_id}`", err=True)
        sys.exit(EXIT_PENDING)
    print_outcome(target, outcome, as_json=as_json)
    sys.exit(0 if outcome.status == "applied" else EXIT_REFUSED)


def _lane_with(continuation: str) -> str:
    lanes = {
        handler.command.type: service.name
        for service in registry().services
        for handler in service.handlers
        if issubclass(handler.command, Continuation)
    }
    if continuation not in lanes:
        raise Misused(f"{continuation!r} is no continuation: there are {', '.join(sorted(lanes))}")
    return lanes[continuation]


def outcome_of(entry: LogEntry, result: str | None, rejected: str | None) -> Outcome:
    """What came of a command: as the log has it, or as an operator says."""
    logged = from_log(entry, replayed=False)
    if rejected is not None:
        error = OutcomeError(code=rejected, message="as an operator says")
        return msgspec.structs.replace(logged, status="rejected", result=NO_RESULT, error=error)
    if result is None:
        return logged
    try:
        msgspec.json.decode(result)
    except msgspec.DecodeError as error:
        raise Misused(f"--result is no JSON: {error}") from None
    return msgspec.structs.replace(logged, status="applied", result=msgspec.Raw(result.encode()), error=None)


def message_of(entry: LogEntry, continuation: str, outcome: Outcome) -> CommandMessage:
    """The continuation as its lane sends it, with this outcome."""
    deferred = Deferred(command_id=entry.command_id, type=entry.type, continuation=continuation)
    emission = continued(deferred, outcome.status, bytes(outcome.result), outcome.error)
    return CommandMessage(
        command_id=emission.command_id, type=emission.type, arguments=emission.arguments, origin="system"
    )
