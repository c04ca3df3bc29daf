"""The databases that are written to: making them, filling them, and asking them what they hold."""

from typing import Any, Protocol

import psycopg
from msgspec import structs
from pymongo import MongoClient
from sqlalchemy import text
from sqlalchemy.engine import Engine

from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import scheme_of
from coordinator.runtime.settings import DatabaseSettings
from tests.bench.invariants import State
from tests.bench.service import ACCOUNTS, BALANCE, ITEMS, NO_LANE, STOCK, metadata, service_named
from tests.support.databases import numbers_to, sql_engine

_SUMS = """
    SELECT a.balance, a.version, a.least, o.made, o.number, s.left_over, s.least
    FROM (SELECT sum(balance) AS balance, sum(version) AS version, min(balance) AS least FROM accounts) AS a,
         (SELECT count(*) AS made, coalesce(max(number), 0) AS number FROM orders) AS o,
         (SELECT sum(left_over) AS left_over, min(left_over) AS least FROM stock) AS s
"""
_SETTLED = "SELECT coalesce(max(sequence), 0) FROM lane_lease"


class BenchDatabase(Protocol):
    """One database of the benchmark. `lane` is the lane that writes to it; None: the alternatives do."""

    url: str
    lane: str | None

    def prepare(self) -> None:
        """Make the tables, and the rows that the workloads need."""

    def tidy(self) -> None:
        """Before a run: the dead rows of the run before must not slow this one down; the stock is full again."""

    def state(self) -> State:
        """What it holds."""

    def sequence(self) -> int:
        """How many commands its lane has settled."""

    def close(self) -> None:
        """Disconnect."""


def open_bench_database(url: str, lane: str | None) -> BenchDatabase:
    return DocumentDatabase(url, lane) if scheme_of(url) == "mongodb" else SqlDatabase(url, lane)


class SqlDatabase:
    """PostgreSQL or MariaDB."""

    def __init__(self, url: str, lane: str | None) -> None:
        self.url = url
        self.lane = lane
        self._is_postgresql = scheme_of(url) == "postgresql"
        self._engine: Engine = sql_engine(url)

    def prepare(self) -> None:
        metadata.create_all(self._engine)
        # The lane's tables are there for the alternatives too: they number orders with `counters`.
        migrate(service_named(self.lane or NO_LANE), DatabaseSettings(database_url=self.url))
        with self._engine.connect() as connection:
            for table, count, value in (
                ("accounts", ACCOUNTS, f"{BALANCE}, 1"),
                ("stock", ITEMS, f"{STOCK}"),
            ):
                numbers = numbers_to(count, is_postgresql=self._is_postgresql)
                connection.execute(text(f"INSERT INTO {table} SELECT n, {value} FROM {numbers}"))
            if self.lane is None:
                connection.execute(text("INSERT INTO counters (name, value) VALUES ('orders', 0)"))
        self.tidy()

    def tidy(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(f"UPDATE stock SET left_over = {STOCK} WHERE left_over <> {STOCK}"))
            if self._is_postgresql:
                connection.execute(text("VACUUM ANALYZE accounts, stock, orders, counters, lane_lease"))

    def state(self) -> State:
        with self._engine.connect() as connection:
            row = connection.execute(text(_SUMS)).one()
            sequence = logged = None
            if self.lane is not None:
                sequence = connection.execute(text(_SETTLED)).scalar()
                logged = connection.execute(text("SELECT count(*) FROM command_log")).scalar()
        return structs.replace(State(*(int(value) for value in row)), sequence=sequence, logged=logged)

    def sequence(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(text(_SETTLED)).scalar() or 0)

    def close(self) -> None:
        self._engine.dispose()


class DocumentDatabase:
    """MongoDB: the same documents as the lane's store makes of the rows."""

    def __init__(self, url: str, lane: str | None) -> None:
        self.url = url
        self.lane = lane
        self._client: MongoClient[dict[str, Any]] = MongoClient(url)
        self._database = self._client.get_default_database()

    def prepare(self) -> None:
        migrate(service_named(self.lane or NO_LANE), DatabaseSettings(database_url=self.url))
        database = self._database
        step = 10_000
        for first in range(1, ACCOUNTS + 1, step):
            database["accounts"].insert_many(
                [{"_id": key, "balance": BALANCE, "version": 1} for key in range(first, first + step)], ordered=False
            )
        database["stock"].insert_many([{"_id": key, "left_over": STOCK} for key in range(1, ITEMS + 1)])
        if self.lane is None:
            database["counters"].insert_one({"_id": "orders", "value": 0})

    def tidy(self) -> None:
        self._database["stock"].update_many({"left_over": {"$ne": STOCK}}, {"$set": {"left_over": STOCK}})

    def state(self) -> State:
        database = self._database
        accounts = self._grouped(
            "accounts", sum={"$sum": "$balance"}, version={"$sum": "$version"}, least={"$min": "$balance"}
        )
        orders = self._grouped("orders", made={"$sum": 1}, number={"$max": "$_id"})
        stock = self._grouped("stock", sum={"$sum": "$left_over"}, least={"$min": "$left_over"})
        sequence = logged = None
        if self.lane is not None:
            sequence = self.sequence()
            logged = database["command_log"].count_documents({})
        return State(
            balance_sum=accounts["sum"],
            version_sum=accounts["version"],
            balance_min=accounts["least"],
            orders=orders.get("made", 0),
            order_max=orders.get("number", 0),
            stock_sum=stock["sum"],
            stock_min=stock["least"],
            sequence=sequence,
            logged=logged,
        )

    def sequence(self) -> int:
        lease = self._database["lane_lease"].find_one({"_id": self.lane}) or {}
        return int(lease.get("sequence", 0))

    def close(self) -> None:
        self._client.close()

    def _grouped(self, collection: str, **fields: Any) -> dict[str, int]:
        found = list(self._database[collection].aggregate([{"$group": {"_id": None, **fields}}]))
        return found[0] if found else {}


def fill_log(url: str, lane: str, entries: int) -> None:
    """Make the log of a lane on PostgreSQL look as if so many commands had been settled long ago."""
    with psycopg.connect(url, autocommit=True) as connection:
        # Ids of version 7 from a time before ours: as in a real log, new ones come at the index's end.
        connection.execute(
            """
            INSERT INTO command_log (command_id, sequence, epoch, type, fingerprint, status, result, settled_at)
            SELECT lpad(to_hex(n), 8, '0') || '-0000-7000-8' || substr(md5(n::text), 1, 3) || '-'
                   || substr(md5(n::text), 4, 12),
                   n, 1, %(type)s, md5(n::text), 'applied', '{"version":2,"id":1,"balance":1000000001}',
                   now() - interval '1 day'
            FROM generate_series(1, %(entries)s) AS n
            """,
            {"type": f"{lane}.credit", "entries": entries},
        )
        connection.execute(
            """
            INSERT INTO lane_lease (lane, epoch, sequence, batches, revision, holder, taken_at)
            VALUES (%s, 1, %s, 1, 0, 'nobody', now())
            ON CONFLICT (lane) DO UPDATE SET epoch = 1, sequence = excluded.sequence
            """,
            (lane, entries),
        )
        connection.execute("VACUUM ANALYZE command_log")
        connection.execute("CHECKPOINT")
