"""Commands that publish: `send` and `drain`."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import click
import msgspec

from coordinator.arguments import LANE, TEXT, Seconds, Whole
from coordinator.exemplified import Exemplified
from coordinator.lane.control import Marker
from coordinator.operate import output
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.giving_orders import issue
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    EXIT_PENDING,
    EXIT_REFUSED,
    CommandRefused,
    Misused,
    json_option,
    print_fields,
    print_json,
    refusing,
)
from coordinator.protocol.wire import BODY_BYTES_MAX, CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import repeated
from coordinator.service.errors import ConfigurationError, InvalidCommand, Unavailable
from coordinator.service.ids import is_system_id, new_command_id
from coordinator.service.outcome import Outcome
from coordinator.service.repeated_names import repeated_name
from coordinator.service.service import Service
from coordinator.service.unshown import shown_to_sender
from coordinator.service.upgrades import UNKNOWN_VERSION, parse_sent
from coordinator.stores.one_lane import WrongDatabase

LANE_TYPES: Final = "lane."
"""The prefix of the types that are orders to the lane itself (coordinator/lane/control.py)."""


@click.command(cls=Exemplified, example='send seats.book \'{"id": 7, "holder": "ada"}\' --wait 10')
@click.argument("command_type", metavar="TYPE", type=TEXT)
@click.argument("arguments", metavar="JSON")
@click.option("--lane", type=LANE, help="The lane that must have this type.  [default: the one that has it]")
@click.option("--id", "command_id", type=output.command_id, help="For a safe repetition.  [default: a new one]")
@click.option("--expected-version", type=Whole(0), help="Only for this version of its row.")
@click.option("--version", "command_version", type=Whole(1), help="That the arguments have.  [default: the latest]")
@click.option(
    "--deadline", type=output.deadline, help="Do not apply it after this time: 30s from now, or 2030-01-31T12:00:00Z."
)
@click.option("--wait", "wait_s", type=Seconds(0), help="Wait this many seconds for the outcome.")
@reason_option
@json_option
@refusing
def send(
    command_type: str,
    arguments: str,
    lane: str | None,
    command_id: str | None,
    expected_version: int | None,
    command_version: int | None,
    deadline: datetime | None,
    wait_s: float | None,
    reason: str | None,
    *,
    as_json: bool,
) -> None:
    """Publish one command of TYPE with JSON as its arguments (`-`: from standard input), and print its id.

    It goes through the exchange `writes.system`, so types work that only operators may issue.

    It is checked before it is sent; when this returns, the broker has it safe on disk. With --wait its outcome is
    printed too: exit status 0 applied; 1 rejected, failed or expired; 3 not settled yet.
    """
    if command_id is not None and is_system_id(command_id):
        raise Misused(
            f"ids of UUID version 8, such as {command_id}, are derived by the system for commands of its own, whose "
            "place this one would take: choose another, or leave --id out"
        )
    text = sys.stdin.read() if arguments == "-" else arguments
    message = CommandMessage(
        command_id=command_id or new_command_id(),
        type=command_type,
        arguments=text.strip().encode(errors="surrogateescape"),
        deadline_ms=None if deadline is None else int(deadline.timestamp() * 1000),
        expected_version=expected_version,
        command_version=command_version,
        origin="system",
    )
    target, message = checked(message, lane)
    outcome = issue(target, message, wait_s or 0, lambda: _record(target, message, reason))
    # A quick lane's outcome may be there before the confirm; only with --wait was it asked for.
    if outcome is not None and wait_s is not None:
        print_outcome(target, outcome, as_json=as_json)
        sys.exit(0 if outcome.status == "applied" else EXIT_REFUSED)
    if as_json:
        print_json({"lane": target, "command_id": message.command_id, "type": command_type, "status": "pending"})
    else:
        click.echo(message.command_id)
    if wait_s is not None:
        click.echo(f"not settled within {wait_s:g} s: ask `coordinator command {message.command_id}`", err=True)
        sys.exit(EXIT_PENDING)


@click.command(cls=Exemplified, example="drain seats --timeout-s 120")
@click.argument("lane", type=LANE)
@click.option("--timeout-s", type=Seconds(0.1), default=60.0, show_default=True)
@json_option
@refusing
def drain(lane: str, timeout_s: float, *, as_json: bool) -> None:
    """Wait until everything that is in the queue of LANE now is settled.

    It publishes a command that changes nothing behind all of it. Once that is settled, so is everything that was
    published before, with lower sequences than the one printed. Commands published meanwhile come after it. Exit
    status 3: not within the timeout.
    """
    _refuse_paused(lane)
    message = CommandMessage(command_id=new_command_id(), type=Marker.type, arguments=b"{}", origin="system")
    outcome = issue(lane, message, timeout_s)
    if outcome is None:
        click.echo(f"coordinator: {lane} is not drained within {timeout_s:g} s: look at `coordinator status`", err=True)
        sys.exit(EXIT_PENDING)
    if outcome.status != "applied" or outcome.sequence is None:
        code = outcome.error.code if outcome.error is not None else outcome.status
        raise CommandRefused(f"the coordinator of lane {lane} does not settle markers ({code}): upgrade it")
    if as_json:
        print_json({"lane": lane, "sequence": outcome.sequence, "command_id": outcome.command_id})
    else:
        click.echo(f"{lane} is drained: everything up to sequence {outcome.sequence} is settled")


def checked(message: CommandMessage, lane: str | None) -> tuple[str, CommandMessage]:
    """The lane that will take the command, and the command with its version: the latest, if none is said.

    Raises InvalidCommand, which names the type, version or argument at fault.
    """
    services = [service for service in registry().services if lane in (None, service.lane)]
    for service in services:
        for handler in service.operator_handlers:
            if handler.command.type == message.type:
                if len(message.arguments) > BODY_BYTES_MAX:
                    raise InvalidCommand(f"the arguments have more than {BODY_BYTES_MAX} bytes; nothing was sent")
                model = handler.command
                version = message.command_version or model.command_version
                try:
                    parse_sent(model, message.arguments, version, handler.upgrades)
                    if (name := repeated_name(message.arguments)) is not None:
                        raise repeated(name)
                except InvalidCommand as error:
                    if error.code == UNKNOWN_VERSION:
                        raise InvalidCommand(f"{error}; nothing was sent") from None
                    named = f"argument {error.field!r}: " if error.field else "the JSON of its arguments: "
                    raise InvalidCommand(f"{message.type}: {named}{error}; nothing was sent") from None
                if len(lanes := [each.lane for each in services if each.name == service.name]) > 1:
                    text = f"{message.type} is of {len(lanes)} tenants' lanes, such as {lanes[0]}: say --lane"
                    raise InvalidCommand(f"{text}; nothing was sent")
                sent = None if version == 1 else version
                return service.lane, msgspec.structs.replace(message, command_version=sent)
    raise InvalidCommand(_not_sent(message.type, services))


def _not_sent(kind: str | None, services: Sequence[Service]) -> str:
    """Why a command of this type, which no operator issues, is not sent."""
    if kind is not None and kind.startswith(LANE_TYPES):
        return (
            f"{kind} is an order to the lane itself, and is not sent by hand: `coordinator dead` replays and "
            "discards dead letters, and lets go on what waits behind them; `coordinator outbox discard` withdraws what "
            "was emitted; `coordinator release` lets go on what waits for a key; `coordinator drain` sends a marker"
        )
    if any(handler.command.type == kind for service in services for handler in service.handlers):
        return f"{kind} is internal (is_internal): handlers, timers and effects bring it, and it is not sent by hand"
    types = ", ".join(handler.command.type for service in services for handler in service.operator_handlers)
    return f"no command type {kind!r}: there are {types}"


def _record(lane: str, message: CommandMessage, reason: str | None) -> None:
    """Keep who sends it: for its lane the system does. It is sent even where that cannot be kept."""
    try:
        with lane_admin(lane) as admin:
            admin.record(act_of(lane, "send", reason, command_id=message.command_id, type=message.type))
    except WrongDatabase:
        raise
    except (Unavailable, ConfigurationError) as error:
        click.echo(f"coordinator: `audit {lane} --operators` will not show who sent this: {error}", err=True)


def _refuse_paused(lane: str) -> None:
    try:
        with lane_admin(lane) as admin:
            lease = admin.state().lease
    except WrongDatabase:
        raise
    except (Unavailable, ConfigurationError):
        return
    if lease is not None and lease.paused is not None:
        raise CommandRefused(
            f"lane {lane} is paused ({lease.paused}), so it will not drain: `coordinator resume {lane}` first"
        )


def print_outcome(lane: str, outcome: Outcome, *, as_json: bool) -> None:
    """An outcome as it came."""
    fields = {"lane": lane} | msgspec.structs.asdict(outcome)
    if as_json:
        print_json(fields)
        return
    error = outcome.error
    print_fields(
        fields
        | {
            "result": bytes(outcome.result).decode(),
            "error": error and f"{error.code}: {shown_to_sender(error.code, error.message, outcome.command_id)}",
            "replayed": "yes" if outcome.replayed else None,
        }
    )
