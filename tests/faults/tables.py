"""The databases' own tables, read directly and not through any code that wrote them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from pymongo import MongoClient
from sqlalchemy import text
from sqlalchemy.engine import Engine

from coordinator.runtime.addresses import scheme_of
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.times import utc
from tests.support.databases import sql_engine

_TIMEOUT_S = 5


class LeaseRow(msgspec.Struct, frozen=True):
    """The lease as it stands."""

    epoch: int
    sequence: int
    holder: str


class Tables:
    """One lane's database. Blocking; each call may raise whatever its driver raises while the server is away."""

    def __init__(self, url: str) -> None:
        self._engine: Engine | None = None
        self._client: MongoClient[dict[str, Any]] | None = None
        if scheme_of(url) == "mongodb":
            self._client = MongoClient(
                url,
                tz_aware=True,
                serverSelectionTimeoutMS=_TIMEOUT_S * 1000,
                socketTimeoutMS=_TIMEOUT_S * 1000,
            )
        else:
            self._engine = sql_engine(url, pool_pre_ping=True, pool_size=4)

    def lease(self) -> LeaseRow | None:
        """None: nobody has taken the lane yet."""
        rows = self.rows("lane_lease")
        return LeaseRow(rows[0]["epoch"], rows[0]["sequence"], rows[0]["holder"]) if rows else None

    def began(self, epoch: int) -> tuple[datetime, datetime] | None:
        """When the lane was taken under this epoch, and when its first command was settled; None: it is not that far.

        By the clock of the consumer.
        """
        if self._client is not None:
            database = self._client.get_default_database()
            leases = list(database["lane_lease"].find({"epoch": epoch}))
            entries = list(database["command_log"].find({"epoch": epoch}).sort("sequence").limit(1))
        else:
            assert self._engine is not None
            first = "SELECT settled_at FROM command_log WHERE epoch = :epoch ORDER BY sequence LIMIT 1"
            with self._engine.connect() as connection:
                found = connection.execute(
                    text("SELECT taken_at FROM lane_lease WHERE epoch = :epoch"), {"epoch": epoch}
                )
                leases = [dict(row) for row in found.mappings()]
                entries = [dict(row) for row in connection.execute(text(first), {"epoch": epoch}).mappings()]
        return (utc(leases[0]["taken_at"]), utc(entries[0]["settled_at"])) if leases and entries else None

    def log(self) -> list[LogEntry]:
        """The command log in order."""
        entries = []
        for row in self.rows("command_log"):
            named = {"command_id": row["_id"], **row} if "_id" in row else row
            entries.append(LogEntry(**{name: utc(named[name]) for name in LogEntry.__struct_fields__}))
        return sorted(entries, key=lambda entry: entry.sequence)

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """Every row; in MongoDB the key is `_id`."""
        if self._client is not None:
            return list(self._client.get_default_database()[table].find({}))
        assert self._engine is not None
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]

    def count(self, table: str) -> int:
        """How many rows a table has."""
        if self._client is not None:
            return self._client.get_default_database()[table].count_documents({})
        assert self._engine is not None
        with self._engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    def logged(self) -> dict[str, int]:
        """How many commands of each type the command log has."""
        if self._client is not None:
            groups = self._client.get_default_database()["command_log"].aggregate(
                [{"$group": {"_id": "$type", "count": {"$sum": 1}}}]
            )
            return {group["_id"]: int(group["count"]) for group in groups}
        assert self._engine is not None
        with self._engine.connect() as connection:
            rows = connection.execute(text("SELECT type, count(*) FROM command_log GROUP BY type")).all()
        return {type_: int(count) for type_, count in rows}

    def keyed(self, table: str, key: str = "id") -> dict[Any, Mapping[str, Any]]:
        """Every row by its key."""
        return {row["_id"] if "_id" in row else row[key]: row for row in self.rows(table)}

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._engine is not None:
            self._engine.dispose()
