"""The record of `coordinator migrate` among operators' acts."""

from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version

import msgspec

from coordinator.migrations.migrate import revisions
from coordinator.operate import output
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.stores.announcements import Withdrawal
from coordinator.stores.audit import ActQuery
from coordinator.stores.kinds import kind_of
from coordinator.stores.operator_acts import MIGRATE_ACT, made_act


def record_migration(
    service: Service, settings: DatabaseSettings, withdrawals: Sequence[Withdrawal], reason: str | None
) -> None:
    """Keep that the database of a lane has been migrated, with whose release; not again where nothing is new in it.

    Raises ConfigurationError and DatabaseUnavailable.
    """
    address = parse_address(settings.migration_url or settings.database_url)
    details: dict[str, object] = {"release": _release(), "commands": dict(sorted(service.versions.items()))}
    if withdrawals:
        named = (each.type if each.version is None else f"{each.type}={each.version}" for each in withdrawals)
        details["withdrawn"] = list(named)
    act = made_act(output.now(), output.as_user(), MIGRATE_ACT, details, account=address.user, reason=reason)
    with closing(kind_of(address).open_admin(address, service.lane)) as admin:
        before = next(iter(admin.acts(ActQuery(act=MIGRATE_ACT), None, 1)), None)
        if before is None or reason or msgspec.json.decode(before.details) != msgspec.json.decode(act.details):
            admin.record(act)


def print_revisions(services: Sequence[Service]) -> int:
    """Print which revisions the databases have, and which this release wants; return the exit status: 1 where they
    differ.

    Raises ConfigurationError.
    """
    rows: list[tuple[str, str, str, str]] = []
    for service in services:
        settings = load(DatabaseSettings, prefix=settings_prefix(service.lane))
        found = revisions(service, settings)
        rows += [(service.lane, each.history, each.here or "-", each.wanted) for each in found]
        if not found:
            rows.append((service.lane, "-", "-", "-"))
    output.print_table(("LANE", "HISTORY", "HERE", "WANTED"), rows)
    return output.EXIT_REFUSED if any(here != wanted for *_, here, wanted in rows) else 0


def _release() -> str:
    try:
        return version("write-coordinator")
    except PackageNotFoundError:
        return "not installed"
