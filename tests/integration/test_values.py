"""Values of every type come back exactly from real servers, to a lane and to a gateway."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import ClassVar
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.migrations.migrate import migrate
from coordinator.reading import close_database, fetch, open_database, row_of_document
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.open import open_store
from coordinator.stores.row_checks import RowChecks
from coordinator.stores.sql.declared_tables import tables_of
from tests.support.databases import FreshDatabases
from tests.support.mongodb_rights import READ_WRITE, permitted
from tests.support.store_contract import NOW, changes, commit
from tests.support.value_contract import OpenValueStore, ValueContract
from tests.support.values import VALUES, Everything, extremes


class _OnServer(ValueContract):
    setting: ClassVar[str]

    @pytest.fixture
    def url(self, databases: FreshDatabases) -> str:
        url = databases.new(self.setting)
        migrate(VALUES, DatabaseSettings(database_url=url))
        return url

    @pytest.fixture
    def open_value_store(self, url: str) -> Iterator[OpenValueStore]:
        with ExitStack() as opened:
            yield lambda: opened.enter_context(closing(open_store(url, VALUES)))

    def test_the_declared_tables_pass_the_check_of_a_start(self, open_value_store: OpenValueStore) -> None:
        open_value_store().check(VALUES.models, must_sync=False)

    async def test_a_gateway_reads_values_exactly(self, open_value_store: OpenValueStore, url: str) -> None:
        check = RowChecks(VALUES).of(Everything)
        kept = [check.new(row) for row in extremes()]
        store = open_value_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=kept))
        database = open_database(url)
        if isinstance(database, AsyncEngine):
            table = tables_of(VALUES).tables["everything"]
            found = await fetch(database, select(table).order_by(table.c.id), Everything)
            first = await fetch(database, select(table).where(table.c.id == UUID(int=1)), Everything)
        else:
            documents = database["everything"]
            found = [row_of_document(Everything, each) async for each in documents.find().sort("_id", 1)]
            for number in (2**31, 2**53, 2**63 - 1):
                # As an author reads it who makes no row of it.
                document = await documents.find_one({"number": number}, {"number": 1})
                assert document is not None
                assert type(document["number"]) is int
            first = [row_of_document(Everything, each) async for each in documents.find({"_id": UUID(int=1)})]
        await close_database(database)
        assert list(map(repr, found)) == list(map(repr, kept))
        assert list(map(msgspec.json.encode, found)) == list(map(msgspec.json.encode, kept))
        assert first == kept[:1]


class TestPostgresValues(_OnServer):
    setting = "USERS_DATABASE_URL"


class TestMysqlValues(_OnServer):
    setting = "PAYMENTS_DATABASE_URL"


class TestMongoValues(_OnServer):
    setting = "ITEMS_DATABASE_URL"

    @pytest.fixture(autouse=True)
    def _all_is_permitted(self) -> Iterator[None]:
        """To the role that docs/OPERATING.md gives the lane and the operator: the stand-in has no users."""
        with permitted(READ_WRITE):
            yield
