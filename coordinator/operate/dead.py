"""`coordinator dead`: the dead letters of the lanes and of their effects."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click
import msgspec

from coordinator.operate import output
from coordinator.operate.broker import Broker, DeadLetterQueue, DeadMessage, broker
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    EXIT_REFUSED,
    Refused,
    json_option,
    print_fields,
    print_json,
    print_table,
    refusing,
)
from coordinator.operate.parked import releasing
from shared.effects import EFFECTS_PREFIX, effects_key
from shared.ids import replay_command_id
from shared.messaging.wire import CommandMessage, Envelope, decode
from shared.services import SERVICES
from shared.settings import BrokerSettings, load

SOURCES = (
    *(service.name for service in SERVICES),
    *(effects_key(service.name) for service in SERVICES if service.effects is not None),
)
"""Whose letters there are, by the routing keys."""

SOURCE = click.Choice(SOURCES)
lane_option = click.option("--lane", "lanes", type=SOURCE, multiple=True, help="Only there.  [default: everywhere]")
id_argument = click.argument("command_id", metavar="[ID]", required=False, type=output.command_id)
all_option = click.option("--all", "is_all", is_flag=True, help="Every dead letter of the lanes named by --lane.")


@click.group()
def dead() -> None:
    """Dead letters: commands that could not be applied, effects that met a defect.

    They stay until they are replayed or discarded.
    """


@dead.command("list")
@click.argument("lanes", nargs=-1, type=SOURCE)
@json_option
@refusing
def list_dead(lanes: tuple[str, ...], *, as_json: bool) -> None:
    """List the dead letters of LANES (all, if none is named), oldest first."""
    with _letters(lanes) as (_, queues):
        letters = [message for queue in queues for message in queue.messages]
    if as_json:
        print_json([described(letter) for letter in letters])
    else:
        columns = ("LANE", "COMMAND ID", "TYPE", "REASON", "SEQUENCE", "ERROR")
        headers = [(letter, letter.headers.get) for letter in letters]
        print_table(
            columns,
            [
                (each.lane, each.command_id, each.type, get("reason"), get("sequence"), get("error"))
                for each, get in headers
            ],
        )


@dead.command()
@id_argument
@all_option
@lane_option
@json_option
@refusing
def show(command_id: str | None, lanes: tuple[str, ...], *, is_all: bool, as_json: bool) -> None:
    """Show the dead letter of command ID: arguments, reason, traceback."""
    with _letters(lanes) as (_, queues):
        chosen = [letter for _, letter in _chosen(queues, command_id, lanes, is_all=is_all)]
    _print(chosen, as_json=as_json)


@dead.command()
@id_argument
@all_option
@lane_option
@json_option
@refusing
def discard(command_id: str | None, lanes: tuple[str, ...], *, is_all: bool, as_json: bool) -> None:
    """Remove the dead letter of command ID for good, and print it. Commands that wait behind it (`parked`) go on."""
    with _letters(lanes) as (connected, queues):
        chosen = _chosen(queues, command_id, lanes, is_all=is_all)
        # Printed first: what cannot be printed stays.
        _print([letter for _, letter in chosen], as_json=as_json)
        for queue, letter in chosen:
            release = None if is_effect(queue.lane) else releasing(queue.lane, letter.command_id)
            if release is not None:
                connected.publish(queue.lane, release)
            queue.remove(letter)


@dead.command()
@id_argument
@all_option
@lane_option
@click.option("--without-deadline", is_flag=True, help="Apply it though its deadline is over.")
@json_option
@refusing
def replay(
    command_id: str | None, lanes: tuple[str, ...], *, is_all: bool, without_deadline: bool, as_json: bool
) -> None:
    """Publish the command of dead letter ID into its lane again, behind what is queued there.

    Under a NEW id, derived from the old one, and printed: the old id is settled as failed in the log, and publishing it
    again would only return that outcome. What was never logged keeps its id: so does an effect, whose id is its
    idempotency key. Replaying twice, or a crash
    meanwhile, applies it once: the derived id is the same. The dead letter is removed once the broker has the command
    safe. A publisher session's number is not kept. Commands that wait behind it (`parked`) go on after it, unless it
    fails again. Exit status 1: some cannot be replayed; they stay.
    """
    replayed: list[dict[str, object]] = []
    refused: list[str] = []
    with _letters(lanes) as (connected, queues):
        ready: list[tuple[DeadLetterQueue, DeadMessage, CommandMessage]] = []
        # All are looked up before any is published: two letters of one command get the same id.
        for queue, letter in _chosen(queues, command_id, lanes, is_all=is_all):
            try:
                message = replayable(letter, _logged_status(letter), without_deadline=without_deadline)
            except Refused as error:
                refused.append(error.message)
            else:
                ready.append((queue, letter, message))
        for queue, letter, message in ready:
            connected.publish(queue.lane, message)
            queue.remove(letter)
            replayed.append({"lane": queue.lane, "command_id": letter.command_id, "replayed_as": message.command_id})
            if not as_json:
                click.echo(f"{queue.lane}: {letter.command_id} replayed as {message.command_id}")
    if as_json:
        print_json(replayed)
    for reason in refused:
        click.echo(f"coordinator: {reason}", err=True)
    if refused:
        sys.exit(EXIT_REFUSED)


def replayable(letter: DeadMessage, logged: str | None, *, without_deadline: bool) -> CommandMessage:
    """The command of a dead letter, ready to be published again. Raises Refused, which says what to do instead.

    `logged` is the status with which its id is settled, None if it is not.
    """
    [message] = decode(Envelope(message_id=letter.command_id, type=letter.type, headers=letter.headers), letter.body)
    if message.problem is not None or message.command_id is None:
        what = message.problem.message if message.problem is not None else "it has no id"
        raise Refused(
            f"the dead letter {letter.command_id or '(without an id)'} of lane {letter.lane} would fail again "
            f"({what}): discard it, and publish what is wanted with `coordinator send`"
        )
    if logged not in (None, "failed"):
        raise Refused(f"command {message.command_id} is settled as {logged} already, so it is not replayed: discard it")
    deadline_ms = None if without_deadline else message.deadline_ms
    if deadline_ms is not None and deadline_ms < time.time() * 1000:
        raise Refused(
            f"the deadline of command {message.command_id} is over, so it would only expire: "
            "replay it --without-deadline, or discard it"
        )
    return msgspec.structs.replace(
        message,
        command_id=replay_command_id(message.command_id) if logged else message.command_id,
        deadline_ms=deadline_ms,
        publisher=None,
        publisher_seq=None,
        # Whoever waited for the old id was told that it failed; of the new one he knows nothing.
        continuation=None if logged else message.continuation,
    )


def is_effect(source: str) -> bool:
    """Whether these are letters of effects: they have no log, and nothing waits behind them."""
    return source.startswith(EFFECTS_PREFIX)


def described(letter: DeadMessage) -> dict[str, object]:
    """A dead letter as JSON. Arguments that are not JSON are text in `body`."""
    fields: dict[str, object] = {"lane": letter.lane, "command_id": letter.command_id, "type": letter.type}
    headers = {name: _plain(value) for name, value in letter.headers.items() if name != "publish-number"}
    for name in ("reason", "error", "sequence", "traceback"):
        fields[name] = headers.pop(name, None)
    headers.pop("lane", None)
    try:
        msgspec.json.decode(letter.body)
        letter.body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return fields | {"arguments": None, "body": letter.body.decode(errors="backslashreplace"), "headers": headers}
    return fields | {"arguments": msgspec.Raw(letter.body), "body": None, "headers": headers}


@contextmanager
def _letters(lanes: tuple[str, ...]) -> Iterator[tuple[Broker, list[DeadLetterQueue]]]:
    """The dead letters of these lanes (all, if none is named); this operator is alone at them."""
    names = [name for name in SOURCES if not lanes or name in lanes]
    with broker(load(BrokerSettings)) as connected, ExitStack() as stack:
        yield connected, [stack.enter_context(connected.dead_letters(name)) for name in names]


def _chosen(
    queues: list[DeadLetterQueue], command_id: str | None, lanes: tuple[str, ...], *, is_all: bool
) -> list[tuple[DeadLetterQueue, DeadMessage]]:
    if is_all == (command_id is not None):
        raise click.UsageError("name one ID, or --all")
    if is_all and not lanes:
        raise click.UsageError("--all needs the lanes: --lane")
    found = [
        (queue, letter) for queue in queues for letter in queue.messages if is_all or letter.command_id == command_id
    ]
    if not found and not is_all:
        raise Refused(f"no dead letter of command {command_id} in {', '.join(queue.lane for queue in queues)}")
    # A crash of a coordinator may leave two letters of one command.
    return found


def _logged_status(letter: DeadMessage) -> str | None:
    if letter.command_id is None or is_effect(letter.lane):
        return None
    with lane_admin(letter.lane) as admin:
        entry = admin.find(letter.command_id.lower())
    return None if entry is None else entry.status


def _print(letters: list[DeadMessage], *, as_json: bool) -> None:
    if as_json:
        print_json([described(letter) for letter in letters])
        return
    for letter in letters:
        fields: dict[str, Any] = described(letter)
        arguments = fields.pop("arguments")
        headers = fields.pop("headers")
        shown = None if arguments is None else bytes(arguments).decode()
        print_fields(fields | {"arguments": shown} | headers)
        click.echo()


def _plain(value: object) -> object:
    """A header's value as JSON; AMQP knows more kinds."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)  # pika has a class of its own for the long ones
    return value if isinstance(value, str | float | bool | None) else str(value)
