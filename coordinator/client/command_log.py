"""Reading the command log: the outcome of a command, by its id."""

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import fetch, reading
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import LogEntry, metadata
from coordinator.stores.mongodb.documents import Documents, row_of_document


class CommandLog(Protocol):
    """The settled commands of one lane."""

    async def find(self, command_id: str) -> LogEntry | None:
        """The entry of this command, or None while it is not settled. Raises DatabaseUnavailable."""


class SqlCommandLog:
    """The command log in an SQL database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, command_id: str) -> LogEntry | None:
        table = metadata.tables[LogEntry.table]
        rows = await fetch(self._engine, select(table).where(table.c.command_id == command_id), LogEntry)
        return rows[0] if rows else None


class DocumentCommandLog:
    """The command log in MongoDB."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def find(self, command_id: str) -> LogEntry | None:
        async with reading():
            document = await self._documents[LogEntry.table].find_one({"_id": command_id})
        return None if document is None else row_of_document(LogEntry, document)


def open_command_log(database: Database) -> CommandLog:
    """The command log of a database of any kind."""
    return SqlCommandLog(database) if isinstance(database, AsyncEngine) else DocumentCommandLog(database)
