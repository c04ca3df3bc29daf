"""A lane whose disk is full says so: in its log, and in one process at the gateway's /readyz."""

import asyncio
import sqlite3
from pathlib import Path

import pymysql
import pytest
from pymongo.errors import OperationFailure, PyMongoError
from structlog.testing import capture_logs

from coordinator.client.writes import WriteOptions, execute
from coordinator.service.errors import CommandPending
from coordinator.stores.mongodb import errors as mongodb
from coordinator.stores.mysql import errors as mysql
from coordinator.stores.port import StoreUnavailable, trouble_of
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.system import wait_until

WITHIN_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    made = tmp_path / "ledger.sqlite"
    create_schema(str(made), LEDGER)
    return str(made)


class Small(SqliteStore):
    """Its file cannot grow by much."""

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        return connection


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (pymysql.OperationalError(1021, "Disk full (/tmp); waiting for someone to free some space"), True),
        (pymysql.OperationalError(1114, "The table 'users' is full"), True),
        (pymysql.OperationalError(1030, 'Got error 28 "No space left on device" from storage engine InnoDB'), True),
        (pymysql.OperationalError(1030, 'Got error 168 "Unknown error" from storage engine InnoDB'), False),
        (OperationFailure("no space", 14031), True),
        (OperationFailure("the primary stepped down", 189), False),
    ],
)
def test_of_a_server_that_has_no_room_it_is_known(error: Exception, is_full: bool) -> None:
    if isinstance(error, pymysql.MySQLError):
        meant = mysql.translated(error, ())
    else:
        assert isinstance(error, PyMongoError)
        meant = mongodb.translated(error)
    assert isinstance(meant, StoreUnavailable)
    assert trouble_of(meant) == ("disk_full" if is_full else "away")


async def test_a_full_disk_is_named_in_the_log_and_to_whoever_asks_the_gateway(path: str) -> None:
    with capture_logs() as lines:
        async with asyncio.timeout(WITHIN_S), InProcessWrites({"ledger": Small(path, LEDGER)}, (LEDGER,)) as writes:
            pending = WriteOptions(wait_s=2)
            results = [execute(writes, OpenAccount(owner=f"o{number}"), Account, pending) for number in range(2000)]
            settled = await asyncio.gather(*results, return_exceptions=True)
            assert any(isinstance(each, CommandPending) for each in settled)
            await asyncio.to_thread(wait_until, lambda: not writes.connected, "it is suspended")
            assert writes.problem == "lane ledger is suspended: the disk of its database has no room"
    (line,) = [line for line in lines if line["event"] == "lane_suspended"][:1]
    assert "make room on the disk" in line["what_to_do"]
