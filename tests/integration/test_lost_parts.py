"""`coordinator migrate` puts nothing empty in the place of what a lane's database has lost."""

from contextlib import closing
from typing import Any

import pymongo
import pytest
from sqlalchemy import text

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.open import open_admin, open_store
from coordinator.worker.database_check import check_now
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER
from tests.support.store_contract import NOW, account, changes, commit, entry

KINDS = ("USERS_DATABASE_URL", "ITEMS_DATABASE_URL", "PAYMENTS_DATABASE_URL")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, databases: FreshDatabases) -> str:
    """The database of a lane that has applied a command."""
    url = databases.new(request.param)
    _migrate(url)
    with closing(open_store(url, LEDGER)) as store:
        commit(store, store.take_over("holder", NOW), changes(inserts=[account(1), entry(1)]))
    _migrate(url)
    return url


def _migrate(url: str) -> None:
    migrate(LEDGER, DatabaseSettings(database_url=url))


def _lose(url: str, table: str, *, is_whole: bool) -> None:
    if url.startswith("mongodb"):
        with closing(pymongo.MongoClient[Any](url)) as client:
            collection = client.get_default_database()[table]
            collection.drop() if is_whole else collection.delete_many({})
        return
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(text(f"{'DROP TABLE' if is_whole else 'DELETE FROM'} {table}"))
    engine.dispose()


def test_a_lost_table_is_named(url: str) -> None:
    _lose(url, DeadLetter.table, is_whole=True)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"the database has lost the lane's [a-z]+ {DeadLetter.table}, "):
            _migrate(url)


@pytest.mark.parametrize("has_log", [True, False], ids=["", "and its log"])
def test_a_lost_lease_is_named(url: str, *, has_log: bool) -> None:
    """With a new one the lane would begin at its first sequence."""
    _lose(url, LEASE_TABLE, is_whole=False)
    if not has_log:
        _lose(url, LogEntry.table, is_whole=False)
    said = f"the database has lost the lane's row of {LEASE_TABLE}, which says how far the lane had come"
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=said):
            _migrate(url)
    with closing(open_store(url, LEDGER)) as store, pytest.raises(ConfigurationError, match=said):
        check_now(store, LEDGER, LaneSettings())
    # As that says.
    with closing(open_admin(url, LEDGER.name)) as admin:
        admin.accept_loss(0, 3, NOW)
    _migrate(url)
    with closing(open_store(url, LEDGER)) as store:
        check_now(store, LEDGER, LaneSettings())
        assert store.take_over("holder", NOW).lost_up_to == 3


def test_a_lane_that_never_ran_has_lost_nothing(databases: FreshDatabases) -> None:
    """One of a release that wrote no lease before it ran had announced its commands, and its migrations."""
    url = databases.new("USERS_DATABASE_URL")
    _migrate(url)
    _lose(url, LEASE_TABLE, is_whole=False)
    _lose(url, FingerprintKey.table, is_whole=False)
    _migrate(url)
