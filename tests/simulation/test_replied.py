"""What an outcome says of the cache, in worlds whose database falls back to an older copy."""

from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest

from coordinator.service.outcome import Outcome
from tests.simulation.database import Database
from tests.simulation.failover import copy_of
from tests.simulation.world import START, World
from tests.support.ledger import Account

COMMAND = "0000000f-0000-7000-8000-000000000001"


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World(1)) as world:
        yield world


@pytest.fixture
def database(world: World) -> Database:
    return world.databases["ledger"]


def has_version(database: Database, version: int) -> None:
    database.table(Account)[1] = Account(id=1, owner="a", created_at=START, version=version)


def told(world: World, version: int) -> list[str]:
    """The violations, once a client is told that its command made this version of an account."""
    result = msgspec.Raw(msgspec.json.encode({"id": 1, "version": version}))
    world.replied(
        "ledger", Outcome(command_id=COMMAND, type="ledger.deposit", status="applied", sequence=1, result=result)
    )
    return world.violations


def test_the_cache_must_not_be_older_than_what_a_client_was_told(world: World, database: Database) -> None:
    has_version(database, 4)
    assert told(world, 4) == []
    assert told(world, 6) == ["the cache has version 4 of account 1; 6 was replied"]


def test_the_outcome_of_a_lost_commit_says_nothing_of_the_cache(world: World, database: Database) -> None:
    has_version(database, 4)
    assert told(world, 4) == []
    database.lost.add(COMMAND)
    assert told(world, 6) == []


def test_what_a_copy_that_lags_has_is_not_taken_for_the_last_version(world: World, database: Database) -> None:
    has_version(database, 6)
    database._newest = copy_of(database)
    has_version(database, 4)
    assert told(world, 4) == []
    database.rise_again()
    assert told(world, 6) == []
    assert world.caches["ledger"] == {1: 6}
