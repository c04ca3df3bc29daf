"""A lane that is to have a synchronous standby commits nothing without one, whoever switches it off and when."""

import time
from contextlib import closing

import psycopg
import pytest
from msgspec import structs

from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.lane.delivery import Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.stores.open import open_store
from coordinator.stores.port import StoreUnavailable
from tests.integration.test_synchronous_standby import Aside, waiting
from tests.support.databases import sql_engine
from tests.support.lane_contract import delivery
from tests.support.ledger import LEDGER, OpenAccount
from tests.support.postgresql_standby import replicated, waits_for_standby
from tests.support.store_contract import NOW, account, changes, commit, entry
from tests.support.system import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("native_servers")]
LACKS = "synchronous_standby_names is empty.*LANE_REQUIRE_SYNC_STANDBY"


def entries(server: PostgreSQL) -> int:
    with psycopg.connect(server.url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM command_log").fetchone() or (-1,)
    return int(count)


def test_a_commit_is_unknown_if_the_server_is_told_meanwhile_to_wait_for_no_standby() -> None:
    """It ends all waits as if the standby had the commits, and warns of nothing."""
    with replicated() as (primary, standby), closing(open_store(primary.url, LEDGER, needs_standby=True)) as store:
        admin = sql_engine(primary.url)
        waits_for_standby(primary, True)
        lease = store.take_over("holder", NOW)
        commit(store, lease, changes(inserts=[account(1), entry(1)]))
        lease = structs.replace(lease, sequence=1)
        standby.stop()
        committing = Aside(lambda: commit(store, lease, changes(inserts=[account(2), entry(2)])))
        wait_until(lambda: waiting(admin) is not None, "a commit waits for the standby")
        waits_for_standby(primary, False)
        assert isinstance(committing.ended().error, StoreUnavailable)
        with pytest.raises(StoreUnavailable, match=LACKS):
            store.renew("holder", NOW, lease.epoch)
        assert entries(primary) == 2
        admin.dispose()


def test_a_lease_is_none_if_the_server_is_told_meanwhile_to_wait_for_no_standby() -> None:
    with replicated() as (primary, standby), closing(open_store(primary.url, LEDGER, needs_standby=True)) as store:
        admin = sql_engine(primary.url)
        waits_for_standby(primary, True)
        standby.stop()
        taking_over = Aside(lambda: store.take_over("holder", NOW))
        wait_until(lambda: waiting(admin) is not None, "a commit waits for the standby")
        waits_for_standby(primary, False)
        assert isinstance(taking_over.ended().error, StoreUnavailable)
        admin.dispose()


def test_a_lane_that_needs_a_synchronous_standby_commits_only_with_one() -> None:
    with replicated() as (primary, _), closing(open_store(primary.url, LEDGER, needs_standby=True)) as store:
        lane = Lane(LEDGER, store, lambda: NOW, "holder", LaneSettings(), time.monotonic)
        for attempt in (lambda: store.check(LEDGER.models), store.look, lambda: store.take_over("holder", NOW)):
            with pytest.raises(StoreUnavailable, match=LACKS):
                attempt()
        with psycopg.connect(primary.url) as connection:
            assert connection.execute("SELECT epoch FROM lane_lease").fetchone() == (0,)

        waits_for_standby(primary, True)
        assert isinstance(lane.apply([delivery(1, OpenAccount(owner="a"))]), Settlement)
        assert not store.check(LEDGER.models)

        waits_for_standby(primary, False)
        refused = lane.apply([delivery(2, OpenAccount(owner="b"))])
        assert isinstance(refused, Suspension)
        assert "LANE_REQUIRE_SYNC_STANDBY" in refused.reason
        assert entries(primary) == 1

        waits_for_standby(primary, True)
        assert isinstance(lane.apply([delivery(2, OpenAccount(owner="b"))]), Settlement)
        assert entries(primary) == 2
