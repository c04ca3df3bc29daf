"""Reading the API keys of a lane's database."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import fetch, reading
from coordinator.stores.api_keys import KEYS_MAX
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import ApiKey, metadata
from coordinator.stores.mongodb.documents import row_of_document


async def read_api_keys(database: Database) -> list[ApiKey]:
    """All of them, those that are revoked, too. Raises DatabaseUnavailable."""
    if isinstance(database, AsyncEngine):
        return await fetch(database, select(metadata.tables[ApiKey.table]).limit(KEYS_MAX), ApiKey)
    async with reading():
        found = database[ApiKey.table].find({}).limit(KEYS_MAX)
        return [row_of_document(ApiKey, document) async for document in found]
