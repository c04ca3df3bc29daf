"""Which kind of database an address names, and what the framework asks of each kind.

A kind is a folder here. A process imports those of the addresses that it is given, and so one driver only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from coordinator.runtime.addresses import Address
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.mongodb.documents import Documents
from coordinator.stores.port import Store

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    Database: TypeAlias = AsyncEngine | Documents
    """What a gateway reads from."""
else:
    # A lane does not load what gateways read with.
    Database = Any


class Kind(Protocol):
    """A kind of database. What it opens connects on first use; its errors about an address are ConfigurationError.

    It makes its driver's arguments of an address in one place, for all of these, and refuses by name what it has none
    for.
    """

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Whatever its readers and its migrations raise, but for those of ours and the network's."""

    def check_address(self, address: Address) -> None:
        """Raise ConfigurationError that names what of an address it has no argument for."""

    def open_store(self, address: Address, service: Service) -> Store:
        """For the service's lane."""

    def open_admin(self, address: Address, lane: str) -> LaneAdmin:
        """For the operator's commands."""

    def open_reader(self, address: Address, pool_max: int, timeout_ms: int) -> Database:
        """For reads by many at once, each of which takes no longer than this."""

    def migrate(self, service: Service, owner: Address, lane: Address, reader: Address | None) -> None:
        """Bring the lane's tables and the service's to what this release needs.

        The lane's role may write them then, if it is not the one who migrates, and the reader's may read them.
        """


_used: dict[str, Kind] = {}


def kind_of(address: Address) -> Kind:
    """The kind of an address, which every address of a database passes through. Raises ConfigurationError."""
    folder = address.folder
    if folder not in _used:
        _used[folder] = import_module(f"coordinator.stores.{folder}.kind").KIND
    return _used[folder]


def driver_errors() -> tuple[type[Exception], ...]:
    """Those of all kinds that this process has used, and the network's."""
    return (OSError, *(error for kind in _used.values() for error in kind.errors))
