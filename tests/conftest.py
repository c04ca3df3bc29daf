"""Fixtures of all tests that need servers."""

from collections.abc import Iterator

import pytest

from coordinator.dev.servers import ServerSet
from tests.support.databases import FreshDatabases
from tests.support.servers import Environment, running_servers


@pytest.fixture(scope="session")
def _running() -> Iterator[tuple[Environment, ServerSet | None]]:
    with running_servers() as running:
        yield running


@pytest.fixture(scope="session")
def server_environment(_running: tuple[Environment, ServerSet | None]) -> Environment:
    """The addresses of the servers, as settings."""
    return _running[0]


@pytest.fixture
def databases(server_environment: Environment) -> Iterator[FreshDatabases]:
    """Makes databases that only this test uses."""
    made = FreshDatabases(server_environment)
    yield made
    made.drop()
