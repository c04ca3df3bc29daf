"""MongoDB as a kind of database."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.announcements import Withdrawal
from coordinator.stores.api_keys import ApiKeys
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.kinds import Database, Kind, PoolUse
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.mongodb.driver_arguments import connection_of, refresh_tls
from coordinator.stores.mongodb.errors import lack
from coordinator.stores.port import Lack, NoStandby, Store
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.revisions import Revision
from coordinator.stores.writers import Writers, WritersQuery

# ruff: noqa: PLC0415  # a process does one of these

CONNECT_TIMEOUT_S = 3
"""Less than a read may take: the driver then says why it has no connection."""
IDLE_MS_MAX = 30_000
"""Connections of readers that are idle for longer are replaced: firewalls forget idle ones after a minute or more, and
say nothing. Of those that are ended aloud the driver hears."""


class _MongoKind:
    """Implements `Kind`."""

    errors: ClassVar[tuple[type[Exception], ...]] = (PyMongoError,)
    follows: ClassVar[str | None] = None

    def check_address(self, address: Address) -> None:
        connection_of(address)

    def open_store(self, address: Address, service: Service) -> Store:
        from coordinator.stores.mongodb.store import MongoStore

        return MongoStore(address, service)

    def open_store_with_standby(self, address: Address, service: Service) -> Store:  # noqa: ARG002
        raise NoStandby(address.scheme)

    def open_admin(self, address: Address, lane: str, *, silence_s: float | None = None) -> LaneAdmin:  # noqa: ARG002  # it limits all
        from coordinator.stores.mongodb.admin import MongoAdmin

        return MongoAdmin(address, lane)

    def open_api_keys(self, address: Address, lane: str) -> ApiKeys:
        from coordinator.stores.mongodb.api_keys import MongoApiKeys

        return MongoApiKeys(address, lane)

    def writers(self, looking: Address, query: WritersQuery) -> Writers:
        from coordinator.stores.mongodb.client import open_client
        from coordinator.stores.mongodb.writers import writers

        with open_client(connection_of(looking), "operator") as client:
            return writers(client[looking.database], query)

    def foreign_rights(self, looking: Address, query: WritersQuery) -> ForeignRights:
        from coordinator.stores.mongodb.client import open_client
        from coordinator.stores.mongodb.foreign_rights import foreign_rights

        with open_client(connection_of(looking), "operator") as client:
            return foreign_rights(client[looking.database], query, looking.user)

    def reader_excess(self, looking: Address, query: ReaderQuery) -> ReaderExcess:
        from coordinator.stores.mongodb.client import open_client
        from coordinator.stores.mongodb.reader_excess import reader_excess

        with open_client(connection_of(looking), "operator") as client:
            return reader_excess(client[looking.database], query)

    def reader_elsewhere(self, looking: Address, query: ReaderQuery) -> Sequence[str]:  # noqa: ARG002
        return ()

    def revoke(self, looking: Address, statements: Sequence[str]) -> None:
        """Each command by itself: accounts are changed in no transaction."""
        from coordinator.stores.mongodb.client import open_client
        from coordinator.stores.mongodb.foreign_rights import command_of

        with open_client(connection_of(looking), "operator") as client:
            for statement in statements:
                database, command = command_of(statement)
                client[database].command(command)

    def account_lines(
        self, owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights
    ) -> Sequence[str]:
        from coordinator.stores.mongodb.accounts import lines_of

        return lines_of(owner, lane, reader, rights)

    def make_accounts(self, owner: Address, lane: Address, reader: Address | None, rights: ReadingRights) -> None:  # noqa: ARG002
        raise ConfigurationError(
            "MongoDB's accounts are its administrator's to make: run what is printed without --apply"
        )

    def open_reader(
        self,
        address: Address,
        pool_max: int,
        timeout_ms: int,
        *,
        must_lead: bool = False,  # noqa: ARG002  # the driver asks the primary unless the address says otherwise
        lane: str | None = None,
    ) -> Database:
        """Reads by majority, so that nothing that a read shows can be rolled back.

        Integers are plain ones in whatever the author of a gateway reads.
        """
        from coordinator.stores.mongodb.own_connections import keeping_to_lane
        from coordinator.stores.mongodb.plain_integers import with_plain_integers

        connection = connection_of(address)
        pools: dict[str, Any] = {} if lane is None else {"_pool_class": keeping_to_lane(address.database, lane)}
        if "maxidletimems" not in map(str.lower, address.options):
            connection["maxIdleTimeMS"] = IDLE_MS_MAX
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            **connection,
            tz_aware=True,
            uuidRepresentation="standard",
            datetime_conversion="DATETIME_AUTO",
            maxPoolSize=pool_max,
            serverSelectionTimeoutMS=CONNECT_TIMEOUT_S * 1000,
            # Of each address that a name has.
            connectTimeoutMS=CONNECT_TIMEOUT_S * 1000,
            socketTimeoutMS=timeout_ms,
            readConcernLevel="majority",
            **pools,
        )
        refresh_tls(client, connection)
        return client.get_database(address.database, with_plain_integers(client.codec_options))

    def pool_use(self, database: Database) -> PoolUse | None:
        if not isinstance(database, AsyncDatabase):
            return None
        # The driver tells it only to listeners, which every read would pay for.
        servers = database.client._topology._servers.values()  # noqa: SLF001
        pools = [server.pool for server in servers]
        return PoolUse(sum(pool.active_sockets for pool in pools), sum(len(pool.conns) for pool in pools))

    def is_of_value(self, error: Exception) -> bool:  # noqa: ARG002
        """False: each document is decoded, whatever is in it."""
        return False

    def lack(self, error: Exception) -> Lack | None:
        return lack(error) if isinstance(error, PyMongoError) else None

    def migrate(
        self,
        service: Service,
        owner: Address,
        lane: Address,
        reader: Address | None,  # noqa: ARG002
        withdrawals: Sequence[Withdrawal],
    ) -> None:
        """Gives no rights, which is the administrator's work here."""
        from coordinator.stores.mongodb.collections import make_collections

        make_collections(service, owner, lane, withdrawals)

    def revisions(self, service: Service, owner: Address, lane: Address) -> Sequence[Revision]:  # noqa: ARG002
        return ()


KIND: Kind = _MongoKind()
