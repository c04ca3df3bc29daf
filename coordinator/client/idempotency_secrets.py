"""Reading the secrets with which a lane's gateways make ids of idempotency keys."""

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import check_lane_is_here, fetch, reading
from coordinator.stores.api_keys import SECRETS_MAX
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import IdempotencySecret, metadata
from coordinator.stores.mongodb.documents import row_of_document


class LaneSecrets(Struct, frozen=True):
    """The last secrets of a lane's database, the one in use first.

    `has_run`: the lane has run there. Where it has not, they may be replaced by those of another database, from which
    the lane moves here: each migration makes one.
    """

    rows: Sequence[IdempotencySecret]
    has_run: bool = True


async def read_idempotency_secrets(database: Database) -> LaneSecrets:
    """Raises LaneElsewhere, and DatabaseUnavailable."""
    has_run = await check_lane_is_here(database)
    if isinstance(database, AsyncEngine):
        table = metadata.tables[IdempotencySecret.table]
        query = select(table).order_by(table.c.id.desc()).limit(SECRETS_MAX)
        return LaneSecrets(await fetch(database, query, IdempotencySecret), has_run)
    async with reading():
        found = database[IdempotencySecret.table].find({}).sort("_id", -1).limit(SECRETS_MAX)
        return LaneSecrets([row_of_document(IdempotencySecret, document) async for document in found], has_run)
