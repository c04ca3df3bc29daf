"""Which implementation of their repository items have, by the kind of database that is read."""

from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.reading import Database
from shared.items.repository import ItemRepository

# ruff: noqa: PLC0415  # a gateway loads the driver of its database, and no other


def open_items(database: Database) -> ItemRepository:
    """The items of a database of any kind."""
    if isinstance(database, AsyncEngine):
        from shared.items.on_sql import SqlItems

        return SqlItems(database)
    from shared.items.on_mongodb import DocumentItems

    return DocumentItems(database)
