"""Reading the secrets with which a lane's gateways make ids of idempotency keys."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import fetch, reading
from coordinator.stores.api_keys import SECRETS_MAX
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import IdempotencySecret, metadata
from coordinator.stores.mongodb.documents import row_of_document


async def read_idempotency_secrets(database: Database) -> list[IdempotencySecret]:
    """The last ones, the one in use first. Raises DatabaseUnavailable."""
    if isinstance(database, AsyncEngine):
        table = metadata.tables[IdempotencySecret.table]
        query = select(table).order_by(table.c.id.desc()).limit(SECRETS_MAX)
        return await fetch(database, query, IdempotencySecret)
    async with reading():
        found = database[IdempotencySecret.table].find({}).sort("_id", -1).limit(SECRETS_MAX)
        return [row_of_document(IdempotencySecret, document) async for document in found]
