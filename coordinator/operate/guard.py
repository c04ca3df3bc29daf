"""`coordinator guard`: takes away what lets others than its lane write a database's tables, and says who still can.

It does the same for what lets gateways read tables that are the lane's alone.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence

import click
import msgspec
from msgspec import Struct

from coordinator.arguments import LANE
from coordinator.exemplified import Exemplified
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.open import lane_admin
from coordinator.operate.output import EXIT_REFUSED, CommandRefused, json_option, print_json, refusing
from coordinator.operate.writers import looking_at, reader_of
from coordinator.registry import registry
from coordinator.runtime.addresses import WITHOUT_SERVER, Address
from coordinator.service.lane_names import settings_prefix
from coordinator.service.text import printable
from coordinator.stores.foreign_rights import ForeignRight, ForeignRights, tables_of
from coordinator.stores.kinds import Kind, driver_errors
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.writers import Writer, WritersQuery

_TABLES_SHOWN = 5


class _Guarded(Struct, frozen=True):
    """The tables that are guarded, and by whom."""

    lane: str
    kind: Kind
    looking: Address
    is_migrating: bool
    """Whether that is `<LANE>_MIGRATION_URL`."""
    query: WritersQuery
    reader: ReaderQuery | None
    """The readers' role; None: no address has one of its own."""

    def foreign_rights(self) -> ForeignRights:
        """Raises CommandRefused where others may be hidden: that nobody is found would be no proof."""
        try:
            rights = self.kind.foreign_rights(self.looking, self.query)
        except driver_errors() as error:
            raise self._refused(error) from error
        if rights.unseen is not None:
            raise CommandRefused(f"who else may write the tables of lane {self.lane} cannot be told: {rights.unseen}")
        return rights

    @property
    def kept(self) -> tuple[str, ...]:
        """The roles whose rights stay: the lane's, and that of whoever migrates it, where it is another one."""
        names = (self.query.role, self.looking.user)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def reader_excess(self) -> ReaderExcess:
        """Raises CommandRefused."""
        if self.reader is None:
            return ()
        try:
            return self.kind.reader_excess(self.looking, self.reader)
        except driver_errors() as error:
            raise self._refused(error) from error

    def other_means(self) -> tuple[tuple[Writer, ...], tuple[Writer, ...], tuple[str, ...]]:
        """Triggers and the like, which are nobody's right; roles that keep theirs and that others have now; and what of
        these is not shown to this one."""
        try:
            writers = self.kind.writers(self.looking, self.query)
        except driver_errors() as error:
            raise self._refused(error) from error
        return (
            tuple(writer for writer in writers.found if writer.kind not in ("role", "file", "process")),
            tuple(writer for writer in writers.found if writer.is_shared),
            writers.unseen,
        )

    def revoke(self, statements: Sequence[str]) -> None:
        """Raises CommandRefused."""
        try:
            self.kind.revoke(self.looking, statements)
        except driver_errors() as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> CommandRefused:
        detail = " ".join(str(getattr(error, "orig", None) or error).split())
        return CommandRefused(f"the database of lane {self.lane}: {detail}")


@click.command("guard", cls=Exemplified, example="guard seats", acts_by="--apply")
@click.argument("lane", type=LANE)
@click.option("--apply", "is_applied", is_flag=True, help="Run the statements that it would otherwise only print.")
@click.option("--wide", "is_wide", is_flag=True, help="Also those that end more than the right to write these tables.")
@reason_option
@json_option
@refusing
def guard(lane: str, reason: str | None, *, is_applied: bool, is_wide: bool, as_json: bool) -> None:
    """Take away what lets others write the tables of LANE, or its readers read what is the lane's alone, and show who
    still can.

    It prints the statements, and runs them with --apply, as `<LANE>_MIGRATION_URL` where that is set. Rights to read
    stay, and so do those of the lane's role and of the one that migrates. Triggers, rules, events, routines and
    foreign keys are shown only.

    Exit status 0: no other role may write, apart from administrators, and readers read no more than they should; 1: one
    may (without --apply: now), or a program that is none of this system's has the lane's role, as PostgreSQL shows.
    """
    guarded = _guarded(lane)
    rights, (reads, limits) = guarded.foreign_rights(), _parted(guarded.reader_excess())
    statements = (*rights.statements(is_wide=is_wide), *reads.statements(is_wide=is_wide))
    if is_applied and statements:
        with lane_admin(lane) as admin:
            admin.record(act_of(lane, "guard", reason, statements=statements))
        guarded.revoke(statements)
        if not as_json:
            _print_lines("Revoked:", (f"{statement};" for statement in statements))
        rights, (reads, limits) = guarded.foreign_rights(), _parted(guarded.reader_excess())
    means, shared, unseen = guarded.other_means()
    if as_json:
        administrators = [right for right in rights.found if right.is_administrators]
        shown = {
            "applied": is_applied,
            "statements": statements,
            "remaining": msgspec.to_builtins(rights.remaining),
            "administrators": msgspec.to_builtins(administrators),
            "other_means": msgspec.to_builtins(means),
            "unseen": unseen,
            "reads": msgspec.to_builtins(reads.found),
            "kept": guarded.kept,
            "shared": msgspec.to_builtins(shared),
        }
        print_json({"lane": lane, **shown})
    else:
        for right in (*rights.found, *reads.found):
            _print_lines(f"{right.who}: {right.does}{_of_tables(right.tables)}", _ending(right, is_wide=is_wide))
        _print_means(lane, means)
        for note in unseen:
            click.echo(printable(f"{lane}: {note}"), err=True)
        _print_summary(guarded, rights)
        for writer in shared:
            click.echo(printable(f"{lane}: {_sharing(guarded, writer)}"))
        for who in sorted({right.who for right in reads.found}):
            click.echo(printable(f"{lane}: its readers may read tables that are the lane's alone: {who}"))
        if limits:
            click.echo(f"{lane}: its readers lack limits: `coordinator database-accounts {lane} --check` says which")
    if rights.remaining or reads.found or shared:
        sys.exit(EXIT_REFUSED)


def _parted(excess: ReaderExcess) -> tuple[ForeignRights, ReaderExcess]:
    """What lets readers read, and the rest."""
    return ForeignRights(tuple(each for each in excess if each.tables)), tuple(
        each for each in excess if not each.tables
    )


def _guarded(lane: str) -> _Guarded:
    looking = looking_at(lane)
    if looking.role is None and looking.is_migrating:
        raise CommandRefused(
            f"{settings_prefix(lane)}DATABASE_URL names no user: name the lane's role there, whose rights are to stay"
        )
    query = WritersQuery(tables_of(registry().service(lane)), lane, looking.role, looking.address.database)
    return _Guarded(lane, looking.kind, looking.address, looking.is_migrating, query, reader_of(lane, looking))


def _ending(right: ForeignRight, *, is_wide: bool) -> Iterator[str]:
    """How a right ends, or why it does not."""
    if not right.statements:
        yield f"stays: {right.why}"
        return
    if right.is_wide and not is_wide:
        yield f"stays without --wide: {right.why}"
    for statement in right.statements:
        yield f"{statement};"


def _of_tables(tables: Sequence[str]) -> str:
    if not tables:
        return ""
    more = f" and {len(tables) - _TABLES_SHOWN} more" if len(tables) > _TABLES_SHOWN else ""
    return f" ({', '.join(tables[:_TABLES_SHOWN])}{more})"


def _summary(guarded: _Guarded, rights: ForeignRights) -> str:
    lane = guarded.lane
    administrators = sorted({right.who for right in rights.found if right.is_administrators})
    beside = f", apart from administrators: {', '.join(administrators)}" if administrators else ""
    remaining = sorted({right.who for right in rights.remaining})
    if not remaining and guarded.looking.scheme in WITHOUT_SERVER:
        return f"{lane}: only its file's owner may write it, with any program: a file has no rights by table"
    if not remaining:
        return printable(f"{lane}: no role may write its tables but {_kept_roles(guarded)}{beside}")
    return printable(f"{lane}: others may write its tables: {', '.join(remaining)}{beside}")


def _print_summary(guarded: _Guarded, rights: ForeignRights) -> None:
    click.echo(_summary(guarded, rights))
    if _could_as_owner(guarded, rights):
        click.echo(printable(f"{guarded.lane}: {_as_whom(guarded)}"))


def _could_as_owner(guarded: _Guarded, rights: ForeignRights) -> bool:
    """Whether what stays may stay only since this is not the role that owns the tables."""
    if guarded.is_migrating or guarded.looking.scheme in WITHOUT_SERVER:
        return False
    return any(not right.statements for right in rights.remaining)


def _as_whom(guarded: _Guarded) -> str:
    prefix = settings_prefix(guarded.lane)
    return (
        f"it looked as {guarded.looking.user}, of {prefix}DATABASE_URL, since {prefix}MIGRATION_URL is not "
        "set: with the owner's address there it ends what this role may not"
    )


def _kept_roles(guarded: _Guarded) -> str:
    """Whose rights stay, by name: whoever has their passwords writes."""
    if not guarded.kept:
        return "that of the lane"
    lanes, *migrators = guarded.kept
    if migrators:
        return f"{lanes}, which must be the lane's alone, and {migrators[0]}, which migrates it"
    return f"{lanes}, which must be the lane's alone: a program that logs in as it writes, too"


def _print_means(lane: str, means: Sequence[Writer]) -> None:
    for writer in means:
        click.echo(printable(f"{writer.kind} {writer.name}: {writer.does}{_of_tables(writer.tables)}"))
    if means:
        click.echo(
            f"{lane}: by what is listed here its tables may be changed, too, and nothing here ends that: judge it"
        )


def _sharing(guarded: _Guarded, writer: Writer) -> str:
    whose = "the lane's" if writer.name == guarded.query.role else "that of whoever migrates it"
    return (
        f"others have its role {writer.name} now, {whose} (connections: {writer.connections}): give each program a "
        "role of its own (docs/MIGRATING.md, step 2)"
    )


def _print_lines(first: str, lines: Iterable[str]) -> None:
    """Each whole, as a statement is there to be read and copied."""
    click.echo(printable(first))
    for line in lines:
        click.echo(f"    {printable(line)}")
