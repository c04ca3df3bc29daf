"""`coordinator forget`: take the personal data of one person out of what a lane keeps."""

from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any, Final
from uuid import UUID

import click
import msgspec
from msgspec import Struct

from coordinator.arguments import LANE, TEXT
from coordinator.exemplified import Exemplified
from coordinator.lane.control import Forget, ForgetBegun, ForgetStep, ForgottenSome
from coordinator.operate import output
from coordinator.operate.acts import reason_option
from coordinator.operate.dead import wait_option
from coordinator.operate.forget_asked import Whose, forget_asked, forget_keys
from coordinator.operate.forget_waiting import note_asked
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, Misused, end_orders, json_option, print_json, refusing
from coordinator.registry import registry
from coordinator.service.class_defects import fields_of
from coordinator.service.commands import validated
from coordinator.service.declared import kinds_of
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import FORGOTTEN
from coordinator.service.personal import is_personal
from coordinator.service.rows import Row, key_columns
from coordinator.stores.admin import LaneAdmin, proved_entry

POLL_S: Final = 0.2
UNSENT_MAX: Final = 1000
"""More emitted commands are not counted."""


class _HowFar(Struct):
    """How far an order has come. `done` is the latest step's; None: there was none yet."""

    done: ForgottenSome | None = None
    is_done: bool = False
    unsent: int = 0


@click.command(cls=Exemplified, example="forget seats 17 --dry-run")
@click.argument("lane", type=LANE)
@click.argument("key", nargs=-1, type=TEXT)
@click.option("--table", type=TEXT, help="The table of the person's row.  [default: the only one with personal fields]")
@click.option("--column", type=TEXT, default="", help="KEY is a value of this unique column, such as an address.")
@click.option("--actor", type=TEXT, default="", help="Also, or only, take out what this subject asked for.")
@click.option("--tenant", type=TEXT, default="", help="The tenant of the --actor, if he has one.")
@reason_option
@click.option("--dry-run", is_flag=True, help="Only count; nothing is changed.")
@wait_option
@json_option
@refusing
def forget(  # each is an option
    lane: str,
    key: tuple[str, ...],
    table: str | None,
    column: str,
    actor: str,
    tenant: str,
    reason: str | None,
    wait_s: float,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the personal data of the person with this KEY out of LANE's command log and dead letters.

    With --actor it takes out what he has asked for, and him, also without a KEY: in a lane that has no row of his. It
    reads the whole log for that. His API keys that have ended go, too; one that still counts is to be revoked first.

    KEY is that of the person's row, also of one that is gone; a key of several columns is given in their order. The
    row itself is the service's: remove or change it first, by a command. It is an order, which the lane carries out in
    its turn and in steps; what comes behind the order is new data. Ids, sequences and statuses stay. A repetition of a
    forgotten command is refused as `forgotten`, and is never applied again. What is parked must be handled before; what
    is yet to be sent stays until it is sent. Other lanes have their own log: ask each. Exit status 3: it is not done
    yet, and will be.
    """
    until_s = monotonic() + wait_s
    _check(key, table, column, actor, tenant)
    shown: dict[str, object] = {"lane": lane}
    lines: list[str] = []
    is_done = True
    whose = Whose(actor, tenant)
    # First: while he may ask, nothing is taken out.
    keys = forget_keys(lane, whose, reason or "") if actor and not dry_run else 0
    if key:
        model = _model(lane, table)
        order = Forget(
            table=model.table,
            value=msgspec.Raw(msgspec.json.encode(_value(model, column, key))),
            column=column,
            asked=new_command_id(),
            actor=actor,
            tenant=tenant,
            dry_run=dry_run,
            reason=reason or "",
            by=output.as_user(),
        )
        begun = _begun(lane, order, wait_s)
        if begun is None:
            end_orders([], 1, wait_s)
            return
        with lane_admin(lane) as admin:
            progress = _HowFar() if dry_run else _followed(admin, lane, begun.goes_on_as, until_s)
        shown = _fields(lane, begun, progress, dry_run=dry_run)
        lines += _lines(lane, begun, progress, dry_run=dry_run)
        is_done = progress.is_done
    if actor:
        asked = forget_asked(lane, whose, reason or "", until_s, keys, dry_run=dry_run)
        shown |= {"asked_for": asked.fields(dry_run=dry_run)} if key else asked.fields(dry_run=dry_run)
        lines += asked.lines(lane, dry_run=dry_run)
        is_done = is_done and asked.is_done
    if as_json:
        print_json(shown)
    else:
        for line in lines:
            click.echo(line)
    if not dry_run:
        end_orders([], int(not is_done), wait_s)


def _check(key: tuple[str, ...], table: str | None, column: str, actor: str, tenant: str) -> None:
    """Raises Misused."""
    if tenant and not actor:
        raise Misused("--tenant is that of an --actor: say whose it is")
    if not key and (not actor or table is not None or column):
        raise Misused("say whose data: the KEY of the person's row, or --actor SUBJECT")


def _begun(lane: str, order: Forget, wait_s: float) -> ForgetBegun | None:
    """Give the order; None: it is safe, and not settled yet. Raises CommandRefused."""
    answers: list[OrderAnswer] = []
    validated(order)
    if not order.dry_run:
        note_asked(lane, [order], order.reason)
    give(lane, [order], wait_s, answers.append)
    outcome = answers[0].outcome
    if outcome is None:
        return None
    if outcome.status != "applied":
        error = outcome.error
        raise CommandRefused(f"{lane}: {error.code}: {error.message}" if error else f"{lane}: {outcome.status}")
    return msgspec.json.decode(outcome.result, type=ForgetBegun)


def _model(lane: str, table: str | None) -> type[Row]:
    service = registry().service(lane)
    if table is not None:
        found = next((model for model in service.models if model.table == table), None)
        if found is None:
            tables = ", ".join(sorted(model.table for model in service.models))
            raise Misused(f"--table: {lane} has no rows of {table!r}: there are {tables or 'none'}")
        return found
    personal = [model for model in service.models if is_personal(model)]
    # Rows that say whose they are belong to another's row.
    personal = [model for model in personal if model.personal_of is Row.personal_of] or personal
    if len(personal) == 1:
        return personal[0]
    if personal:
        named = ", ".join(sorted(model.table for model in personal))
        raise Misused(f"{lane} has personal fields in {named}: say with --table which row KEY is of")
    raise Misused(
        f"{lane} marks no field of its rows as personal, so nothing is known of anybody: declare it as Personal[…], "
        "or name the table with --table, where a handler's `of` names it, or what somebody asked for with --actor alone"
    )


def _value(model: type[Row], column: str, key: tuple[str, ...]) -> object:
    """What stands on the command line, as the column has it. The lane looks whether it is a key."""
    columns = (column,) if column else key_columns(model)
    if len(columns) != len(key):
        raise Misused(f"KEY: {model.table} is found by {', '.join(columns)}: give {len(columns)}, not {len(key)}")
    hints = fields_of(model)
    if isinstance(hints, str) or column not in ("", *hints):
        raise Misused(f"--column: {model.table} has no column {column!r}")
    values = [_typed(hints[name], name, text) for name, text in zip(columns, key, strict=True)]
    return values[0] if len(values) == 1 else values


def _typed(hint: Any, name: str, text: str) -> object:
    kinds = kinds_of(hint)
    for kind in (int, UUID):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise Misused(f"KEY: {text!r:.100} is no {kind.__name__}, as {name} is") from None
    return text


def _followed(admin: LaneAdmin, lane: str, step: str | None, until_s: float) -> _HowFar:
    """Wait for one step after the other, until the last one is done or the time is over."""
    progress = _HowFar()
    while step is not None:
        entry = proved_entry(admin, step)
        if entry is None:
            if monotonic() >= until_s:
                return progress
            sleep(POLL_S)
            continue
        if entry.status != "applied" or entry.result is None:
            raise CommandRefused(
                f"{lane}: step {step} is {entry.status} ({entry.error_code}): replay it (`coordinator dead list "
                f"{lane}` shows why)"
            )
        progress.done = msgspec.json.decode(entry.result, type=ForgottenSome)
        step = progress.done.goes_on_as
    progress.is_done = True
    # The step itself may still be there, confirmed.
    progress.unsent = sum(each.type != ForgetStep.type for each in admin.emitted(None, 0, UNSENT_MAX))
    return progress


def _fields(lane: str, begun: ForgetBegun, progress: _HowFar, *, dry_run: bool) -> dict[str, object]:
    done = progress.done
    return {
        "lane": lane,
        "table": begun.table,
        "status": "dry_run" if dry_run else FORGOTTEN if progress.is_done else "pending",
        "commands": begun.commands,
        "row_is_there": begun.is_row_there,
        "log_entries": 0 if done is None else done.entries,
        "dead_letters": 0 if done is None else done.letters,
        "timers": [] if done is None else list(done.timers),
        "unsent": progress.unsent,
    }


def _lines(lane: str, begun: ForgetBegun, progress: _HowFar, *, dry_run: bool) -> Iterator[str]:
    done = progress.done
    if dry_run:
        yield f"{lane}: {begun.commands} commands have personal data of this person; nothing is changed"
    elif done is not None:
        yield f"{lane}: {done.entries} entries of the log and {done.letters} dead letters are emptied"
    if not begun.commands and not begun.is_row_there:
        yield (
            f"no row of {begun.table} and no command of the log has this KEY: see that it is written as the rows have "
            "it, which is compared letter by letter (an address in lower case, say)"
        )
    if begun.is_row_there:
        yield f"the row in {begun.table} is still there: it is the service's, and is changed by a command of its own"
    if done is not None and done.timers:
        ids = " ".join(done.timers)
        yield f"{len(done.timers)} commands still wait for their time, and keep what they need: {ids}"
        yield f"take back what is not to be sent (`coordinator timers cancel {lane} …`)"
    if progress.unsent:
        yield (
            f"{progress.unsent} emitted commands are yet to be sent, and leave the outbox then: some may be about this "
            f"person (`coordinator outbox list {lane}`)"
        )
