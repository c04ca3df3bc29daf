"""The kinds of database: how an address names one, and the port that each kind implements.

A kind is a folder here. A process imports only the kinds of its addresses, and so their drivers only.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from msgspec import Struct

from coordinator.runtime.addresses import Address
from coordinator.runtime.extras import naming_the_extra
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.announcements import Withdrawal
from coordinator.stores.api_keys import ApiKeys
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.mongodb.documents import Documents
from coordinator.stores.port import Lack, Store
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.revisions import Revision
from coordinator.stores.writers import Writers, WritersQuery

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    Database: TypeAlias = AsyncEngine | Documents
    """The connections from which a gateway reads."""
else:
    # A lane does not load the drivers with which gateways read.
    Database = Any


class ReadsAnotherLanes(DatabaseUnavailable):
    """Raised instead of a new connection that leads to another lane's database; in words for anybody."""

    def __init__(self) -> None:
        super().__init__("the address leads to a database that is not this lane's: nothing is read there")


class OnlyFollows(DatabaseUnavailable):
    """Raised instead of a connection where reads must not be old, and what the server has may be; in words for anybody.
    It only reads, as one does that follows another one.
    """

    def __init__(self) -> None:
        super().__init__("the server only reads, as one does that follows another one: what it has may be old")


class PoolUse(Struct, frozen=True):
    """The connections of a pool: those that somebody uses, and those that are open and idle."""

    used: int
    idle: int


class Kind(Protocol):
    """A kind of database. Everything that it opens connects on first use; its errors about an address are
    ConfigurationError.

    It turns an address into its driver's arguments in one place, for all of these, and refuses by name every option
    without an argument.
    """

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The errors that its readers and its migrations raise, apart from ours and the network's."""

    @property
    def follows(self) -> str | None:
        """What asks a server whether it only follows another one, in SQL; None: nothing does."""

    def check_address(self, address: Address) -> None:
        """Raise ConfigurationError, which names the part of the address that it has no argument for."""

    def open_store(self, address: Address, service: Service) -> Store:
        """Open the store of the service's lane."""

    def open_store_with_standby(self, address: Address, service: Service) -> Store:
        """Open one that commits only while commits wait for a synchronous standby. Raises NoStandby."""

    def open_admin(self, address: Address, lane: str, *, silence_s: float | None = None) -> LaneAdmin:
        """Open the database for the operator's commands. `silence_s`: how long a server may say nothing to a statement,
        for whoever keeps connections, as far as the driver lets it be limited."""

    def open_api_keys(self, address: Address, lane: str) -> ApiKeys:
        """Open the API keys of the lane's gateways, for the operator's commands."""

    def writers(self, looking: Address, query: WritersQuery) -> Writers:
        """What can write these tables of a lane, as far as the role of `looking` is shown it.

        Raises the kind's own `errors`.
        """

    def foreign_rights(self, looking: Address, query: WritersQuery) -> ForeignRights:
        """What lets others than the lane, and the role of `looking`, write these tables.

        Raises the kind's own `errors`.
        """

    def reader_excess(self, looking: Address, query: ReaderQuery) -> ReaderExcess:
        """What a lane's reader may beyond what gateways need, or lacks of its limits.

        Raises the kind's own `errors`, also where the role of `looking` is not shown it.
        """

    def reader_elsewhere(self, looking: Address, query: ReaderQuery) -> Sequence[str]:
        """The other databases of the server that a lane's reader may enter, where what it takes there the lane lacks.

        Raises the kind's own `errors`.
        """

    def revoke(self, looking: Address, statements: Sequence[str]) -> None:
        """Run statements of such rights, in one transaction where the database can.

        Raises the kind's own `errors`: nothing is changed then or, where it cannot, all up to one is.
        """

    def account_lines(
        self, owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights
    ) -> Sequence[str]:
        """What an administrator runs to make the roles of these addresses with the least rights; no password is in it.

        `owner` is the role that migrates, where it is another one than the lane's.
        """

    def make_accounts(self, owner: Address, lane: Address, reader: Address | None, rights: ReadingRights) -> None:
        """Make the roles of the lane and of its readers where they are missing, as `owner`, and give them their rights:
        the readers these, of the tables that are there. What was theirs of the lane's other tables is taken back.

        Doing it again changes nothing. Raises ConfigurationError where a server has no such way, and `errors`.
        """

    def open_reader(
        self, address: Address, pool_max: int, timeout_ms: int, *, must_lead: bool = False, lane: str | None = None
    ) -> Database:
        """Open the database for concurrent reads, each of which may take no longer than this. `must_lead`: none is
        made at an SQL server while it says that it only follows another one. `lane`: none is made over a connection
        that leads to another lane's database, and ReadsAnotherLanes is raised instead.
        """

    def pool_use(self, database: Database) -> PoolUse | None:
        """How its readers' pool is used now; None: it is another kind's, or has no pool."""

    def is_of_value(self, error: Exception) -> bool:
        """Whether one of its readers' errors may say that a value of some row cannot be decoded."""

    def lack(self, error: Exception) -> Lack | None:
        """What one of its readers' errors says that is lacking; None: it says something else."""

    def migrate(
        self,
        service: Service,
        owner: Address,
        lane: Address,
        reader: Address | None,
        withdrawals: Sequence[Withdrawal],
    ) -> None:
        """Bring the lane's tables and the service's to the schema that this release needs.

        The service's commands are announced there, and `withdrawals` take announcements back (`Announcements`). Then
        the lane's role may write the tables, if it is another one than the migrating role, and the reader's may read
        those that gateways read (`reading_rights`), and no other table of the lane's.
        """

    def revisions(self, service: Service, owner: Address, lane: Address) -> Sequence[Revision]:
        """Which revision of each history the database has, and which this release wants; changes nothing. Empty: its
        schema has none.

        Raises ConfigurationError, and the kind's own `errors`.
        """


_used: dict[str, Kind] = {}


def kind_of(address: Address) -> Kind:
    """The kind of an address, which every address of a database passes through. Raises ConfigurationError."""
    folder = address.folder
    if folder not in _used:
        with naming_the_extra():
            _used[folder] = import_module(f"coordinator.stores.{folder}.kind").KIND
    return _used[folder]


def check_role(address: Address, *, is_reader: bool) -> None:
    """As `Kind.check_address`. That of the readers' role may name several servers, of any kind that has them."""
    for each in address.by_host() if is_reader else (address,):
        kind_of(address).check_address(each)


def pool_use(database: Database) -> PoolUse:
    """How the pool of a database for reads is used now."""
    uses = (kind.pool_use(database) for kind in _used.values())
    return next((use for use in uses if use is not None), PoolUse(0, 0))


def lack_of(error: Exception) -> Lack | None:
    """The right or table that a reader lacks, by its error, on any kind; None: the error says something else."""
    lacks = (kind.lack(error) for kind in _used.values() if isinstance(error, kind.errors))
    return next((lack for lack in lacks if lack is not None), None)


def is_of_value(error: Exception) -> bool:
    """Whether a driver's error may say that a value of some row cannot be decoded, on any kind."""
    return any(kind.is_of_value(error) for kind in _used.values() if isinstance(error, kind.errors))


def driver_errors() -> tuple[type[Exception], ...]:
    """The errors of all kinds that this process has used, and the network's."""
    return (OSError, *(error for kind in _used.values() for error in kind.errors))
