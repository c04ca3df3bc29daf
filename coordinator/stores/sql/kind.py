"""The base of the kinds of SQL database, on SQLAlchemy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.admin import LOCK_TIMEOUT_S, LaneAdmin
from coordinator.stores.announcements import Withdrawal
from coordinator.stores.api_keys import ApiKeys
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.kinds import Database, PoolUse
from coordinator.stores.port import Lack, Store
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.revisions import Revision
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.writers import Writers, WritersQuery

# ruff: noqa: PLC0415  # a lane needs no operator's commands, no asynchronous engine and no Alembic

CONNECT_TIMEOUT_S = 5


class SqlKind:
    """Implements `Kind`."""

    errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError,)

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @property
    def follows(self) -> str | None:
        return self.dialect.follows

    def check_address(self, address: Address) -> None:
        self.dialect.connection(address)

    def open_store(self, address: Address, service: Service) -> Store:
        return self.dialect.open_store(address, service)

    def open_store_with_standby(self, address: Address, service: Service) -> Store:
        return self.dialect.open_store_with_standby(address, service)

    def open_admin(self, address: Address, lane: str, *, silence_s: float | None = None) -> LaneAdmin:
        from coordinator.stores.sql.admin import SqlAdmin

        return SqlAdmin(self.dialect, address, lane, silence_s=silence_s)

    def open_api_keys(self, address: Address, lane: str) -> ApiKeys:
        from coordinator.stores.sql.api_keys import SqlApiKeys

        return SqlApiKeys(self.dialect, address, lane)

    def writers(self, looking: Address, query: WritersQuery) -> Writers:
        from coordinator.stores.sql.place import misplaced

        with self._connected(looking) as connection:
            why = misplaced(connection, query)
            found = self.dialect.writers(connection, query)
            return found if why is None else Writers(found.found, (*found.unseen, f"Not all is seen: {why}."))

    def foreign_rights(self, looking: Address, query: WritersQuery) -> ForeignRights:
        from coordinator.stores.sql.place import misplaced

        with self._connected(looking) as connection:
            why = misplaced(connection, query)
            return self.dialect.foreign_rights(connection, query) if why is None else ForeignRights((), why)

    def reader_excess(self, looking: Address, query: ReaderQuery) -> ReaderExcess:
        with self._connected(looking) as connection:
            return self.dialect.reader_excess(connection, query)

    def reader_elsewhere(self, looking: Address, query: ReaderQuery) -> Sequence[str]:
        with self._connected(looking) as connection:
            return self.dialect.reader_elsewhere(connection, query)

    def revoke(self, looking: Address, statements: Sequence[str]) -> None:
        from coordinator.stores.sql.migration_waits import despite_others

        def take() -> None:
            for statement in statements:
                # The names in them may have a % of their own.
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

        with self._connected(looking) as connection:
            despite_others(self.dialect, connection, take)

    @contextmanager
    def _connected(self, looking: Address) -> Iterator[Connection]:
        engine = self.dialect.engine(looking, lock_timeout_s=LOCK_TIMEOUT_S)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def account_lines(
        self, owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights
    ) -> Sequence[str]:
        return self.dialect.account_lines(owner, lane, reader, rights)

    def make_accounts(self, owner: Address, lane: Address, reader: Address | None, rights: ReadingRights) -> None:
        from coordinator.stores.sql.migration_waits import despite_others

        def make() -> None:
            if lane.user not in (None, owner.user):
                self.dialect.allow(connection, lane, owner.database, rights.all)
                self.dialect.renew(connection, lane)
            if reader is not None and reader.user not in (None, owner.user):
                self.dialect.allow_reading(connection, reader, owner.database, rights)
                self.dialect.renew(connection, reader)
                self.dialect.confine(connection, reader, owner.database)

        engine = self.dialect.engine(owner)
        try:
            with engine.connect() as connection:
                despite_others(self.dialect, connection, make)
        finally:
            engine.dispose()

    def open_reader(
        self, address: Address, pool_max: int, timeout_ms: int, *, must_lead: bool = False, lane: str | None = None
    ) -> Database:
        from sqlalchemy.ext.asyncio import create_async_engine

        from coordinator.stores.sql.hosts_in_turns import (
            HOST_CONNECT_TIMEOUT_S,
            HostsInTurns,
            connect_in_turns,
            options_of,
        )
        from coordinator.stores.sql.pooled import keep_to_lane, probe_pooled

        turns = HostsInTurns(address.hosts) if self.dialect.reads_in_turns(address) else None
        timeout_s = CONNECT_TIMEOUT_S if turns is None else HOST_CONNECT_TIMEOUT_S
        servers = [address] if turns is None else address.by_host()
        found = [self.dialect.reading(one, timeout_s) for one in servers]
        url, more = found[0][0], self.dialect.leading if must_lead else {}
        each = [{**arguments, **more} for _, arguments in found]
        engine = create_async_engine(
            url,
            pool_size=pool_max,
            max_overflow=0,
            pool_timeout=timeout_ms / 1000,
            hide_parameters=True,
            # Reads are single statements: a transaction around each would cost two more round trips.
            isolation_level="AUTOCOMMIT",
            connect_args=each[0],
            # As text, which the lane reads too: a field's own type says how, and Python's reader takes NaN, and gives
            # floats where the field has Decimals.
            json_deserializer=_as_text,
            **({} if turns is None else options_of(turns)),
        )
        if turns is not None:
            connect_in_turns(engine, turns, each)
        probe_pooled(engine, self.dialect, must_lead=must_lead)
        if lane is not None:
            keep_to_lane(engine, lane)
        self.dialect.opened_reader(engine.sync_engine, address)
        return engine

    def pool_use(self, database: Database) -> PoolUse | None:
        from sqlalchemy.ext.asyncio import AsyncEngine

        pool = database.pool if isinstance(database, AsyncEngine) else None
        # A database in memory has one connection, and no queue of them.
        return PoolUse(pool.checkedout(), pool.checkedin()) if isinstance(pool, QueuePool) else None

    def is_of_value(self, error: Exception) -> bool:
        return isinstance(error, DBAPIError) and error.orig is not None and self.dialect.is_of_value(error.orig)

    def lack(self, error: Exception) -> Lack | None:
        return self.dialect.lack(error.orig) if isinstance(error, DBAPIError) and error.orig is not None else None

    def migrate(
        self,
        service: Service,
        owner: Address,
        lane: Address,
        reader: Address | None,
        withdrawals: Sequence[Withdrawal],
    ) -> None:
        from coordinator.migrations.histories import migrate_sql

        try:
            migrate_sql(self.dialect, service, owner, lane, reader, withdrawals)
        except DBAPIError as error:
            if error.orig is None or (problem := self.dialect.pooler(error.orig)) is None:
                raise
            raise ConfigurationError(problem) from error

    def revisions(self, service: Service, owner: Address, lane: Address) -> Sequence[Revision]:
        from coordinator.migrations.histories import revisions_of

        return revisions_of(self.dialect, service, owner, lane)


def _as_text(text: Any) -> Any:
    return text.decode() if isinstance(text, bytes) else text
