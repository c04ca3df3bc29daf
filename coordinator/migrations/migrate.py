"""Bringing a service's database to the schema that this release needs, and giving its gateways a role that only reads.

Running it again, or from several places at once, does no harm.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import structlog

from coordinator.runtime.addresses import Address, address_of, parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.stores.announcements import Withdrawal, check_withdrawals
from coordinator.stores.kinds import Kind, check_role, kind_of
from coordinator.stores.revisions import Revision

log = structlog.get_logger("migrate")


def migrate(service: Service, settings: DatabaseSettings, withdrawals: Sequence[Withdrawal] = ()) -> None:
    """Migrate one service's database, and take announcements of commands back that the service does not know.

    Raises ConfigurationError when it cannot be reached or refuses, and when a model has no table afterwards; for
    withdrawals of what the service knows, before anything is done.
    """
    check_withdrawals(service, withdrawals)
    owner = _owner(service, settings)
    lane = _address(service, "DATABASE", settings)
    reader = _address(service, "READER", settings) if settings.reader_url else None
    with _translated(service, settings, "the database cannot be migrated", kind := kind_of(owner)):
        kind.migrate(service, owner, lane, reader, withdrawals)
    log.info("migrated", service=service.lane)


def revisions(service: Service, settings: DatabaseSettings) -> Sequence[Revision]:
    """Which revisions its database has, and which this release wants; empty: its kind has none. Changes nothing.

    Raises ConfigurationError when it cannot be reached or refuses.
    """
    owner, lane = _owner(service, settings), _address(service, "DATABASE", settings)
    with _translated(service, settings, "the database's revisions cannot be read", kind := kind_of(owner)):
        return kind.revisions(service, owner, lane)


def _owner(service: Service, settings: DatabaseSettings) -> Address:
    return _address(service, "MIGRATION" if settings.migration_url else "DATABASE", settings)


@contextmanager
def _translated(service: Service, settings: DatabaseSettings, what: str, kind: Kind) -> Iterator[None]:
    try:
        yield
    except kind.errors as error:
        # Without the statement, which may hold a role's password.
        detail = " ".join(str(getattr(error, "orig", None) or error).split())
        prefix = settings_prefix(service.lane)
        asked = (
            f"as {prefix}MIGRATION_URL has it"
            if settings.migration_url
            else f"as {prefix}DATABASE_URL has it; where the lane's role may not, {prefix}MIGRATION_URL names the owner"
        )
        raise ConfigurationError(f"{service.lane}: {what} ({asked}): {detail}") from None


def _address(service: Service, name: Literal["DATABASE", "READER", "MIGRATION"], settings: DatabaseSettings) -> Address:
    with address_of(f"{settings_prefix(service.lane)}{name}_URL"):
        address = parse_address(getattr(settings, f"{name.lower()}_url"))
        lanes = parse_address(settings.database_url)
        if address.folder != lanes.folder:
            raise ConfigurationError("it is of another kind of database than the lane's")
        if address.hosts and address.hosts == lanes.hosts and address.database != lanes.database:
            setting = f"{settings_prefix(service.lane)}DATABASE_URL"
            raise ConfigurationError(
                f"it names the database {address.database!r:.100}, and {setting} {lanes.database!r:.100} of the same "
                "server: both must name the lane's"
            )
        check_role(address, is_reader=name == "READER")
    return address
