"""Reading the command log: the outcome of a command, by its id, and who asked for commands."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import fetch, fetch_documents, reading
from coordinator.client.proved_places import ProvedPlaces
from coordinator.client.read_turns import turn_of
from coordinator.protocol.fingerprints import Fingerprints
from coordinator.service.rows import Row
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import LogEntry, metadata
from coordinator.stores.mongodb.documents import Documents, row_of_document

IDS_AT_ONCE: Final = 500


class Asked(Row, table=LogEntry.table, key="command_id"):
    """Who asked for a settled command (`LogEntry.actor`), when it was settled, what came of it, and why it was not
    applied: an entry without its content. `status` is empty where a failover may lose the command, as far as is known.
    """

    command_id: str
    settled_at: datetime
    error_code: str | None = None
    actor: str | None = None
    status: str = ""
    sequence: int = 0


class Passed(Row, table=LogEntry.table, key="command_id"):
    """How a settled command came through its lane (`coordinator.stores.passages`): an entry with no more than that."""

    command_id: str
    sequence: int
    settled_at: datetime
    passage: str | None = None


class CommandLog(Protocol):
    """The settled commands of one lane: those of which a failover to a synchronous standby loses none."""

    async def find(self, command_id: str) -> LogEntry | None:
        """The entry of this command, or None while it is not settled. Raises DatabaseUnavailable, and NotProved where
        it is only just settled, and not known to be safe."""

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        """Of those of these commands that are settled, by their ids: their entries.

        One query after the other, for `IDS_AT_ONCE` commands each. Raises DatabaseUnavailable.
        """

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        """Of those of these commands that are settled, by their ids: who asked for them.

        One query after the other, for `IDS_AT_ONCE` commands each. Raises DatabaseUnavailable.
        """

    async def fingerprints(self) -> Fingerprints:
        """With the lane's keys, to compare an entry's with. Raises DatabaseUnavailable."""

    async def passages(self, first: int, last: int) -> Sequence[Passed]:
        """Of the entries from one sequence to another, in their order. Raises DatabaseUnavailable."""


class CommandLogs:
    """Those of the lanes that one gateway serves, by their lanes; there is one at least."""

    def __init__(self, logs: Mapping[str, CommandLog]) -> None:
        self._logs = logs
        self._first = next(iter(logs.values()))

    def of(self, lane: str) -> CommandLog:
        """That of a lane; of one that is served elsewhere the first one's, which may have none of its commands."""
        return self._logs.get(lane, self._first)

    def __contains__(self, lane: str) -> bool:
        """Whether a lane's own is among them."""
        return lane in self._logs

    async def find(self, command_id: str) -> list[tuple[str, LogEntry]]:
        """Each lane that has settled a command with this id, and its entry: a client may give one id to several.

        Raises DatabaseUnavailable where none is found, and some database does not answer.
        """
        lanes = list(self._logs)
        if len(lanes) == 1:
            found: list[LogEntry | BaseException | None] = [await self._first.find(command_id)]
        else:
            finding = (log.find(command_id) for log in self._logs.values())
            found = await asyncio.gather(*finding, return_exceptions=True)
        entries = [(lane, each) for lane, each in zip(lanes, found, strict=True) if isinstance(each, LogEntry)]
        for each in found if not entries else ():
            if isinstance(each, BaseException):
                raise each
        return entries


class SqlCommandLog:
    """The command log in an SQL database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._proved = ProvedPlaces(engine)

    async def find(self, command_id: str) -> LogEntry | None:
        table = metadata.tables[LogEntry.table]
        rows = await fetch(self._engine, select(table).where(table.c.command_id == command_id), LogEntry)
        if rows:
            await self._proved.until(rows[0].sequence)
        return rows[0] if rows else None

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        table = metadata.tables[LogEntry.table]
        found: dict[str, LogEntry] = {}
        for some in _parts(command_ids):
            rows = await fetch(self._engine, select(table).where(table.c.command_id.in_(some)), LogEntry)
            found |= {row.command_id: row for row in rows if await self._proved.has(row.sequence)}
        return found

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        columns = metadata.tables[LogEntry.table].c
        asked = select(*(columns[name] for name in Asked.__struct_fields__))
        found: dict[str, Asked] = {}
        for some in _parts(command_ids):
            for row in await fetch(self._engine, asked.where(columns.command_id.in_(some)), Asked):
                is_safe = await self._proved.has(row.sequence)
                found[row.command_id] = row if is_safe else replace(row, status="")
        return found

    async def fingerprints(self) -> Fingerprints:
        keys = await fetch(self._engine, select(metadata.tables[FingerprintKey.table]), FingerprintKey)
        return Fingerprints({key.id: key.secret for key in keys})

    async def passages(self, first: int, last: int) -> Sequence[Passed]:
        columns = metadata.tables[LogEntry.table].c
        query = select(*(columns[name] for name in Passed.__struct_fields__))
        query = query.where(columns.sequence.between(first, last)).order_by(columns.sequence)
        return await fetch(self._engine, query, Passed)


class DocumentCommandLog:
    """The command log in MongoDB."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def find(self, command_id: str) -> LogEntry | None:
        entries = self._documents[LogEntry.table]
        async with reading(entries), turn_of(self._documents):
            document = await entries.find_one({"_id": command_id})
        return None if document is None else row_of_document(LogEntry, document)

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        found: dict[str, LogEntry] = {}
        for some in _parts(command_ids):
            cursor = self._documents[LogEntry.table].find({"_id": {"$in": some}})
            found |= {row.command_id: row for row in await fetch_documents(cursor, LogEntry)}
        return found

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        shown = dict.fromkeys(Asked.__struct_fields__[1:], 1)
        found: dict[str, Asked] = {}
        for some in _parts(command_ids):
            cursor = self._documents[LogEntry.table].find({"_id": {"$in": some}}, shown)
            found |= {row.command_id: row for row in await fetch_documents(cursor, Asked)}
        return found

    async def fingerprints(self) -> Fingerprints:
        keys = await fetch_documents(self._documents[FingerprintKey.table].find({}), FingerprintKey)
        return Fingerprints({key.id: key.secret for key in keys})

    async def passages(self, first: int, last: int) -> Sequence[Passed]:
        shown = dict.fromkeys(Passed.__struct_fields__[1:], 1)
        between = {"sequence": {"$gte": first, "$lte": last}}
        cursor = self._documents[LogEntry.table].find(between, shown).sort("sequence", 1)
        return await fetch_documents(cursor, Passed)


def open_command_log(database: Database) -> CommandLog:
    """The command log of a database of any kind."""
    return SqlCommandLog(database) if isinstance(database, AsyncEngine) else DocumentCommandLog(database)


def _parts(command_ids: Collection[str]) -> Iterator[list[str]]:
    ids = list(command_ids)
    return (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))
