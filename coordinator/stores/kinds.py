"""Which kind of database an address names, and what the framework asks of each kind.

A kind is a folder here. A process imports those of the addresses that it is given, and so one driver only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from coordinator.runtime.addresses import FOLDERS, scheme_of
from coordinator.service.errors import ConfigurationError
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
    """A kind of database. What it opens connects on first use; its errors about an address are ConfigurationError."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Whatever its readers and its migrations raise, but for those of ours and the network's."""

    def open_store(self, url: str, service: Service) -> Store:
        """For the service's lane."""

    def open_admin(self, url: str, lane: str) -> LaneAdmin:
        """For the operator's commands."""

    def open_reader(self, url: str, pool_max: int, timeout_ms: int) -> Database:
        """For reads by many at once, each of which takes no longer than this."""

    def migrate(self, service: Service, url: str, reader_url: str | None) -> None:
        """Bring the lane's tables and the service's to what this release needs; let the reader's role read them."""


_used: dict[str, Kind] = {}


def kind_of(url: str) -> Kind:
    """The kind of an address, which every address of a database passes through. Raises ConfigurationError."""
    scheme = scheme_of(url)
    folder = FOLDERS.get(scheme)
    if folder is None:
        *others, last = FOLDERS
        raise ConfigurationError(f"no kind of database for {scheme!r}: use {', '.join(others)} or {last}")
    if folder not in _used:
        _used[folder] = import_module(f"coordinator.stores.{folder}.kind").KIND
    return _used[folder]


def driver_errors() -> tuple[type[Exception], ...]:
    """Those of all kinds that this process has used, and the network's."""
    return (OSError, *(error for kind in _used.values() for error in kind.errors))
