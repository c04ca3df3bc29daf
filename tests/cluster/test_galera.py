"""A lane on a Galera cluster goes on at another node when its node dies, and nobody commits beside it."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import text

from coordinator.client.database import open_database
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.mysql.store import MysqlStore, MysqlTransaction
from coordinator.stores.open import open_admin
from coordinator.stores.port import Conflict, Fenced, Lease, StoreUnavailable
from tests.cluster.load import PAYMENT, judge, under_load
from tests.faults.proxy import AtCommit, TcpProxy
from tests.support.databases import sql_engine
from tests.support.galera_cluster import GaleraCluster, GaleraNode, address, galera_cluster, lack_of_galera
from tests.support.ledger import LEDGER, metadata
from tests.support.store_contract import NOW, account, accounts, changes, commit
from tests.support.system import System, wait_until, write_all

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(lack_of_galera() is not None, reason=str(lack_of_galera())),
]
HELD_S = 0.5
"""How long a read is watched that must wait."""
SILENCE_S_MAX = 15.0
"""The others wait 1.5 s before they believe that a node is gone; the rest is the machine's."""


T = TypeVar("T")

_TABLES = """
    SELECT tables.table_name, COUNT(constraints.constraint_name) FROM information_schema.tables
    LEFT JOIN information_schema.table_constraints AS constraints ON constraints.table_schema = tables.table_schema
    AND constraints.table_name = tables.table_name AND constraints.constraint_type = 'PRIMARY KEY'
    WHERE tables.table_schema = 'payments' AND tables.table_type = 'BASE TABLE' GROUP BY tables.table_name
"""


@pytest.fixture(scope="module")
def _servers() -> Iterator[GaleraCluster]:
    with galera_cluster("payments", "ledger") as cluster:
        yield cluster


@pytest.fixture
def cluster(_servers: GaleraCluster) -> GaleraCluster:
    """All three nodes run, and are up to date."""
    _servers.start_again()
    return _servers


@pytest.fixture
def ledger(cluster: GaleraCluster) -> Iterator[tuple[MysqlStore, MysqlStore]]:
    """Stores of one lane, on the first node and on the second one. The lane has its tables, and no row."""
    engine = sql_engine(cluster.url("ledger"))
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE ledger"))
        connection.execute(text("CREATE DATABASE ledger CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"))
    engine.dispose()
    engine = sql_engine(cluster.url("ledger"))
    metadata.create_all(engine)
    engine.dispose()
    migrate(LEDGER, DatabaseSettings(database_url=cluster.url("ledger")))
    first, second = (MysqlStore(parse_address(cluster.url("ledger", first=number)), LEDGER) for number in (0, 1))
    yield first, second
    first.close()
    second.close()


class TestOneWriter:
    def test_a_commit_that_another_node_s_takeover_came_before_is_refused(
        self, ledger: tuple[MysqlStore, MysqlStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The zombie has passed its fence, and stands before its COMMIT while another one takes the lane."""
        zombie, successor = ledger
        lease = commit(zombie, zombie.take_over("zombie", NOW), changes(inserts=[account(1)]))
        taken: list[Lease] = []
        at_commit = MysqlTransaction._commit

        def after_a_takeover(transaction: MysqlTransaction) -> None:
            if not taken:
                taken.append(successor.take_over("successor", NOW))
            at_commit(transaction)

        monkeypatch.setattr(MysqlTransaction, "_commit", after_a_takeover)
        with pytest.raises(Conflict):
            commit(zombie, lease, changes(inserts=[account(2)]))
        assert [(each.epoch, each.sequence, each.holder) for each in taken] == [(2, 1, "successor")]
        with pytest.raises(Fenced):
            commit(zombie, lease, changes(inserts=[account(2)]))
        commit(successor, taken[0], changes(inserts=[account(3)]))
        for store in ledger:
            assert store.current() == Lease(2, 2, holder="successor")
            assert [row.id for row in accounts(store, 1, 2, 3)] == [1, 3]

    def test_an_operator_s_change_on_another_node_is_seen_by_the_next_commit(
        self, cluster: GaleraCluster, ledger: tuple[MysqlStore, MysqlStore]
    ) -> None:
        store, _ = ledger
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1)]))
        with closing(open_admin(cluster.url("ledger", first=2), "ledger")) as admin:
            admin.pause("maintenance", NOW)
        with pytest.raises((Fenced, Conflict)):
            commit(store, lease, changes(inserts=[account(2)]))
        with pytest.raises(Fenced):
            commit(store, lease, changes(inserts=[account(2)]))
        assert [row.id for row in accounts(store, 1, 2)] == [1]

    def test_a_renewal_on_another_node_has_the_last_commit_of_the_one_that_died(
        self, cluster: GaleraCluster, ledger: tuple[MysqlStore, MysqlStore]
    ) -> None:
        store, _ = ledger
        lease = store.take_over("holder", NOW)
        for number in range(1, 30):
            lease = commit(store, lease, changes(inserts=[account(number)]))
        cluster.nodes[0].kill()
        with pytest.raises(StoreUnavailable):
            commit(store, lease, changes(inserts=[account(30)]))
        renewed = renew(store, lease)
        assert (renewed.epoch, renewed.sequence) == (2, 29)
        commit(store, renewed, changes(inserts=[account(31)]))
        assert len(accounts(store, *range(1, 40))) == 30


def renew(store: MysqlStore, lease: Lease) -> Lease:
    """As a lane does: it tries until a node takes it."""
    renewed: list[Lease] = []

    def is_renewed() -> bool:
        try:
            renewed.append(store.renew("holder", NOW, lease.epoch))
        except (StoreUnavailable, Conflict):
            return False
        return True

    wait_until(is_renewed, "a node takes the lane", timeout_s=30)
    return renewed[0]


class TestNothingOldIsBelieved:
    def test_a_lane_reads_its_lease_only_where_all_commits_are_applied(
        self, cluster: GaleraCluster, ledger: tuple[MysqlStore, MysqlStore]
    ) -> None:
        """An older one would look like lost commits, or like a lane that nobody has taken."""
        first, second = ledger
        second.check(LEDGER.models)
        lease = commit(first, first.take_over("holder", NOW), changes(inserts=[account(1)]))
        assert second.current() == Lease(1, 1, holder="holder")
        with lagging(cluster.nodes[1]) as lag:
            commit(first, lease, changes(inserts=[account(2)]))
            assert plainly_read(cluster.nodes[1]) == 1
            assert lag.seen_once_it_is_over(second.current) == Lease(1, 2, holder="holder")
        assert plainly_read(cluster.nodes[1]) == 2

    def test_so_do_reads_that_must_not_be_old_and_operators_commands(
        self, cluster: GaleraCluster, ledger: tuple[MysqlStore, MysqlStore]
    ) -> None:
        first, _ = ledger
        lease = commit(first, first.take_over("holder", NOW), changes(inserts=[account(1)]))
        url = address("coordinator", [cluster.nodes[1].port], "ledger")

        def read() -> int:
            return asyncio.run(read_sequence(url))

        assert read() == 1
        with lagging(cluster.nodes[1]) as lag:
            lease = commit(first, lease, changes(inserts=[account(2)]))
            assert lag.seen_once_it_is_over(read) == 2
        with closing(open_admin(url, "ledger")) as admin:
            assert admin.sequence() == 2
            with lagging(cluster.nodes[1]) as lag:
                commit(first, lease, changes(inserts=[account(3)]))
                assert lag.seen_once_it_is_over(admin.sequence) == 3


async def read_sequence(url: str) -> int:
    """As a gateway reads at its primary."""
    engine: Any = open_database(url, 1, must_lead=True)
    try:
        async with engine.connect() as connection:
            return int((await connection.execute(text("SELECT sequence FROM lane_lease"))).scalar_one())
    finally:
        await engine.dispose()


def plainly_read(node: GaleraNode) -> int:
    """What the node has applied."""
    with node.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sequence FROM ledger.lane_lease")
        (found,) = cursor.fetchone() or (0,)
    return int(found)


class Lag:
    """A node that applies nothing of what the others commit, until it is over."""

    def __init__(self, node: GaleraNode) -> None:
        self._lock = node.lag()
        self.is_on = True

    def end(self) -> None:
        self.is_on = False
        self._lock.close()

    def seen_once_it_is_over(self, look: Callable[[], T]) -> T:
        """What the look sees. It must not come back before."""
        with ThreadPoolExecutor(1) as threads:
            looking = threads.submit(look)
            try:
                with pytest.raises(TimeoutError):
                    pytest.fail(f"it waited for nothing, and saw {looking.result(HELD_S)}")
            finally:
                self.end()
            return looking.result(30)


@contextmanager
def lagging(node: GaleraNode) -> Iterator[Lag]:
    lag = Lag(node)
    try:
        yield lag
    finally:
        if lag.is_on:
            lag.end()


def test_a_node_that_loses_its_majority_at_a_commit_does_not_know_of_it_and_is_passed_over(
    cluster: GaleraCluster, ledger: tuple[MysqlStore, MysqlStore]
) -> None:
    """It calls the COMMIT refused (1180), and all nodes may have it once they are together again."""
    first, second = ledger
    lease = commit(first, first.take_over("holder", NOW), changes(inserts=[account(1)]))
    others = cluster.nodes[1:]
    for node in others:
        node.pause()
    try:
        with pytest.raises(StoreUnavailable):
            commit(first, lease, changes(inserts=[account(2)]))
        alone = MysqlStore(parse_address(address("coordinator", [cluster.nodes[0].port], "ledger")), LEDGER)
        with pytest.raises(StoreUnavailable, match=r"no majority \(wsrep_cluster_status is non-Primary\)"):
            alone.current()
    finally:
        for node in others:
            node.resume()
    cluster.wait_until_whole()
    assert alone.current() is not None
    alone.close()
    renewed = renew(first, lease)
    assert len(accounts(first, 2)) == renewed.sequence - 1
    commit(first, renewed, changes(inserts=[account(3)]))
    assert second.current() == Lease(2, renewed.sequence + 1, holder="holder")


@pytest.fixture
def galera_system(system: System, cluster: GaleraCluster) -> System:
    """All processes know all nodes, in the same order; the database of payments is empty."""
    with cluster.nodes[0].connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE payments")
        cursor.execute("CREATE DATABASE payments CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    system.administrators["PAYMENTS_DATABASE_URL"] = cluster.url("payments")
    system.environment |= {
        "PAYMENTS_DATABASE_URL": cluster.url("payments"),
        "PAYMENTS_READER_URL": cluster.url("payments", "payments_reader"),
        "PAYMENTS_PRIMARY_URL": cluster.url("payments", "payments_reader"),
    }
    system.prepare("payments")
    return system


def test_each_table_has_the_primary_key_by_which_commits_are_checked(
    galera_system: System, cluster: GaleraCluster
) -> None:
    """Of the lane, its migrations and the service."""
    with cluster.nodes[0].connect() as connection, connection.cursor() as cursor:
        cursor.execute(_TABLES)
        tables = dict(cursor.fetchall())
    assert {"lane_lease", "command_log", "payments", "lane_schema_version"} <= tables.keys()
    assert [name for name, keys in tables.items() if not keys] == []


async def test_a_node_that_is_killed_costs_its_clients_a_wait_and_nothing_else(
    galera_system: System, cluster: GaleraCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    galera_system.start_coordinators("payments", "payments")
    galera_system.start_gateway("payments")
    async with under_load(galera_system.urls["payments"], PAYMENT) as load:
        await asyncio.to_thread(cluster.nodes[0].kill)
        await load.wait_for_answers(1000)
    judge(load, "kill -9 of the Galera node of the lane", SILENCE_S_MAX, capsys)
    await asyncio.to_thread(cluster.start_again)
    for node in cluster.nodes:
        assert payments_of(node) == len(load.answered_at_s)


async def test_a_coordinator_that_was_stopped_at_its_commit_and_goes_on_commits_nothing(
    galera_system: System, cluster: GaleraCluster
) -> None:
    """Its server is told to COMMIT only once another one has the lane, on another node, and has committed there."""
    body = PAYMENT.body
    async with TcpProxy(cluster.nodes[0].port) as proxy:
        own = address("coordinator", [proxy.port, *(node.port for node in cluster.nodes[1:])], "payments")
        other = cluster.url("payments", first=1)
        start = galera_system.start_coordinator
        zombie = await asyncio.to_thread(start, "payments", PAYMENTS_DATABASE_URL=own, AMQP_HEARTBEAT_S="2")
        await asyncio.to_thread(galera_system.start_gateway, "payments")
        url = galera_system.urls["payments"]
        await write_all(url, PAYMENT.path, body, 20, 4, "before")
        await asyncio.to_thread(start, "payments", PAYMENTS_DATABASE_URL=other)
        held = asyncio.create_task(proxy.strike_at_commit(AtCommit.HOLD_REQUEST, within_s=20))
        writing = asyncio.create_task(write_all(url, PAYMENT.path, body, 1, 1, "held"))
        assert await held
        zombie.pause()
        ((status, payment),) = await writing
        assert (status, payment["id"]) == (201, 21)
        assert payments_of(cluster.nodes[0]) == 21
        zombie.resume()
        proxy.resume()
        answers = await write_all(url, PAYMENT.path, body, 50, 8, "after")
        assert sorted(payment["id"] for _, payment in answers) == list(range(22, 72))
        assert zombie.alive
    for node in cluster.nodes:
        assert payments_of(node) == 71


def payments_of(node: GaleraNode) -> int:
    """How many there are, once the node has applied all."""
    with node.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 1")
        cursor.execute("SELECT COUNT(*), COUNT(DISTINCT id), MAX(id) FROM payments")
        count, distinct, last = cursor.fetchone() or (0, 0, 0)
    assert count == distinct == last
    return int(count)
