"""Bringing a service's database to the schema that this release needs, and giving its gateways a role that only reads.

Running it again, or from several places at once, does no harm.
"""

import structlog

from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of

log = structlog.get_logger("migrate")


def migrate(service: Service, settings: DatabaseSettings) -> None:
    """Migrate one service's database.

    Raises ConfigurationError when it cannot be reached or refuses, and when a model has no table afterwards.
    """
    url = settings.migration_url or settings.database_url
    kind = kind_of(url)
    try:
        kind.migrate(service, url, settings.reader_url)
    except kind.errors as error:
        detail = str(getattr(error, "orig", None) or error).strip()
        raise ConfigurationError(f"{service.name}: the database cannot be migrated: {detail}") from error
    log.info("migrated", service=service.name)
