"""A lane that is started while its database is being migrated waits, and takes nothing for a wrong setting."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import Any

import pytest
from sqlalchemy import make_url

from coordinator.migrations import histories
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.open import open_store
from coordinator.stores.port import NotAdmitted, StoreUnavailable
from tests.support.databases import FreshDatabases
from tests.support.ledger import LEDGER, Account

pytestmark = pytest.mark.upgrades

DEADLINE_S = 60
SERVICE = Service(name="ledger", models=(Account,), handlers=LEDGER.handlers)
BEFORE = ("upgrade", "make_declared")
"""Before its first table, and before the service's own."""
BEHIND = ("_announce", "_check_tables")
"""All tables are there."""
_names = itertools.count(1)


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"])
def settings(request: pytest.FixtureRequest, databases: FreshDatabases) -> DatabaseSettings:
    owner = make_url(databases.new(request.param))
    lane = owner.set(username=f"beside_{next(_names)}", password="beside")
    migration_url, database_url = (url.render_as_string(hide_password=False) for url in (owner, lane))
    return DatabaseSettings(database_url=database_url, migration_url=migration_url)


@contextmanager
def stopped_before(step: str, settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Future[None]]:
    """A migration that has come so far, until the block ends."""
    reached, go_on, original = Event(), Event(), getattr(histories, step)

    def stopping(*arguments: Any) -> Any:
        reached.set()
        assert go_on.wait(DEADLINE_S)
        return original(*arguments)

    monkeypatch.setattr(histories, step, stopping)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(migrate, SERVICE, settings)
        try:
            assert reached.wait(DEADLINE_S)
            yield running
        finally:
            go_on.set()


@pytest.mark.parametrize("step", [*BEFORE, *BEHIND])
def test_it_waits_while_the_first_migration_runs(
    settings: DatabaseSettings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_store(settings.database_url, LEDGER)) as store:
        with stopped_before(step, settings, monkeypatch) as running:
            if step in BEHIND:
                store.check(LEDGER.models)
            else:
                with pytest.raises(StoreUnavailable, match=r"a migration of the database is running") as refused:
                    store.check(LEDGER.models)
                assert not isinstance(refused.value, NotAdmitted)
        running.result(DEADLINE_S)
        store.check(LEDGER.models)


def test_a_migration_that_failed_is_waited_for_no_longer(
    settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ConfigurationError("a revision fails")

    monkeypatch.setattr(histories, "make_declared", failing)
    with pytest.raises(ConfigurationError, match="a revision fails"):
        migrate(SERVICE, settings)
    with (
        closing(open_store(settings.database_url, LEDGER)) as store,
        pytest.raises(ConfigurationError, match=r"accounts.*run `coordinator migrate`"),
    ):
        store.check(LEDGER.models)
