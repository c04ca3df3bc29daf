"""Fixtures of all tests, most of them for those that need servers."""

import gc
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.dev.servers.server_set import ServerSet
from coordinator.registry import APP_SETTING
from coordinator.transports.redis.rights import redis_accounts
from tests.support.accounts import names_of_tests
from tests.support.databases import FreshDatabases
from tests.support.forks import Forks
from tests.support.own_ports import use_own_ports
from tests.support.progress import report_progress
from tests.support.scratch import use_scratch
from tests.support.servers import REFERENCE_APP, Environment, Running, running_servers
from tests.support.system import System
from tests.support.unclosed import warn_of_unclosed_databases

# Also of the processes that tests start.
os.environ.setdefault(APP_SETTING, REFERENCE_APP)

# How long one example takes says how busy the machine is. A test as a whole has a limit.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Threads import these when they are first asked for. pytest parses a package that has a plugin of its own, and CPython
# before 3.11.8 may fail where two threads parse at the same time (its issue 106905).
for _kind in ("mongodb", "mysql", "postgresql", "sqlite"):
    importlib.import_module(f"coordinator.stores.{_kind}.kind")


def pytest_configure(config: pytest.Config) -> None:
    use_scratch(config)
    use_own_ports()
    report_progress(config)
    warn_of_unclosed_databases()


def pytest_collection_finish() -> None:
    """Thousands of tests are never garbage: a collection need not look at them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Plugins import at the end. CPython before 3.11.8 fails where garbage that is collected while it parses logs a
    traceback (its issue 106905)."""
    gc.collect()


_LOGGING = structlog.get_config()


@pytest.fixture(autouse=True)
def _logging_as_at_first() -> Iterator[None]:
    """Commands that run in this process, also in a fixture of many tests, quieten it for good."""
    structlog.configure(**_LOGGING)
    yield
    structlog.configure(**_LOGGING)


@pytest.fixture(scope="session")
def _running() -> Iterator[Running]:
    with running_servers() as running:
        yield running


@pytest.fixture(scope="session")
def server_environment(_running: Running) -> Environment:
    """The addresses of the servers, as settings of our processes: with the rights that they need, and no others."""
    return _running.environment


@pytest.fixture(scope="session")
def administrators(_running: Running) -> Environment:
    """The same of those who may do everything."""
    return _running.administrators


@pytest.fixture(scope="session")
def redis_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBroker]:
    """A Redis that syncs each write before it answers: a process of the tests' own, that they may kill."""
    server = RedisBroker(tmp_path_factory.mktemp("redis-broker"), accounts=redis_accounts(names_of_tests()))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def databases(server_environment: Environment, administrators: Environment) -> Iterator[FreshDatabases]:
    """Makes databases that only this test uses."""
    made = FreshDatabases(server_environment, administrators)
    yield made
    made.drop()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts processes of ours faster."""
    with Forks() as forks:
        yield forks


@pytest.fixture
def broker_url() -> str | None:
    """The broker of the system's processes, where it is not RabbitMQ."""
    return None


@pytest.fixture
def system(databases: FreshDatabases, forks: Forks, tmp_path: Path, broker_url: str | None) -> Iterator[System]:
    """The system on databases of the test's own; the test starts what it needs of it."""
    system = System(*databases.environments(), tmp_path, forks, broker_url)
    yield system
    system.stop()


@pytest.fixture(scope="session")
def native_servers(_running: Running) -> ServerSet:
    """The servers as processes, for tests that kill them."""
    servers = _running.servers
    if servers is None:
        pytest.skip("the servers run in Docker: tests that kill them need processes of their own")
    return servers
