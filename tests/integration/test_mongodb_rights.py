"""Whatever our processes send to MongoDB is permitted to the roles that docs/OPERATING.md gives them.

The contracts of the stores run under the same check (test_stores.py).
"""

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.api_keys import read_api_keys
from coordinator.client.command_log import open_command_log
from coordinator.client.database import close_database, open_database, reading_problem
from coordinator.client.idempotency_secrets import read_idempotency_secrets
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.service import Service
from coordinator.stores.admin import LetterQuery
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.open import open_admin, open_store
from coordinator.stores.reading_rights import OF_GATEWAYS, reading_rights
from shared.items.model import Item
from shared.items.on_mongodb import DocumentItems
from tests.support.admin_contract import letter
from tests.support.databases import FreshDatabases
from tests.support.mongodb_rights import FIND, READ, READ_WRITE, collections_named, needs, permitted
from tests.support.store_contract import NOW, changes, commit, entry

LATER = NOW + timedelta(days=400)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def service() -> Service:
    return registry().service("items")


@pytest.fixture
def url(databases: FreshDatabases, service: Service) -> str:
    url = databases.new("ITEMS_DATABASE_URL")
    with permitted(READ_WRITE) as sent:
        for _ in range(2):
            migrate(service, DatabaseSettings(database_url=url))
    assert {"create", "createIndexes", "listCollections"} <= {command for _, command in sent}
    return url


def test_the_roles_are_those_that_the_documents_name() -> None:
    text = (ROOT / "docs" / "OPERATING.md").read_text()
    assert "`readWrite` for the lane and the owner, on the service's\ndatabase; for gateways the role `gateway`" in text


def test_a_lane_sends_what_its_role_permits(url: str, service: Service) -> None:
    with permitted(READ_WRITE) as sent, closing(open_store(url, service)) as store:
        store.check(service.models)
        store.take_over("the last", NOW, above=3)
        lease = store.take_over("holder", NOW)
        commit(store, lease, changes(inserts=[entry(1), letter(1)]), 1)
        store.renew("holder", NOW, lease.epoch)
        store.current()
        transaction = store.begin()
        transaction.scan(LogEntry, 10)
        transaction.backlog()
        transaction.rollback()
    assert {"killSessions", "findAndModify", "update", "delete", "insert", "commitTransaction", "collStats"} <= {
        command for _, command in sent
    }


def test_an_operator_sends_what_the_lane_s_role_permits(url: str, service: Service) -> None:
    with closing(open_store(url, service)) as store:
        commit(store, store.take_over("holder", NOW), changes(inserts=[*map(entry, (1, 2, 3)), letter(1)]), 3)
    with permitted(READ_WRITE) as sent, closing(open_admin(url, service.name)) as admin:
        admin.state()
        admin.sequence()
        admin.find(entry(1).command_id)
        admin.parked()
        admin.keeping([Item], ["a text"])
        admin.letters(LetterQuery(contains=b"{"), 0, 10)
        admin.letter(1)
        admin.emitted(None, 0, 10)
        admin.backlog()
        admin.pause("maintenance", NOW)
        admin.resume(NOW)
        admin.accept_loss(3, 9, NOW)
        admin.cancel(entry(9).command_id, "AL", NOW)
        admin.settled_before(LATER)
        admin.silent_publishers(LATER)
        assert sum(admin.forget_letters(LATER, LATER, 10)) == 1
        assert sum(admin.prune(LATER, 10)) == 2
        list(admin.forget_publishers(LATER, LATER, 10))
    assert {"find", "aggregate", "findAndModify", "insert", "update", "delete"} <= {command for _, command in sent}


async def test_a_gateway_sends_what_its_role_permits(url: str, service: Service) -> None:
    with permitted(FIND) as sent, collections_named() as named:
        database: Any = open_database(url)
        try:
            assert await reading_problem(database, "items", (Item.table, LogEntry.table)) is None
            command_log = open_command_log(database)
            await command_log.find(entry(1).command_id)
            await command_log.fingerprints()
            items = DocumentItems(database)
            await items.get(1)
            await items.latest(1)
            await items.page(0, 10)
            await read_api_keys(database)
            await read_idempotency_secrets(database)
        finally:
            await close_database(database)
    assert {action for actions in sent.values() for action in actions} == {"find"}
    assert {Item.table, *OF_GATEWAYS} <= named <= set(reading_rights(service).tables)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("killSessions", {"killSessions": [{"id": b"", "uid": b""}]}),
        ("killSessions", {"killSessions": []}),
        ("aggregate", {"pipeline": [{"$match": {}}, {"$merge": "items"}]}),
        ("serverStatus", {}),
        ("dropDatabase", {}),
        ("listDatabases", {}),
    ],
)
def test_a_command_that_neither_role_permits_is_found(name: str, command: dict[str, Any]) -> None:
    assert needs(name, command) - READ_WRITE


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("insert", {}),
        ("update", {"updates": [{"upsert": True}]}),
        ("delete", {}),
        ("findAndModify", {"upsert": True}),
        ("create", {}),
        ("createIndexes", {}),
        ("dropIndexes", {}),
    ],
)
def test_a_write_is_not_a_reader_s(name: str, command: dict[str, Any]) -> None:
    assert needs(name, command) <= READ_WRITE
    assert needs(name, command) - READ
