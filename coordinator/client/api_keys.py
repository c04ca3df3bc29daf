"""Reading the API keys of a lane's database."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import check_lane_is_here, close_database, fetch, open_database, reading
from coordinator.stores.api_keys import KEYS_MAX
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import ApiKey, metadata
from coordinator.stores.mongodb.documents import row_of_document


class ApiKeysReader:
    """Reads them over a connection of its own: a gateway that is flooded with reads has none left for a while.
    `must_lead` and `lane` are those of `open_database`.

    Raises ConfigurationError for an address that cannot be used.
    """

    def __init__(self, url: str, *, must_lead: bool = False, lane: str | None = None) -> None:
        self._database = open_database(url, pool_max=1, must_lead=must_lead, lane=lane)

    async def read(self) -> list[ApiKey]:
        """As `read_api_keys`."""
        return await read_api_keys(self._database)

    async def close(self) -> None:
        """Disconnect."""
        await close_database(self._database)


async def read_api_keys(database: Database) -> list[ApiKey]:
    """All of them, those that are revoked, too. Raises LaneElsewhere, and DatabaseUnavailable."""
    await check_lane_is_here(database)
    if isinstance(database, AsyncEngine):
        return await fetch(database, select(metadata.tables[ApiKey.table]).limit(KEYS_MAX), ApiKey)
    async with reading():
        found = database[ApiKey.table].find({}).limit(KEYS_MAX)
        return [row_of_document(ApiKey, document) async for document in found]
