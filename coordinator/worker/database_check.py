"""The check of a lane's database at the start of its process."""

import asyncio

import structlog

from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.stores.lane_tables import LEFT_BY_LANE
from coordinator.stores.moves import check_not_moved
from coordinator.stores.one_lane import lease_lost
from coordinator.stores.port import NotAdmitted, Store, StoreUnavailable

log = structlog.get_logger("database")


class MoveUnfinished(StoreUnavailable):
    """Raised while a lane is being copied to this database: it comes in a moment."""


async def check_database(store: Store, service: Service, settings: LaneSettings) -> None:
    """As `check_now`, in a thread."""
    await asyncio.to_thread(check_now, store, service, settings)


def check_now(store: Store, service: Service, settings: LaneSettings) -> None:
    """Check whether the database is the lane's and fit for it.

    Raises StoreError if it is away, or does not have the lane yet that moves there, and ConfigurationError, also where
    it answers that it does not know this user, password or name, and Moved where the lane has left it.
    """
    try:
        warnings = store.check(service.models, must_sync=not settings.allow_unsynced)
    except NotAdmitted as error:
        raise ConfigurationError(f"{settings_prefix(service.lane)}DATABASE_URL: {error}") from None
    lease = store.current()
    if lease is None and _has_run(store):
        # A migration may have made both meanwhile.
        lease = store.current()
        if lease is None:
            raise lease_lost(service.lane)
    move = None if lease is None else lease.move
    check_not_moved(move)
    if move is not None and move.step == "receiving":
        # It may not have the lane's commands either before it has the lane.
        raise MoveUnfinished(move.words)
    for warning in warnings:
        log.warning("commits_may_be_lost", lane=service.lane, reason=warning)


def _has_run(store: Store) -> bool:
    """Whether the lane has left anything there. Raises StoreError."""
    transaction = store.begin()
    try:
        return any(transaction.scan(model, 1) for model in LEFT_BY_LANE)
    finally:
        transaction.rollback()
