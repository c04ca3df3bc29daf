"""The differences between the kinds of SQL database, apart from the stores of their lanes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, create_engine

from coordinator.runtime.addresses import Address
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.port import Lack, NoStandby, Store
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.writers import Writers, WritersQuery

CONNECT_TIMEOUT_S = 5
MIGRATION_LOCK_TIMEOUT_S = 2
"""Others wait for a table behind a statement that waits for its lock, and a lane gives up after 5 s."""


class Dialect(ABC):
    """A dialect of SQLAlchemy's, with the knowledge that SQLAlchemy lacks."""

    driver: ClassVar[str]
    """SQLAlchemy's name of the dialect and its driver: for operators and migrations."""
    reading_driver: ClassVar[str]
    """SQLAlchemy's name of the asynchronous one, for gateways."""
    admin_isolation: ClassVar[str | None] = "READ COMMITTED"
    """The isolation of an operator's transactions; None: the database has only one."""
    ends_indexes_with_key: ClassVar[bool] = False
    """Whether each index has the columns of the primary key behind its own."""
    clock: ClassVar[str | None] = None
    """Asks the server's clock for the seconds since 1970; None: there is no server."""
    follows: ClassVar[str | None] = None
    """Asks a server whether it only follows another one."""
    leading: ClassVar[Mapping[str, Any]] = {}
    """More of the asynchronous driver's arguments, for reads that must not be old."""
    unentered: ClassVar[str | None] = None
    """Asks a server for the schemas that a role may not use: it says of their tables that they are not there."""

    @abstractmethod
    def open_store(self, address: Address, service: Service) -> Store:
        """Open the store of the service's lane."""

    def open_store_with_standby(self, address: Address, service: Service) -> Store:  # noqa: ARG002
        """Open one that commits only while commits wait for a synchronous standby. Raises NoStandby."""
        raise NoStandby(address.scheme)

    @abstractmethod
    def connection(self, address: Address) -> dict[str, Any]:
        """Arguments of the driver's. Raises ConfigurationError, which names an option that has none."""

    def reading_connection(self, address: Address) -> dict[str, Any]:
        """The same for the asynchronous driver."""
        return self.connection(address)

    async def probe(self, connection: Any) -> None:  # noqa: B027  # nobody else ends a connection to a file
        """One round trip on a connection of the asynchronous driver's. Raises anything if it is of no use any more."""

    def limited(self, connection: dict[str, Any], lock_timeout_s: int) -> dict[str, Any]:  # noqa: ARG002
        """These arguments, changed so that a statement waits no longer than this for a locked row."""
        return connection

    @abstractmethod
    def is_of_schema(self, error: BaseException) -> bool:
        """Whether the driver's error says that a table or a column is missing."""

    def is_of_value(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether the driver's error may say that it cannot decode a value of a row: the server has sent it."""
        return False

    def lack(self, error: BaseException) -> Lack | None:  # noqa: ARG002
        """What the driver's error says that a reader lacks; None: it says something else, or is another driver's."""
        return None

    def pooler(self, error: BaseException) -> str | None:  # noqa: ARG002
        """The reason, if the driver's error says that a pooler refuses what a migration's connection asks for."""
        return None

    @abstractmethod
    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        """The position of bytes within other bytes, from 1; 0: they are not there."""

    def alone(self, connection: Connection, database: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """One migration of a database at a time; others wait."""
        return nullcontext()

    def bound_locks(self, engine: Engine) -> None:  # noqa: B027  # a file is this process's alone
        """Have a migration's statements wait no longer than `MIGRATION_LOCK_TIMEOUT_S` for the lock of a table."""

    def check_committed(self, connection: Connection) -> None:  # noqa: B027  # most raise where they do not commit
        """Raise DatabaseUnavailable where the server has called a transaction of an `engine`'s connection committed
        that a failover may lose."""

    def has_met_another(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether another session has changed roles or rights at the same moment: the same again may succeed."""
        return False

    def is_lock_timeout(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether the driver's error says that a statement has waited too long for another session's lock."""
        return False

    def check_texts(self, connection: Connection, models: Sequence[type[Row]], setting: str) -> None:  # noqa: B027
        """Raise ConfigurationError, in a lane's words, for a text by which rows are found and that the database of this
        setting does not compare as Python does. Nothing is to be looked at where a table says it itself."""

    def narrow_columns(self, connection: Connection, models: Sequence[type[Row]]) -> Sequence[str]:  # noqa: ARG002
        """What is to be said of columns that refuse, or do not keep, some of the values of their rows, and with which
        an application gets along: only where the database has narrower ones than it was asked for."""
        return ()

    def lock_holders(self, connection: Connection) -> str:  # noqa: ARG002
        """Who has locks that may be in a statement's way, in words."""
        return "nobody is known"

    def resumable(self, connection: Connection, history: str) -> AbstractContextManager[Callable[[], None]]:  # noqa: ARG002
        """Within it a history runs up to its head. If it was interrupted, it goes on where it stopped.

        What it yields is to be called in each transaction that writes a new version. Where DDL is part of a
        transaction, what was interrupted has left nothing behind.
        """
        return nullcontext(lambda: None)

    @abstractmethod
    def allow(self, connection: Connection, role: Address, database: str, tables: Sequence[str]) -> None:
        """Let a role read and write the rows of these tables, which are the lane's, and of all others on which whoever
        connects may give rights; create it if it does not exist.
        """

    @abstractmethod
    def allow_reading(self, connection: Connection, reader: Address, database: str, rights: ReadingRights) -> None:
        """Let a role read these tables, as far as they are there, and none of those that are withheld; create it if it
        does not exist. What it may read of tables that are not the lane's is left to it, and it reads without a break.
        """

    def renew(self, connection: Connection, role: Address) -> None:  # noqa: B027  # a file has no roles
        """Set the password of a role again, if its address has one: each role can change its own."""

    def confine(self, connection: Connection, reader: Address, database: str) -> None:  # noqa: B027
        """Limit a reader's connections and reads, and take from everybody what fills the database without a right on
        any of its tables, as far as this connection's role may. Only people say when: others may use it there.
        """

    @abstractmethod
    def account_lines(
        self, owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights
    ) -> Sequence[str]:
        """As `Kind.account_lines`."""

    @abstractmethod
    def writers(self, connection: Connection, query: WritersQuery) -> Writers:
        """What can write these tables of a lane, as far as this connection's role is shown it."""

    @abstractmethod
    def foreign_rights(self, connection: Connection, query: WritersQuery) -> ForeignRights:
        """What lets others than the lane, and this connection's role, write these tables."""

    def reader_excess(self, connection: Connection, query: ReaderQuery) -> ReaderExcess:  # noqa: ARG002
        """As `Kind.reader_excess`; a file has no roles."""
        return ()

    def reader_elsewhere(self, connection: Connection, query: ReaderQuery) -> Sequence[str]:  # noqa: ARG002
        """As `Kind.reader_elsewhere`; elsewhere a reader needs a right of its own to enter a database."""
        return ()

    def make(self, address: Address) -> None:  # noqa: B027  # servers have nothing to do
        """Make the database for a migration if it is missing, where that is nobody else's work.

        Raises ConfigurationError.
        """

    def engine(
        self,
        address: Address,
        *,
        connect_timeout_s: int = CONNECT_TIMEOUT_S,
        lock_timeout_s: int | None = None,
        silence_s: float | None = None,
        **options: Any,
    ) -> Engine:
        """An engine for operators and migrations. The address that SQLAlchemy gets names the driver only.

        `silence_s`: how long a server may say nothing to a statement; None: for ever. Raises ConfigurationError.
        """
        arguments = self.connection(address) | {"connect_timeout": connect_timeout_s}
        if silence_s is not None:
            arguments |= self.silence(silence_s)
        if lock_timeout_s is not None:
            arguments = self.limited(arguments, lock_timeout_s)
        # Its errors would show the parameters of a statement, and so the values of rows.
        return create_engine(URL.create(self.driver), connect_args=arguments, hide_parameters=True, **options)

    def silence(self, silence_s: float) -> dict[str, Any]:  # noqa: ARG002
        """The driver's arguments that limit how long a connection may be silent, if it has any."""
        return {}

    def reads_in_turns(self, address: Address) -> bool:
        """Whether an address names several servers from which gateways read, no matter from which."""
        return len(address.hosts) > 1

    def reading(self, address: Address, connect_timeout_s: int) -> tuple[URL, dict[str, Any]]:
        """The asynchronous driver's name, and its arguments. Raises ConfigurationError."""
        arguments = self.reading_connection(address) | {"connect_timeout": connect_timeout_s}
        return URL.create(self.reading_driver), arguments

    def opened_reader(self, engine: Engine, address: Address) -> None:  # noqa: B027  # a server tells its files apart
        """Have the connections of a reader's engine, which is still to connect, refused where they would do harm."""


def first_row(connection: Connection, statement: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
    """Run a statement with the driver's own placeholders, and return the first row of its answer; None: it has none."""
    found = connection.exec_driver_sql(statement, tuple(arguments)).first()
    return None if found is None else tuple(found)
