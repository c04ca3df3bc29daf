"""The metric that shows how far a lane has come where a gateway reads."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from coordinator.client.database import close_database, open_database
from coordinator.client.recency import ReadDatabase
from coordinator.http.database_checks import database_checks
from coordinator.http.database_part import HAS_MOVED
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import LEASE_TABLE, metadata
from coordinator.stores.moves import LaneMove, encode_move
from tests.support.databases import sql_engine
from tests.support.ledger import LEDGER
from tests.support.store_contract import NOW

table = metadata.tables[LEASE_TABLE]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(LEDGER, DatabaseSettings(database_url=url))
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = open_database(url)
    yield opened
    await close_database(opened)


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
