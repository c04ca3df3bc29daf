"""`coordinator migrate` puts nothing empty in the place of what a lane's database has lost."""

from contextlib import closing
from typing import Any

import pymongo
import pytest
from sqlalchemy import text

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.lane_tables import DeadLetter
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.open import open_store
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


def test_a_lost_lease_is_named(url: str) -> None:
    """With a new one the lane would begin at its first sequence."""
    _lose(url, LEASE_TABLE, is_whole=False)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"the database has lost the lane's [a-z]+ of {LEASE_TABLE}, "):
            _migrate(url)
