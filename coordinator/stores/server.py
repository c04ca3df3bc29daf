"""What several stores have in common: a connection that is closed when it cannot be relied on any more."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from coordinator.stores.port import StoreUnavailable


class ServerStore(ABC):
    """The part of a store that its transactions use too."""

    @abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """The driver's errors become the port's."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the next call opens another. Never raises."""

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Translate errors, and close the connection when the server, or the fate of a transaction, is out of reach."""
        try:
            with self.translated():
                yield
        except StoreUnavailable:
            self.close()
            raise
