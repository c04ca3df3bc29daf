"""`coordinator database-accounts`: the roles of lanes and gateways in their databases, and the user of their cache."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

import click
from msgspec import Struct

from coordinator.arguments import LANE
from coordinator.exemplified import Exemplified
from coordinator.operate.output import EXIT_REFUSED, CommandRefused, refusing
from coordinator.operate.writers import looking_at, reader_of
from coordinator.registry import Registry, registry
from coordinator.runtime.addresses import Address, address_of, parse_address
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.text import printable
from coordinator.stores.kinds import Kind, check_role, driver_errors, kind_of
from coordinator.stores.reading_rights import ReadingRights, reading_rights

ELSEWHERE_SHOWN_MAX: Final = 10


class DatabaseRoles(Struct, frozen=True):
    """The addresses of a lane's database, by whose they are."""

    kind: Kind
    owner: Address | None
    lane: Address
    reader: Address | None


@click.command("database-accounts", cls=Exemplified, example="database-accounts seats", acts_by="--apply")
@click.argument("lanes", nargs=-1, type=LANE)
@click.option("--apply", "is_apply", is_flag=True, help="Make them, as the role of <LANE>_MIGRATION_URL.")
@click.option("--check", "is_check", is_flag=True, help="Say what the readers' roles may beyond that; change nothing.")
@refusing
def database_accounts_command(lanes: tuple[str, ...], *, is_apply: bool, is_check: bool) -> None:
    """Print what an administrator of the databases of LANES (all, if none is named) runs: a role for the lane, one for
    its readers and the owner's, with the least rights; and the user of Redis, where a service has a cache.

    The roles are those of <LANE>_DATABASE_URL, _READER_URL and _MIGRATION_URL. No password is printed. `coordinator
    migrate` makes the same roles of the lane and its readers, where it may. What a server gives others is what
    `coordinator writers` shows.

    --check prints each thing that a readers' role may do beyond this, or limit that it lacks, with the statement that
    mends it. Exit status 0: there is none; 1: there are some.
    """
    if is_apply and is_check:
        raise click.UsageError("--apply and --check are two different things: name one.")
    known = registry()
    roles = {lane: _roles_of(lane) for lane in lanes or known.names}
    if is_check:
        checked = [_check(lane) for lane in roles]
        if any(checked):
            sys.exit(EXIT_REFUSED)
        return
    for lane, each in roles.items():
        rights = reading_rights(known.service(lane))
        if is_apply:
            _make(lane, each, rights)
            continue
        for line in each.kind.account_lines(each.owner, each.lane, each.reader, rights):
            click.echo(printable(line))
    if not is_apply:
        for line in _cache_lines(known, list(roles)):
            click.echo(printable(line))


def _roles_of(lane: str) -> DatabaseRoles:
    settings = load(DatabaseSettings, prefix=settings_prefix(lane))
    address = _address(lane, "DATABASE", settings.database_url)
    kind = kind_of(address)
    others = []
    for name, url in (("MIGRATION", settings.migration_url), ("READER", settings.reader_url)):
        other = None if url is None else _address(lane, name, url)
        if other is not None and other.folder != address.folder:
            raise ConfigurationError(
                f"{settings_prefix(lane)}{name}_URL: it is of another kind of database than the lane's"
            )
        others.append(other)
    owner, reader = others
    return DatabaseRoles(kind, owner, address, reader)


def _address(lane: str, name: str, url: str) -> Address:
    with address_of(f"{settings_prefix(lane)}{name}_URL"):
        address = parse_address(url)
        check_role(address, is_reader=name == "READER")
        return address


def _make(lane: str, roles: DatabaseRoles, rights: ReadingRights) -> None:
    setting = f"{settings_prefix(lane)}MIGRATION_URL"
    if roles.owner is None:
        raise ConfigurationError(f"{setting} is not set: it is the role that makes the others")
    if roles.reader is not None and roles.reader.user in (None, roles.lane.user, roles.owner.user):
        raise ConfigurationError(f"{settings_prefix(lane)}READER_URL: it needs a user of its own, that cannot write")
    try:
        roles.kind.make_accounts(roles.owner, roles.lane, roles.reader, rights)
    except driver_errors() as error:
        # Without the statement, which may hold a password.
        detail = " ".join(str(getattr(error, "orig", None) or error).split())
        raise CommandRefused(f"{setting}: {roles.owner.user} cannot make the roles of {lane}: {detail}") from None
    click.echo(f"{lane}: {printable(str(roles.lane.user))} reads and writes rows")
    if roles.reader is not None:
        click.echo(f"{lane}: {printable(str(roles.reader.user))} reads what gateways read")


def _check(lane: str) -> bool:
    """Print what the readers' role may beyond its rights; whether there is anything."""
    looking = looking_at(lane)
    reader = reader_of(lane, looking)
    if reader is None:
        click.echo(f"{lane}: {settings_prefix(lane)}READER_URL has no role of its own: nobody's rights are checked")
        return False
    try:
        found = looking.kind.reader_excess(looking.address, reader)
        elsewhere = looking.kind.reader_elsewhere(looking.address, reader)
    except driver_errors() as error:
        detail = " ".join(str(getattr(error, "orig", None) or error).split())
        raise CommandRefused(
            f"the database of lane {lane}: the rights of {reader.role} are not shown: {detail}"
        ) from error
    for right in found:
        of = f" ({', '.join(right.tables)})" if right.tables else ""
        also = "" if right.why is None else f": {right.why}"
        click.echo(printable(f"{lane}: {right.who}: {right.does}{of}{also}"))
        for statement in right.statements:
            click.echo(f"    {printable(statement)};")
    if elsewhere:
        # None of it is an excess in the lane's database, and others may live of it.
        shown = ", ".join(elsewhere[:ELSEWHERE_SHOWN_MAX]) + (", …" if len(elsewhere) > ELSEWHERE_SHOWN_MAX else "")
        click.echo(
            printable(
                f"note: {reader.role} may enter other databases of the server of lane {lane}, and fill locks and disk "
                f"from there, unless pg_hba.conf keeps it out: {shown} (docs/SECURITY.md)"
            ),
            err=True,
        )
    if not found:
        click.echo(f"{lane}: {printable(reader.role)} reads what gateways read, and no more")
    return bool(found)


def _cache_lines(known: Registry, lanes: Sequence[str]) -> Iterator[str]:
    cached = [lane for lane in lanes if known.service(lane).projection is not None]
    if not cached:
        return
    from coordinator.cache.rights import acl_line, reader_acl_line  # noqa: PLC0415  # no other command needs the driver

    keys: list[str] = []
    for lane in cached:
        declared = known.dev(lane)
        keys += ["*"] if declared is None else declared.cache_keys
    user = parse_address(load(CacheSettings).url).user or "coordinator"
    of = ", ".join(cached)
    yield f"# Redis, for {of}: as an administrator in redis-cli, with a password in the place of PASSWORD"
    yield acl_line(user, keys)
    yield "# its gateways, from Redis 7 on, which only read the lease: in their REDIS_URL"
    yield reader_acl_line(f"{user}_reader", keys)
