"""How a kind of SQL database differs from the others, wherever it is not its lane that writes."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, make_url
from sqlalchemy.exc import ArgumentError

from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.port import Store


class Dialect(ABC):
    """One of SQLAlchemy's, with what it does not know."""

    driver: ClassVar[str]
    """SQLAlchemy's name of the dialect and its driver: for operators and migrations."""
    reading_driver: ClassVar[str | None]
    """The same of the asynchronous one, for gateways; None: no gateway reads such a database."""
    admin_isolation: ClassVar[str | None] = "READ COMMITTED"
    """Of an operator's transactions; None: there is but one."""

    @abstractmethod
    def open_store(self, url: str, service: Service) -> Store:
        """For the service's lane."""

    def connect_limits(self, connect_timeout_s: int) -> dict[str, Any]:
        """Arguments of the driver's: how long connecting may take."""
        return {"connect_timeout": connect_timeout_s}

    def lock_limits(self, lock_timeout_s: int) -> dict[str, Any]:  # noqa: ARG002
        """Arguments of the driver's: how long a statement waits for a row that is locked."""
        return {}

    def read_limits(self, timeout_ms: int) -> dict[str, Any]:  # noqa: ARG002
        """Arguments of the asynchronous driver's: how long a statement may take, where it can be told."""
        return {}

    @abstractmethod
    def is_of_schema(self, error: BaseException) -> bool:
        """Whether the driver's error says that a table or a column is missing."""

    @abstractmethod
    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        """Where within bytes others are, from 1; 0: nowhere."""

    def alone(self, connection: Connection) -> AbstractContextManager[None]:  # noqa: ARG002
        """One migration of a database at a time; others wait."""
        return nullcontext()

    @abstractmethod
    def allow_reading(self, connection: Connection, reader: URL, owner: URL) -> None:
        """Let the reader's role read every table and write none; create it if it does not exist."""

    def address(self, url: str) -> URL:
        """The address with the name of the driver. Raises ConfigurationError."""
        return _with_driver(url, self.driver)

    def reading_address(self, url: str) -> URL:
        """The same for the asynchronous driver."""
        if self.reading_driver is None:
            raise ConfigurationError(f"no gateway reads a database of {url.partition('://')[0]}: it has no server")
        return _with_driver(url, self.reading_driver)


def _with_driver(url: str, driver: str) -> URL:
    try:
        return make_url(url).set(drivername=driver)
    except ArgumentError as error:
        raise ConfigurationError(f"not a database address: {error}") from None
