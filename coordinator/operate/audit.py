"""`coordinator audit`: who changed a row, when, and by which command; what somebody asked for; what operators did."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import unquote
from uuid import UUID

import click
import msgspec

from coordinator.arguments import LANE, TEXT, Whole
from coordinator.exemplified import Exemplified
from coordinator.operate import output
from coordinator.operate.actors import actor_of_text, named
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, Misused, json_option, print_json, print_table, refusing
from coordinator.registry import registry
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.rows import Key, KeyPart, Row, key_columns
from coordinator.service.service import Service
from coordinator.stores.audit import ActQuery, AuditBounds, AuditedCommand, ChangedRow, ChangeQuery
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.key_texts import key_text
from coordinator.stores.row_checks import InvalidRow, RowChecks

_ACT_ID = re.compile(r"[0-9T:.Za-f-]{1,64}")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")


def _act_id(value: str) -> str:
    if _ACT_ID.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} is no act: take one that `audit --operators --json` has as its id")
    return value


@click.command(cls=Exemplified, example="audit seats seats 17", looks=True)
@click.argument("lane", type=LANE)
@click.argument("table", metavar="TABLE", required=False, type=TEXT)
@click.argument("row_key", metavar="KEY", required=False, type=TEXT)
@click.option("--actor", type=TEXT, metavar="SUBJECT", help="Only what this subject asked for; of an act: its author.")
@click.option("--since", type=output.past, help="Settled since: 2h (ago), or a time.")
@click.option("--until", type=output.past, help="Settled before: 2h (ago), or a time.")
@click.option("--limit", type=Whole(1, 100_000), default=100, show_default=True, help="The latest so many.")
@click.option("--before", type=Whole(1), help="Only below this sequence: the next page.")
@click.option("--before-act", type=_act_id, metavar="ACT", help="With --operators, only before this act: likewise.")
@click.option("--operators", is_flag=True, help="What operators did to LANE, with their authors and reasons.")
@json_option
@refusing
def audit(
    lane: str,
    table: str | None,
    row_key: str | None,
    actor: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: int | None,
    before_act: str | None,
    *,
    operators: bool,
    as_json: bool,
) -> None:
    """Show who changed the row KEY of TABLE in LANE, when, and by which command: the latest first.

    KEY is as in the path of a URL: 17, or 7/2 of two columns; a / or % in a text is %2F or %25. The class of the row
    must be audited. Without TABLE and KEY, --actor shows the commands for which somebody asked, and what each changed.

    It knows what the command log knows: what `log prune` has removed is gone, and is said to be.
    """
    if (operators and table is not None) or not (operators or table is not None or actor is not None):
        raise Misused("say what to look for: the TABLE and KEY of a row, --actor SUBJECT, or --operators")
    if (table is None) != (row_key is None):
        raise Misused("a TABLE needs the KEY of one of its rows, such as 17")
    if before is not None and operators:
        raise Misused("--operators has --before-act: acts have no sequence")
    if before_act is not None and not operators:
        raise Misused("--before-act is for --operators: commands have a sequence, --before")
    if operators:
        _show_acts(lane, ActQuery(author=actor, since=since, until=until), before_act, limit, as_json=as_json)
        return
    text = None
    if table is not None and row_key is not None:
        text = key_text(_key(_model(registry().service(lane), table), row_key))
    query = ChangeQuery(row_table=table, row_key=text, actor=actor, since=since, until=until)
    with lane_admin(lane) as admin:
        bounds = admin.audit_bounds(table)
        found = admin.audited(query, INTEGER_MAX if before is None else before, limit + 1)
    if as_json:
        print_json([_command(lane, each) for each in found[:limit]])
    else:
        _print(found[:limit], with_rows=not query.is_of_row)
    for note in _notes(lane, query, bounds):
        click.echo(f"coordinator: {note}", err=True)
    if len(found) > limit:
        click.echo(f"there are more: repeat this with --before {found[limit - 1].sequence}", err=True)


def _show_acts(lane: str, query: ActQuery, before: str | None, limit: int, *, as_json: bool) -> None:
    with lane_admin(lane) as admin:
        found = admin.acts(query, before, limit + 1)
    shown = found[:limit]
    if as_json:
        print_json([_act(lane, each) for each in shown])
    else:
        print_table(
            ("TIME", "AUTHOR", "ACCOUNT", "ACT", "OF", "REASON"),
            [(each.done_at, each.author, each.account, each.act, each.details, each.reason) for each in shown],
        )
    if len(found) > limit:
        click.echo(f"there are more: repeat this with --before-act {shown[-1].id}", err=True)


def _model(service: Service, table: str) -> type[Row]:
    """The class of a table's rows. Raises Misused where there is none, CommandRefused where it is not audited."""
    models = {model.table: model for model in service.models}
    if table not in models:
        raise Misused(
            f"TABLE: {service.name} has no table {table[:100]!a}: it has {', '.join(sorted(models)) or 'none'}"
        )
    model = models[table]
    if not model.__audited__:
        known = ", ".join(sorted(name for name, each in models.items() if each.__audited__)) or "none"
        raise CommandRefused(
            f"the rows of {table} are not audited: declare class {model.__name__}(…, audited=True), and it is known "
            f"from then on who changes them (audited tables of {service.name}: {known})"
        )
    return model


def _key(model: type[Row], text: str) -> Key:
    """The key that a text names. Raises Misused."""
    columns = key_columns(model)
    parts = text.split("/") if len(columns) > 1 else [text]
    if len(parts) != len(columns):
        raise Misused(
            f"KEY: {text[:100]!a} is no key of {model.table}: it has {len(columns)} parts, {'/'.join(columns)}"
        )
    check = RowChecks().of(model)
    kinds = check.part_types
    try:
        key = tuple(_part(unquote(part, errors="strict"), kind) for part, kind in zip(parts, kinds, strict=True))
        found: Key = check.key(model.key, key[0] if len(columns) == 1 else key)
    except (ValueError, InvalidRow) as error:
        raise Misused(f"KEY: {text[:100]!a} is no key of {model.table} ({'/'.join(columns)}): {error}") from None
    return found


def _part(text: str, kind: type | None) -> KeyPart:
    if kind is int:
        if _WHOLE.fullmatch(text) is None:
            raise ValueError(f"{text[:100]!a} is no whole number")
        return int(text)
    return UUID(text) if kind is UUID else text


def _notes(lane: str, query: ChangeQuery, bounds: AuditBounds) -> Iterator[str]:
    """What the answer may lack."""
    first = bounds.first or 0
    if first > 1 and bounds.first_at is not None and (query.since is None or query.since < bounds.first_at):
        yield (
            f"the log of {lane} begins with sequence {first}, settled at {output.cell(bounds.first_at)}: "
            "what was before is pruned"
        )
    if query.row_table is None:
        return
    audited = bounds.audited
    if audited is None:
        yield f"no process of {lane} has audited {query.row_table} yet: only what it changes from then on is known"
    elif audited.since > max(first, 1):
        yield (
            f"the changes of {query.row_table} are complete from sequence {audited.since} on: those before were made "
            "by processes that did not audit it, such as those of an older release"
        )
    if bounds.is_interrupted:
        yield (
            f"the latest commands of {lane} were applied by a process that does not audit {query.row_table}, such as "
            "one of an older release: what it changed is not here"
        )


def _print(found: Sequence[AuditedCommand], *, with_rows: bool) -> None:
    lines = [
        (
            each.settled_at,
            each.sequence,
            each.command_id,
            each.type,
            each.status,
            named(actor_of_text(each.actor)),
            *((row and f"{row.row_table}/{row.row_key}",) if with_rows else ()),
            row and row.how,
            row and row.version,
        )
        for each in found
        for row in each.changes or _NOTHING
    ]
    rows = ("ROW",) if with_rows else ()
    print_table(("TIME", "SEQUENCE", "COMMAND ID", "TYPE", "STATUS", "ACTOR", *rows, "HOW", "VERSION"), lines)


_NOTHING: Sequence[ChangedRow | None] = (None,)


def _command(lane: str, each: AuditedCommand) -> dict[str, object]:
    fields = msgspec.structs.asdict(each)
    fields["actor"] = msgspec.to_builtins(actor_of_text(each.actor))
    fields["changes"] = [
        {"table": row.row_table, "key": row.row_key, "how": row.how, "version": row.version} for row in each.changes
    ]
    return {"lane": lane, **fields}


def _act(lane: str, each: OperatorAct) -> dict[str, object]:
    fields = msgspec.structs.asdict(each)
    return {"lane": lane, **fields, "details": msgspec.json.decode(each.details)}
