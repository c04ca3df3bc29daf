"""`continue`: sends the continuation of a settled command again, as its lane did.

After a restored backup a lane waits for outcomes that other lanes have told it before, and tell once only. The
continuation has the id that it had then. So where the lane has it already it changes nothing, and the commands that it
emits have the ids that they had, too: the lanes that have applied them do not do so again.

A log entry does not show whether its handler put the continuation off. So an operator says where the answer is: in the
log (`--logged`), or elsewhere (`--result`, `--rejected`).
"""

import sys

import click

from coordinator.arguments import LANE, TEXT, Seconds
from coordinator.exemplified import Exemplified
from coordinator.operate import output
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.answers import (
    check_fits,
    check_not_awaited,
    check_not_on_its_way,
    check_said,
    check_sendable,
    outcome_of,
)
from coordinator.operate.giving_orders import issue
from coordinator.operate.open import lane_admin
from coordinator.operate.output import EXIT_PENDING, EXIT_REFUSED, CommandRefused, Misused, json_option, refusing
from coordinator.operate.places import known_in, stops_of
from coordinator.operate.send import print_outcome
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.continuation import Continuation, Deferred, continued
from coordinator.service.lane_names import lane_of, tenant_of
from coordinator.service.outcome import Outcome
from coordinator.stores.admin import LaneAdmin, proved_entry
from coordinator.stores.lane_tables import LogEntry


@click.command(
    "continue",
    cls=Exemplified,
    example="continue orders 81f2c6d4-3c1b-8d0e-9b57-2a4f6e8c0d13 --to seats.continue_sale --logged",
)
@click.argument("lane", type=LANE)
@click.argument("command_id", metavar="ID", type=output.command_id)
@click.option("--to", "continuation", required=True, type=TEXT, metavar="TYPE", help="The continuation's type.")
@click.option("--logged", "is_logged", is_flag=True, help="With the outcome that the log of LANE has.")
@click.option("--result", type=TEXT, metavar="JSON", help="As applied, with this: for an answer that came later.")
@click.option("--rejected", type=TEXT, metavar="CODE", help="As rejected, with this code: likewise.")
@click.option(
    "--even-if-awaited", is_flag=True, help="Though a row of LANE waits for the answer: for one that never comes."
)
@reason_option
@click.option("--wait", "wait_s", type=Seconds(0), default=10.0, show_default=True)
@json_option
@refusing
def continue_(
    lane: str,
    command_id: str,
    continuation: str,
    result: str | None,
    rejected: str | None,
    reason: str | None,
    wait_s: float,
    *,
    is_logged: bool,
    even_if_awaited: bool,
    as_json: bool,
) -> None:
    """Send the continuation of command ID again, which LANE has settled, to the lane that has TYPE.

    Say --logged only where the outcome in the log is the answer. Where the command asked for a call to the outside, it
    is not: the answer came later. See what became of its row, and say it with --result, the whole row as the lane would
    have sent it, or with --rejected.

    Everything is checked first, since what is sent takes the continuation's id: after a wrong answer the right one is
    refused. A command whose answer is still to come is refused too.

    Exit status 0: the continuation is applied; 1: nothing was sent, or it is rejected, for example because nobody waits
    for it; 2: the options are wrong, and nothing was sent; 3: it is not settled yet.
    """
    if [is_logged, result is not None, rejected is not None].count(True) != 1:
        raise Misused("say one of --logged, --result and --rejected: what came of the command")
    check_said(result, rejected)
    model = _continuation(continuation)
    target = lane_of(model.lane(), tenant_of(lane))
    with lane_admin(lane) as admin:
        entry = proved_entry(admin, command_id)
        if entry is None:
            raise CommandRefused(_unsettled(admin, lane, command_id))
        service = registry().service(lane)
        check_fits(entry, service, result, rejected)
        message = message_of(entry, continuation, outcome_of(entry, result, rejected))
        check_sendable(message, model)
        if not even_if_awaited:
            check_not_awaited(admin, service, entry, continuation)
        check_not_on_its_way(admin, lane, target, message)
        admin.record(act_of(lane, "continue", reason, command_id=command_id, to=continuation))
    outcome = issue(target, message, wait_s)
    if outcome is None:
        click.echo(f"not settled within {wait_s:g} s: ask `coordinator command {message.command_id}`", err=True)
        sys.exit(EXIT_PENDING)
    print_outcome(target, outcome, as_json=as_json)
    sys.exit(0 if outcome.status == "applied" else EXIT_REFUSED)


def _unsettled(admin: LaneAdmin, lane: str, command_id: str) -> str:
    """Why there is no outcome to send, and whether the continuation comes by itself."""
    stops = stops_of(known_in(admin, lane, command_id))
    words = f"lane {lane} has not settled command {command_id} for good"
    if stops:
        where = stops[-1].why or stops[-1].text
        return f"{words} ({where}): its continuation will come by itself once it has"
    return (
        f"{words}, and its database knows nothing of it: where it waits in a queue, its continuation will come by "
        "itself; where it was withdrawn, lost (as by a restored backup) or pruned, nothing comes. Look for it "
        f"(coordinator find {command_id}), and for what it was to do"
    )


def _continuation(name: str) -> type[Continuation]:
    known: dict[str, type[Continuation]] = {
        handler.command.type: handler.command
        for service in registry().services
        for handler in service.handlers
        if issubclass(handler.command, Continuation)
    }
    if name not in known:
        raise Misused(f"{name!r} is no continuation: there are {', '.join(sorted(known))}")
    return known[name]


def message_of(entry: LogEntry, continuation: str, outcome: Outcome) -> CommandMessage:
    """The continuation as its lane sends it, with this outcome."""
    deferred = Deferred(command_id=entry.command_id, type=entry.type, continuation=continuation)
    emission = continued(deferred, outcome.status, bytes(outcome.result), outcome.error)
    return CommandMessage(
        command_id=emission.command_id, type=emission.type, arguments=emission.arguments, origin="system"
    )
