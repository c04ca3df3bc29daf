"""`coordinator writers`: what can change a service's rows without a command."""

import click
import msgspec
from msgspec import Struct

from coordinator.arguments import LANE
from coordinator.exemplified import Exemplified
from coordinator.operate.output import CommandRefused, json_option, print_json, print_table, refusing
from coordinator.registry import registry
from coordinator.runtime.addresses import Address, address_of, parse_address
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.lane_names import settings_prefix
from coordinator.service.text import printable
from coordinator.stores.kinds import Kind, driver_errors, kind_of
from coordinator.stores.reader_excess import ReaderQuery
from coordinator.stores.reading_rights import reading_rights
from coordinator.stores.writers import Writers, WritersQuery


@click.command("writers", cls=Exemplified, example="writers seats", looks=True)
@click.argument("lanes", nargs=-1, type=LANE)
@json_option
@refusing
def writers(lanes: tuple[str, ...], *, as_json: bool) -> None:
    """Show what else can write the tables of LANES (all, if none is named), beside the lane itself.

    Roles with the right to, and how many connections they have now; triggers, foreign keys that follow other rows,
    rules, events and routines. It looks as `<LANE>_MIGRATION_URL`, where that is set: the lane's role sees less.
    """
    found = {lane: _writers_of(lane) for lane in lanes or registry().names}
    if as_json:
        print_json([{"lane": lane, **msgspec.to_builtins(each)} for lane, each in found.items()])
        return
    print_table(
        ("LANE", "KIND", "NAME", "DOES", "CONNECTIONS", "TABLES"),
        [
            (lane, writer.kind, writer.name, writer.does, writer.connections, ", ".join(writer.tables))
            for lane, each in found.items()
            for writer in each.found
        ],
    )
    for lane, each in found.items():
        for note in each.unseen:
            click.echo(f"{lane}: {note}", err=True)


class Looking(Struct, frozen=True):
    """How the rights in a lane's database are looked at: as whom, and which role is the lane's; None: it has none."""

    kind: Kind
    address: Address
    role: str | None
    is_migrating: bool
    """Whether that is `<LANE>_MIGRATION_URL`, and not the lane's own address."""


def looking_at(lane: str) -> Looking:
    """Raises ConfigurationError."""
    prefix = settings_prefix(lane)
    settings = load(DatabaseSettings, prefix=prefix)
    role = parse_address(settings.database_url).user
    setting = "MIGRATION_URL" if settings.migration_url else "DATABASE_URL"
    address = parse_address(settings.migration_url or settings.database_url)
    with address_of(f"{prefix}{setting}"):
        kind = kind_of(address)
        kind.check_address(address)
    return Looking(kind, address, role, bool(settings.migration_url))


def reader_of(lane: str, looking: Looking) -> ReaderQuery | None:
    """The role of the lane's readers; None: there is none that is nobody else's. Raises ConfigurationError."""
    url = load(DatabaseSettings, prefix=settings_prefix(lane)).reader_url
    role = None if url is None else parse_address(url).user
    if role in (None, looking.role, looking.address.user):
        return None
    return ReaderQuery(role, looking.address.database, reading_rights(registry().service(lane)).withheld)


def _writers_of(lane: str) -> Writers:
    looking = looking_at(lane)
    tables = tuple(model.table for model in registry().service(lane).models)
    try:
        found = looking.kind.writers(
            looking.address, WritersQuery(tables, lane, looking.role, looking.address.database)
        )
    except driver_errors() as error:
        detail = " ".join(str(getattr(error, "orig", None) or error).split())
        raise CommandRefused(f"the database of lane {lane}: {detail}") from error
    if looking.role is None:
        return found
    note = (
        f"Whoever logs in as the lane's role, {printable(looking.role)}, writes as the lane does, and is seen only "
        "while connected: give the lane a role that no other program has (`coordinator database-accounts`)."
    )
    return Writers(found.found, (*found.unseen, note))
