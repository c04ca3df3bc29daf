"""The stores on real servers, and lanes on them, keep the contracts of all stores and lanes."""

import asyncio
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import pymongo
import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, text
from structlog.testing import capture_logs

from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.clock import utc_now
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.admin import LetterQuery
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.lane_tables import metadata as lane_metadata
from coordinator.stores.mongodb import collections
from coordinator.stores.one_lane import WrongDatabase, check_lane
from coordinator.stores.open import open_admin as open_admin_at
from coordinator.stores.open import open_store as open_store_at
from coordinator.stores.port import LOOKS, BatchFault, Changes, Conflict, Fenced, Lease, Read, Store, StoreUnavailable
from coordinator.stores.postgresql import session
from coordinator.stores.sql.kind import SqlKind
from coordinator.worker.retention import RETRY_S, Retention
from tests.support.admin_contract import AdminContract, OpenAdmin, letter
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.every_lane_contract import EveryLaneContract
from tests.support.ledger import LEDGER, Account, metadata
from tests.support.loss_contract import AcceptLoss
from tests.support.mongodb_rights import READ_WRITE, permitted
from tests.support.pauses import Pauses
from tests.support.servers import Environment
from tests.support.store_contract import (
    NOW,
    EncodingContract,
    OpenStore,
    StoreContract,
    account,
    accounts,
    changes,
    commit,
    entry,
)

elsewhere = MetaData()
Table("elsewhere", elsewhere, Column("id", BigInteger, primary_key=True))


class Elsewhere(Row, table="elsewhere", key="id"):
    """A row of another service, whose table is not there."""

    id: int


def _migrate(url: str) -> None:
    service = Service(name="ledger", models=(Account,), handlers=LEDGER.handlers, metadata=metadata)
    if not url.startswith("mongodb"):
        engine = sql_engine(url)
        metadata.create_all(engine)
        engine.dispose()
    migrate(service, DatabaseSettings(database_url=url))


@pytest.fixture(scope="module")
def sql_ledgers(server_environment: Environment, administrators: Environment) -> Iterator[Callable[[str], str]]:
    """By setting: one migrated database for all tests, since making the tables costs more than most of the tests."""
    made = FreshDatabases(server_environment, administrators)

    @functools.cache
    def ledger(setting: str) -> str:
        url = made.new(setting)
        _migrate(url)
        return url

    yield ledger
    made.drop()


class _OnServer:
    """Fixtures: a database that is migrated, empty and nobody else's, and stores on it."""

    setting: ClassVar[str]

    @pytest.fixture
    def url(self, databases: FreshDatabases, sql_ledgers: Callable[[str], str]) -> str:
        if self.setting == "ITEMS_DATABASE_URL":
            url = databases.new(self.setting)
            _migrate(url)
            return url
        url = sql_ledgers(self.setting)
        engine = sql_engine(url)
        with engine.connect() as connection:
            for table in (*lane_metadata.sorted_tables, *metadata.sorted_tables):
                connection.execute(table.delete())
        engine.dispose()
        return url

    @pytest.fixture
    def open_store(self, url: str) -> Iterator[OpenStore]:
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(open_store_at(url, LEDGER))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()


class _ServerContract(_OnServer, StoreContract, EncodingContract, AdminContract):
    @pytest.fixture
    def address(self, url: str) -> str:
        return url

    @pytest.fixture
    def open_admin(self, url: str) -> Iterator[OpenAdmin]:
        address = parse_address(url)
        with ExitStack() as opened:
            yield lambda lane: opened.enter_context(closing(kind_of(address).open_admin(address, lane)))

    def test_its_server_tells_the_time(self, open_store: OpenStore, open_admin: OpenAdmin) -> None:
        open_store().take_over("holder", NOW)
        before = datetime.now(UTC)
        told = open_admin("ledger").clock()
        assert told is not None
        assert before - timedelta(seconds=1) < told < datetime.now(UTC) + timedelta(seconds=1)

    @pytest.mark.parametrize("apart", [timedelta(days=400), timedelta(minutes=-2)])
    def test_a_retention_waits_while_the_process_s_clock_is_wrong(
        self, open_store: OpenStore, url: str, apart: timedelta
    ) -> None:
        """Everything that was settled a moment ago was old enough to a process that was a year ahead."""
        store = open_store()
        lease = store.take_over("holder", NOW)
        young = [msgspec.structs.replace(entry(number), settled_at=utc_now()) for number in (1, 2)]
        commit(store, lease, changes(inserts=[*young, letter(1, dead_at=utc_now())]), 2)
        held, pauses = msgspec.structs.replace(lease, sequence=2), Pauses(RETRY_S, 4)
        settings = LaneSettings(log_retention_days=7, dead_letter_retention_days=30)
        retention = Retention(
            "ledger", lambda: open_admin_at(url, "ledger"), lambda: held, settings, lambda: utc_now() + apart, pauses
        )
        with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
            asyncio.run(retention.run())
        assert [line["event"] for line in lines] == ["retention_postponed"]
        assert "clock says" in lines[0]["reason"]
        with closing(open_admin_at(url, "ledger")) as admin:
            assert admin.find(entry(1).command_id) is not None
            assert len(admin.letters(LetterQuery(), 0, 10)) == 1

    def test_the_schema_is_checked(self, open_store: OpenStore, databases: FreshDatabases) -> None:
        open_store().check(LEDGER.models)
        empty = open_store_at(databases.new(self.setting), LEDGER)
        with pytest.raises(ConfigurationError, match=r"accounts.*LEDGER_DATABASE_URL.*coordinator migrate"):
            empty.check(LEDGER.models)
        empty.close()

    def test_a_database_serves_one_lane_only(self, open_store: OpenStore, url: str) -> None:
        open_store().take_over("holder", NOW)
        other = open_store_at(url, Service(name="other", models=(), handlers=(), metadata=elsewhere))
        with pytest.raises(ConfigurationError, match="OTHER_DATABASE_URL is that of lane ledger"):
            other.check((Elsewhere,))
        # Beneath a lane that runs it may be put back: it waits.
        for use in (lambda: other.take_over("holder", NOW), other.current, other.look):
            with pytest.raises(StoreUnavailable, match="OTHER_DATABASE_URL is that of lane ledger"):
                use()
        other.close()
        open_store().check(LEDGER.models)

    def test_a_database_is_its_lane_s_before_the_lane_ever_ran(self, open_admin: OpenAdmin, url: str) -> None:
        _migrate(url)
        other = Service(name="other", models=(), handlers=(), metadata=metadata)
        with pytest.raises(ConfigurationError, match="OTHER_DATABASE_URL is that of lane ledger"):
            migrate(other, DatabaseSettings(database_url=url))
        with pytest.raises(ConfigurationError, match="OTHER_DATABASE_URL is that of lane ledger"):
            open_admin("other").pause("x", NOW)
        # Running it again changes nothing.
        before = open_admin("ledger").pause("x", NOW)
        _migrate(url)
        assert open_admin("ledger").state().lease == before

    def test_an_operator_changes_nothing_in_a_database_that_is_not_migrated(self, databases: FreshDatabases) -> None:
        address = parse_address(databases.new(self.setting))
        with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
            for _ in range(2):
                with pytest.raises(ConfigurationError, match=r"LEDGER_DATABASE_URL.*`coordinator migrate ledger`"):
                    admin.pause("x", NOW)


class _SqlContract(_ServerContract):
    def test_a_takeover_waits_for_the_commit_in_flight(self, open_store: OpenStore, url: str) -> None:
        """The old holder has passed its fence and is stuck before its COMMIT: the takeover must see that commit."""
        old, successor = open_store(), open_store()
        lease = commit(old, old.take_over("old", NOW), changes(inserts=[account(1)]))
        taken: list[Lease] = []

        def take_over() -> None:
            taken.append(successor.take_over("successor", NOW))

        engine = sql_engine(url)
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as blocker:
            blocker.execute(text("SELECT * FROM accounts WHERE id = 1 FOR UPDATE"))
            committing = threading.Thread(
                target=commit, args=(old, lease, changes(updates=[account(1, balance=5, version=2)]))
            )
            committing.start()
            self.wait_for_blocked(url, 1)
            taking_over = threading.Thread(target=take_over)
            taking_over.start()
            self.wait_for_blocked(url, 2)
            assert not taken
            blocker.rollback()
        committing.join()
        taking_over.join()
        engine.dispose()
        assert taken == [Lease(2, 2, holder="successor")]
        assert accounts(successor, 1)[0].balance == 5

    def test_a_row_that_somebody_else_keeps_locked_is_a_conflict(
        self, open_store: OpenStore, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "coordinator.stores.mysql.lane_connection._SESSION", ("SET SESSION innodb_lock_wait_timeout = 1",)
        )
        monkeypatch.setitem(session.OF_LANE, "lock_timeout", 200)
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1)]))
        engine = sql_engine(url)
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as blocker:
            blocker.execute(text("SELECT * FROM accounts WHERE id = 1 FOR UPDATE"))
            with pytest.raises(Conflict):
                commit(store, lease, changes(updates=[account(1, balance=5)]))
            blocker.rollback()
        engine.dispose()
        commit(store, lease, changes(updates=[account(1, balance=5)]))

    def test_a_holder_that_is_stopped_before_its_commit_is_ended_by_the_takeover(
        self, open_store: OpenStore, url: str
    ) -> None:
        old, successor = open_store(), open_store()
        lease = commit(old, old.take_over("old", NOW), changes(inserts=[account(1)]))
        transaction = old.begin()
        self.pass_fence(transaction)
        deadline_s = time.monotonic() + 8
        while True:
            try:
                taken = successor.take_over("successor", NOW)
                break
            except Conflict:
                assert time.monotonic() < deadline_s
        assert taken == Lease(2, 1, holder="successor")
        # In a thread of its own, as a holder has one: Python 3.13 tells what became of a connection in TLS to the
        # next one that is used in the thread.
        with ThreadPoolExecutor(1) as old_thread:
            with pytest.raises((StoreUnavailable, Fenced)):
                old_thread.submit(transaction.commit, lease, 2, changes(updates=[account(1, balance=5)])).result()
            old_thread.submit(transaction.rollback).result()
        commit(successor, taken, changes(updates=[account(1, balance=7)]))

    def pass_fence(self, transaction: Any) -> None:
        """What a commit does first."""
        cursor = transaction._connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE lane_lease SET batches = batches + 1")

    def test_a_killed_connection_is_opened_again(self, open_store: OpenStore, url: str) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        transaction = store.begin()
        transaction.load([Read(Account, "id", [1])])
        self.kill_connections(url)
        with pytest.raises(StoreUnavailable):
            transaction.commit(lease, 1, changes(inserts=[account(1)]))
        transaction.rollback()
        renewed = store.renew("holder", NOW, lease.epoch)
        commit(store, renewed, changes(inserts=[account(1)]))

    def wait_for_blocked(self, url: str, count: int) -> None:
        """Return once so many of our statements wait for a lock."""
        engine = sql_engine(url)
        with engine.connect() as connection:
            _until(lambda: connection.execute(text(self.blocked)).scalar_one() >= count)
        engine.dispose()

    def kill_connections(self, url: str) -> None:
        engine = sql_engine(url)
        with engine.connect() as connection:
            for (number,) in connection.execute(text(self.connections)).all():
                connection.execute(text(self.kill.format(number)))
        engine.dispose()

    blocked: ClassVar[str]
    connections: ClassVar[str]
    kill: ClassVar[str]


class TestPostgresStore(_SqlContract):
    setting = "USERS_DATABASE_URL"
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    connections = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    kill = "SELECT pg_terminate_backend({})"

    def test_a_fenced_commit_leaves_no_transaction_open(self, open_store: OpenStore, url: str) -> None:
        zombie = open_store()
        lease = zombie.take_over("zombie", NOW)
        open_store().take_over("successor", NOW)
        transaction = zombie.begin()
        with pytest.raises(Fenced):
            transaction.commit(lease, 1, changes(inserts=[account(1)]))
        transaction.rollback()
        assert accounts(zombie, 1) == []
        engine = sql_engine(url)
        with engine.connect() as connection:
            query = text(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
            )
            _until(lambda: connection.execute(query).scalar() == 0)
        engine.dispose()

    def test_a_division_by_zero_of_the_service_s_own_is_no_fence(self, open_store: OpenStore, url: str) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.execute(
                text("ALTER TABLE accounts ADD CONSTRAINT divided CHECK (id / (balance - 7) IS NOT NULL)")
            )
            try:
                with pytest.raises(BatchFault):
                    commit(store, lease, changes(inserts=[account(1, balance=7)]))
                commit(store, lease, changes(inserts=[account(1, balance=8)]))
            finally:
                connection.execute(text("ALTER TABLE accounts DROP CONSTRAINT divided"))
        engine.dispose()

    def test_what_is_checked_at_the_commit_refuses_the_batch_too(self, open_store: OpenStore, url: str) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.execute(
                text("ALTER TABLE accounts ADD CONSTRAINT late UNIQUE (balance) DEFERRABLE INITIALLY DEFERRED")
            )
            try:
                with pytest.raises(BatchFault, match="late"):
                    commit(store, lease, changes(inserts=[account(1, balance=7), account(2, balance=7), entry(1)]))
                assert accounts(store, 1, 2) == []
                commit(store, lease, changes(inserts=[account(1, balance=7), account(2, balance=8), entry(1)]))
            finally:
                connection.execute(text("ALTER TABLE accounts DROP CONSTRAINT late"))
        engine.dispose()

    def test_a_refused_batch_keeps_its_connection(self, open_store: OpenStore) -> None:
        store: Any = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1)]))
        connection = store.begin()._connection
        with pytest.raises(BatchFault):
            commit(store, lease, changes(inserts=[account(1)]))
        with pytest.raises(Fenced):
            commit(store, Lease(lease.epoch, 99), changes(inserts=[account(2)]))
        commit(store, lease, changes(inserts=[account(2)]))
        assert store.begin()._connection is connection

    def test_what_was_to_be_prepared_behind_a_refused_statement_is_prepared_again(self, open_store: OpenStore) -> None:
        commit(open_store(), lease := open_store().take_over("holder", NOW), changes(inserts=[account(1)]))
        store = open_store()
        lease = Lease(lease.epoch, 1)
        with pytest.raises(BatchFault):
            commit(store, lease, changes(inserts=[account(1), entry(2)]))
        commit(store, lease, changes(inserts=[account(2), entry(2)]))
        transaction = store.begin()
        assert len(transaction.load([Read(LogEntry, "command_id", [entry(2).command_id])])[0]) == 1
        transaction.rollback()

    def test_answers_are_read_while_more_is_sent_than_the_sockets_hold(self, open_store: OpenStore) -> None:
        store = open_store()
        rows = [account(n, data=b"x" * 2000) for n in range(1, 2001)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        owners = [*(row.owner for row in rows), *("x" * 2000 + str(n) for n in range(5000))]
        everything = Read(Account, "owner", owners)
        transaction = store.begin()
        assert [len(found) for found in transaction.load([everything] * 3)] == [2000] * 3
        transaction.rollback()

    def test_a_connection_cut_while_the_commit_is_under_way_leaves_all_or_nothing(
        self, open_store: OpenStore, url: str
    ) -> None:
        """The server has the COMMIT, and carries it out or not when the statement before it comes to its end."""
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1)]))
        transaction = store.begin()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                transaction.commit(lease, 2, changes(updates=[account(1, balance=5)], inserts=[entry(2)]))
            except StoreUnavailable as error:
                errors.append(error)
            transaction.rollback()

        engine = sql_engine(url)
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as blocker:
            blocker.execute(text("SELECT * FROM accounts WHERE id = 1 FOR UPDATE"))
            committing = threading.Thread(target=run)
            committing.start()
            self.wait_for_blocked(url, 1)
            connection: Any = transaction
            with socket.socket(fileno=os.dup(connection._connection.fileno())) as cut:
                cut.shutdown(socket.SHUT_RDWR)
            committing.join()
            assert errors
            renewed: list[Lease] = []
            renewing = threading.Thread(target=lambda: renewed.append(store.renew("holder", NOW, lease.epoch)))
            renewing.start()
            self.wait_for_blocked(url, 2)
            blocker.rollback()
        renewing.join()
        engine.dispose()
        assert renewed[0].sequence in (1, 2)
        has_landed = renewed[0].sequence == 2
        assert accounts(store, 1)[0].balance == (5 if has_landed else 0)
        assert len(store.begin().load([Read(LogEntry, "command_id", [entry(2).command_id])])[0]) == has_landed
        commit(store, renewed[0], changes(updates=[account(1, balance=9)]))


class TestMysqlStore(_SqlContract):
    def test_a_statement_that_cannot_be_written_leaves_the_one_before_it_answered(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        rows: list[Any] = [account(number) for number in range(1, 600)]
        with pytest.raises(BatchFault, match="TypeError"):
            commit(store, lease, changes(inserts=[*rows, account(600, data="no bytes")]))
        commit(store, lease, changes(inserts=rows))
        assert len(accounts(store, *range(1000))) == 599

    def test_a_row_that_no_packet_of_the_server_takes_is_the_batch_s_fault(
        self, open_store: OpenStore, url: str
    ) -> None:
        """The server would break the connection, and the lane would try for ever."""
        engine = sql_engine(url)
        with engine.connect() as connection:
            before = connection.execute(text("SELECT @@GLOBAL.max_allowed_packet")).scalar_one()
            # MySQL's own is larger than the largest column of a row.
            connection.execute(text("SET GLOBAL max_allowed_packet = 2097152"))
            try:
                store = open_store()
                lease = store.take_over("holder", NOW)
                with pytest.raises(BatchFault, match="max_allowed_packet"):
                    commit(store, lease, changes(inserts=[account(1), account(2, data=bytes(3_000_000))]))
                commit(store, lease, changes(inserts=[account(1)]))
                assert len(accounts(store, 1, 2)) == 1
            finally:
                connection.execute(text(f"SET GLOBAL max_allowed_packet = {before}"))
        engine.dispose()

    def test_a_limit_of_idle_sessions_ends_no_batch_whose_handlers_take_longer(
        self, open_store: OpenStore, url: str
    ) -> None:
        """The lane would meet an outage at each try, and try for ever."""
        engine = sql_engine(url)
        with engine.connect() as connection:
            limits = ["wait_timeout"]
            if "MariaDB" in connection.execute(text("SELECT VERSION()")).scalar_one():
                limits += ["idle_transaction_timeout", "idle_write_transaction_timeout"]
            before = {each: connection.execute(text(f"SELECT @@GLOBAL.{each}")).scalar_one() for each in limits}
            try:
                for each in limits:
                    connection.execute(text(f"SET GLOBAL {each} = 1"))
                store = open_store()
                lease = store.take_over("holder", NOW)
                transaction = store.begin()
                assert transaction.load([Read(Account, "id", [1])]) == [[]]
                connection.execute(text("SELECT SLEEP(2.5)"))
                transaction.commit(lease, 1, changes(inserts=[account(1)]))
                assert len(accounts(store, 1)) == 1
            finally:
                for each, value in before.items():
                    connection.execute(text(f"SET GLOBAL {each} = {value}"))
        engine.dispose()

    def test_a_table_without_transactions_is_refused(self, open_store: OpenStore, url: str) -> None:
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.execute(text("ALTER TABLE command_log ENGINE = MyISAM"))
            try:
                with pytest.raises(ConfigurationError, match=r"command_log.*MyISAM.*ENGINE = InnoDB"):
                    open_store().check(LEDGER.models)
            finally:
                connection.execute(text("ALTER TABLE command_log ENGINE = InnoDB"))
        engine.dispose()

    def test_an_operator_s_statement_may_take_longer_than_the_server_s_greeting(self, url: str) -> None:
        address = parse_address(url)
        kind = kind_of(address)
        assert isinstance(kind, SqlKind)
        engine = kind.dialect.engine(address, connect_timeout_s=1)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT SLEEP(1.5)")).scalar() == 0
        engine.dispose()

    def test_operators_do_not_wait_for_a_table_that_others_hold(
        self, open_admin: OpenAdmin, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a backup does, or an ALTER TABLE that waits."""
        monkeypatch.setattr("coordinator.stores.sql.admin_session.LOCK_TIMEOUT_S", 1)
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.execute(text("LOCK TABLES lane_lease WRITE"))
            try:
                with pytest.raises(DatabaseUnavailable, match="1205"):
                    open_admin("ledger").state()
            finally:
                connection.execute(text("UNLOCK TABLES"))
        engine.dispose()

    def test_a_column_that_takes_different_texts_for_one_is_refused(self, open_store: OpenStore, url: str) -> None:
        engine = sql_engine(url)
        change = "ALTER TABLE accounts MODIFY owner VARCHAR(20) CHARACTER SET utf8mb4 COLLATE {} NOT NULL"
        with engine.connect() as connection:
            open_store().check(LEDGER.models)
            for collation in ("utf8mb4_general_ci", "utf8mb4_unicode_ci"):
                connection.execute(text(change.format(collation)))
                try:
                    with pytest.raises(
                        ConfigurationError, match=rf"accounts: owner .*{collation}.*COLLATE utf8mb4_bin"
                    ):
                        open_store().check(LEDGER.models)
                finally:
                    connection.execute(text(change.format("utf8mb4_bin")))
            open_store().check(LEDGER.models)
        engine.dispose()

    def test_a_database_that_does_not_sync_is_refused_unless_allowed(self, open_store: OpenStore, url: str) -> None:
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.execute(text("SET GLOBAL innodb_flush_log_at_trx_commit = 2"))
            try:
                with pytest.raises(ConfigurationError, match=r"innodb_flush_log_at_trx_commit.*LANE_ALLOW_UNSYNCED"):
                    open_store().check(LEDGER.models)
                open_store().check(LEDGER.models, must_sync=False)
            finally:
                connection.execute(text("SET GLOBAL innodb_flush_log_at_trx_commit = 1"))
        engine.dispose()

    setting = "PAYMENTS_DATABASE_URL"
    blocked = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    connections = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    kill = "KILL {}"


class _AsReadWrite:
    @pytest.fixture(autouse=True)
    def _all_is_permitted(self) -> Iterator[None]:
        """To the role that docs/OPERATING.md gives the lane and the operator: the stand-in has no users."""
        with permitted(READ_WRITE):
            yield


class TestMongoStore(_AsReadWrite, _ServerContract):
    setting = "ITEMS_DATABASE_URL"
    has_check_constraints = False
    has_lengths = False

    def test_fields_that_the_class_does_not_have_outlive_a_change(self, open_store: OpenStore, url: str) -> None:
        """Such as those of a newer release; a row that is added anew under the key of another one has none of them."""
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1), account(2)]))
        with closing(pymongo.MongoClient[Any](url)) as client:
            documents = client.get_default_database()["accounts"]
            documents.update_many({}, {"$set": {"nickname": "ada"}})
            again = account(2, balance=9)
            update = Changes([], [[account(1, balance=7), again]], [], added_again=[again])
            commit(store, lease, update)
            found = {each["_id"]: (each["balance"], each.get("nickname")) for each in documents.find()}
        assert found == {1: (7, "ada"), 2: (9, None)}

    def test_what_only_an_index_calls_unique_is_taken_once_it_is_free(self, open_store: OpenStore, url: str) -> None:
        with closing(pymongo.MongoClient[Any](url)) as client:
            client.get_default_database()["accounts"].create_index([("note", 1), ("balance", 1)], unique=True)
        store = open_store()
        store.check(LEDGER.models)
        before = {number: account(number, note="n", balance=number) for number in (1, 2)}
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=list(before.values())))
        moved: list[Row] = [account(1, note="n", balance=2), account(2, note="n", balance=3)]
        commit(store, lease, Changes([], [moved], [], lambda row: before[row.id]))  # type: ignore[attr-defined]
        assert accounts(store, 1, 2) == moved


def test_a_look_finds_a_collection_of_a_mongodb_that_is_missing(databases: FreshDatabases) -> None:
    url = databases.new("ITEMS_DATABASE_URL")
    _migrate(url)
    with closing(open_store_at(url, LEDGER)) as store, closing(pymongo.MongoClient[Any](url)) as client:
        lease = store.take_over("holder", NOW)
        database = client.get_default_database()
        database["outbox"].rename("away")
        for _ in range(LOOKS):
            with pytest.raises(StoreUnavailable, match=r"collection outbox is missing: run `coordinator migrate`"):
                store.look()
        database["away"].rename("outbox")
        assert [store.look() for _ in range(LOOKS)] == [lease] * LOOKS


def test_of_two_services_that_migrate_at_once_into_one_mongodb_one_is_refused(
    databases: FreshDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = databases.new("ITEMS_DATABASE_URL")
    others = [Service(name="other", models=(), handlers=())]

    def checked(*arguments: Any, **options: Any) -> None:
        check_lane(*arguments, **options)
        if others:
            migrate(others.pop(), DatabaseSettings(database_url=url))

    monkeypatch.setattr(collections, "check_lane", checked)
    with pytest.raises(WrongDatabase, match="LEDGER_DATABASE_URL is that of lane other"):
        _migrate(url)
    with closing(pymongo.MongoClient[Any](url)) as client:
        database = client.get_default_database()
        assert [lease["_id"] for lease in database["lane_lease"].find()] == ["other"]
        assert "accounts" not in database.list_collection_names()


class _LaneOnServer(_OnServer):
    @pytest.fixture
    def accept_loss(self, url: str) -> Iterator[AcceptLoss]:
        address = parse_address(url)
        with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
            yield lambda sequence, up_to, lineage=None: admin.accept_loss(sequence, up_to, NOW, lineage=lineage)


class TestPostgresLane(_LaneOnServer, EveryLaneContract):
    setting = "USERS_DATABASE_URL"


class TestMysqlLane(_LaneOnServer, EveryLaneContract):
    setting = "PAYMENTS_DATABASE_URL"


class TestMongoLane(_AsReadWrite, _LaneOnServer, EveryLaneContract):
    setting = "ITEMS_DATABASE_URL"


def _until(condition: Callable[[], bool]) -> None:
    """Poll a server that offers no event; the test's own timeout bounds it.

    Not too often: InnoDB shows the same list of transactions again while it is read more than ten times a second.
    """
    while not condition():
        threading.Event().wait(0.2)
