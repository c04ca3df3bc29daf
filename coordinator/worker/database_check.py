"""The check of a lane's database at the start of its process."""

import asyncio

import structlog

from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.port import NotAdmitted, Store, StoreError

log = structlog.get_logger("database")


async def check_database(store: Store, service: Service, settings: LaneSettings) -> None:
    """Check whether the database is the lane's and fit for it.

    Raises StoreError if it is away, and ConfigurationError, also where it answers that it does not know this user,
    password or name.
    """
    try:
        warnings = await asyncio.to_thread(store.check, service.models, must_sync=not settings.allow_unsynced)
    except NotAdmitted as error:
        raise ConfigurationError(f"{service.name.upper()}_DATABASE_URL: {error}") from None
    for warning in warnings:
        log.warning("commits_may_be_lost", lane=service.name, reason=warning)


async def check_unless_away(store: Store, service: Service, settings: LaneSettings) -> None:
    """The same, but a database that is away stays unchecked: the lane waits for it. Raises ConfigurationError."""
    try:
        await check_database(store, service, settings)
    except StoreError as error:
        log.error("database_unavailable", lane=service.name, reason=str(error))  # no defect of ours
