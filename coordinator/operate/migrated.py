"""The record of `coordinator migrate` among operators' acts."""

from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version

import msgspec

from coordinator.operate import output
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
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


def _release() -> str:
    try:
        return version("write-coordinator")
    except PackageNotFoundError:
        return "not installed"
