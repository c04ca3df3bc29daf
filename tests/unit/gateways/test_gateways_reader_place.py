"""The metric that shows how far a lane has come where a gateway reads."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from coordinator.client import database as reads
from coordinator.client.recency import ReadDatabase
from coordinator.http.database_checks import database_checks
from coordinator.http.database_part import HAS_MOVED
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import metadata
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.moves import LaneMove, encode_move
from tests.support.databases import sql_engine
from tests.support.store_contract import NOW
from tests.unit.test_lane_is_here import database, url

__all__ = ("database", "url")

table = metadata.tables[LEASE_TABLE]


def shown(server: str) -> float | None:
    labels = {"service": "ledger", "server": server}
    return REGISTRY.get_sample_value("coordinator_gateway_reader_sequence", labels)


def write(url: str, **values: object) -> None:
    engine = sql_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(table.update().values(values))
            if not connection.execute(table.select()).all():
                needed = {"lane": "ledger", "epoch": 1, "batches": 1, "revision": 1, "holder": "me", "taken_at": NOW}
                connection.execute(table.insert().values(needed | values))
    finally:
        engine.dispose()


async def test_each_look_shows_how_far_the_lane_has_come_where_it_is_of_use(url: str, database: Database) -> None:
    (check,) = database_checks(ReadDatabase(lane="ledger", database=database), None, ())
    for sequence in (7, 9):
        write(url, sequence=sequence)
        assert await check.problem() is None
        assert shown("reader") == sequence
    write(url, sequence=11, move=encode_move(LaneMove(id="m", step="moved", other="there")))
    assert await check.problem() == HAS_MOVED
    assert shown("reader") == 9, "what is read there is old"


async def test_a_server_beside_a_primary_is_shown_as_a_replica(url: str, database: Database) -> None:
    write(url, sequence=3)
    check, _ = database_checks(ReadDatabase(lane="ledger", database=database, primary=database), database, ())
    assert await check.problem() is None
    assert shown("replica") == 3


async def test_a_database_that_stops_answering_before_it_says_how_far_it_is_is_down(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(source: ReadDatabase) -> tuple[str, int]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(reads, "READ_TIMEOUT_MS", 20)
    monkeypatch.setattr(ReadDatabase, "look", hangs)
    (check,) = database_checks(ReadDatabase(lane="ledger", database=database), None, ())
    with pytest.raises(DatabaseUnavailable):
        await check.problem()
