"""`coordinator forget`: take the personal data of one person out of what a lane keeps."""

from collections.abc import Iterator
from time import monotonic
from typing import Any
from uuid import UUID

import click
import msgspec

from coordinator.arguments import LANE, TEXT
from coordinator.exemplified import Exemplified
from coordinator.lane.control import Forget, ForgetBegun
from coordinator.operate import output
from coordinator.operate.acts import reason_option
from coordinator.operate.dead import wait_option
from coordinator.operate.forget_asked import Whose, forget_asked, forget_keys
from coordinator.operate.forget_rows import forget_rows
from coordinator.operate.forget_steps import HowFar, begin, followed
from coordinator.operate.open import lane_admin
from coordinator.operate.output import Misused, end_orders, json_option, print_json, refusing
from coordinator.registry import registry
from coordinator.service.class_defects import fields_of
from coordinator.service.declared import kinds_of
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import FORGOTTEN
from coordinator.service.personal import is_personal
from coordinator.service.rows import Row, key_columns


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
    reads the whole log for that. What others have done to rows that are his own, as their class says, goes, too. His
    API keys that have ended are deleted; one that still counts is to be revoked first.

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
        given = begin(lane, [order], wait_s)
        if not given and not actor:
            end_orders([], 1, wait_s)
            return
        is_done = bool(given)
        for begun in given:
            with lane_admin(lane) as admin:
                progress = HowFar() if dry_run else followed(admin, lane, begun.goes_on_as, until_s)
            shown = _fields(lane, begun, progress, dry_run=dry_run)
            lines += _lines(lane, begun, progress, dry_run=dry_run)
            is_done = dry_run or progress.is_done
    if actor:
        own = forget_rows(lane, whose, reason or "", until_s, dry_run=dry_run)
        shown |= {"own_rows": own.fields()}
        lines += own.lines(lane, dry_run=dry_run)
        is_done = is_done and own.is_done
        asked = forget_asked(lane, whose, reason or "", until_s, keys, dry_run=dry_run)
        shown |= {"asked_for": asked.fields(dry_run=dry_run)} if key else asked.fields(dry_run=dry_run)
        lines += asked.lines(lane, dry_run=dry_run)
        is_done = is_done and asked.is_done
    if as_json:
        print_json(shown)
    else:
        for line in lines:
            click.echo(line)
    end_orders([], int(not is_done), wait_s)


def _check(key: tuple[str, ...], table: str | None, column: str, actor: str, tenant: str) -> None:
    """Raises Misused."""
    if tenant and not actor:
        raise Misused("--tenant is that of an --actor: say whose it is")
    if not key and (not actor or table is not None or column):
        raise Misused("say whose data: the KEY of the person's row, or --actor SUBJECT")


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


def _fields(lane: str, begun: ForgetBegun, progress: HowFar, *, dry_run: bool) -> dict[str, object]:
    done = progress.done
    return {
        "lane": lane,
        "table": begun.table,
        "status": "dry_run" if dry_run else FORGOTTEN if progress.is_done else "pending",
        "commands": begun.commands,
        "row_is_there": begun.is_row_there,
        "tables_of_his_rows": _belonging(lane, begun.table),
        "log_entries": 0 if done is None else done.entries,
        "dead_letters": 0 if done is None else done.letters,
        "timers": [] if done is None else list(done.timers),
        "unsent": progress.unsent,
    }


def _belonging(lane: str, table: str) -> list[str]:
    """The tables of this lane whose rows have personal fields and say whose row they belong to."""
    models = [model for model in registry().service(lane).models if model.table != table and is_personal(model)]
    return sorted(model.table for model in models if model.personal_of is not Row.personal_of)


def _lines(lane: str, begun: ForgetBegun, progress: HowFar, *, dry_run: bool) -> Iterator[str]:
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
    tables = _belonging(lane, begun.table)
    if tables and (begun.commands or begun.is_row_there):
        yield (
            f"rows of {', '.join(tables)} may belong to him by that row; they are the service's, too, and are not "
            "looked for: change or remove them by its commands"
        )
    if done is not None and done.timers:
        ids = " ".join(done.timers)
        yield f"{len(done.timers)} commands still wait for their time, and keep what they need: {ids}"
        yield f"take back what is not to be sent (`coordinator timers cancel {lane} …`)"
    if progress.unsent:
        yield (
            f"{progress.unsent} emitted commands are yet to be sent, and leave the outbox then: some may be about this "
            f"person (`coordinator outbox list {lane}`)"
        )
