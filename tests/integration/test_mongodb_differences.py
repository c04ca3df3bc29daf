"""A lane does not start on collections that are not as its rows need them, and says all that is wrong at once."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymongo
import pytest
from pymongo.database import Database

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.open import open_store
from tests.support.databases import FreshDatabases

SEATS = Service("seats")


@SEATS.row
class Seat(Row, table="seats", key="id", unique=("place", "code"), index=("holder",)):
    id: int
    place: str
    code: str | None = None
    holder: str = ""


@pytest.fixture
def url(databases: FreshDatabases) -> str:
    url = databases.new("ITEMS_DATABASE_URL")
    for _ in range(2):
        migrate(SEATS, DatabaseSettings(database_url=url))
    return url


@pytest.fixture
def database(url: str) -> Iterator[Database[Any]]:
    with closing(pymongo.MongoClient[Any](url)) as client:
        yield client.get_default_database()


def problem(url: str) -> str | None:
    with closing(open_store(url, SEATS)) as store:
        try:
            store.check(SEATS.models)
        except ConfigurationError as error:
            return str(error)
    return None


def test_what_migrate_has_made_is_sound(url: str) -> None:
    assert problem(url) is None


def test_all_that_the_indexes_lack_is_one_error(url: str, database: Database[Any]) -> None:
    seats = database["seats"]
    seats.drop_index("seats_place_unique")
    seats.drop_index("seats_holder_index")
    seats.create_index("place", name="places")
    assert problem(url) == (
        "the collections in the database of SEATS_DATABASE_URL are not as the rows of its service need them:\n"
        "  seats lacks an index on holder, _id, by which rows are selected: run `coordinator migrate`\n"
        "  seats.place needs a unique index, which the index places is not: drop it: run `coordinator migrate`"
    )
    seats.drop_index("places")
    migrate(SEATS, DatabaseSettings(database_url=url))
    assert problem(url) is None


def test_a_validator_that_refuses_every_row_is_found_by_the_start_and_by_migrate(
    url: str, database: Database[Any]
) -> None:
    schema = {"required": ["owner"], "properties": {"holder": {"bsonType": "int"}}}
    database.command("collMod", "seats", validator={"$jsonSchema": schema})
    found = problem(url) or ""
    assert "the validator of seats requires owner, and Seat has no such field" in found
    assert "the validator of seats allows holder as int only, and it is kept as string" in found
    with pytest.raises(ConfigurationError, match="seats: its collections are not as its rows need them"):
        migrate(SEATS, DatabaseSettings(database_url=url))
