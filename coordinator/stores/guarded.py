"""The base of the stores on a connection: errors in the port's terms, and no use of a broken connection."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar

from coordinator.service.descriptions import described
from coordinator.service.errors import ConfigurationError, UnreadableRow
from coordinator.stores.port import BatchFault, RowFault, StoreError, StoreUnavailable


class GuardedStore(ABC):
    """The part of a store that its transactions use too."""

    title: ClassVar[str]
    """The name of its kind of database, for the texts of errors."""

    @abstractmethod
    def meaning(self, error: Exception) -> StoreError | None:
        """The port's error for one of the driver's; None: it is none of these."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the next call opens another. Never raises."""

    def guarded(self) -> "_Guard":
        """The one place where a driver's errors become the port's.

        The connection is closed when the server, or the fate of a transaction, is out of reach.
        """
        return _Guard(self)

    def translated(self, error: Exception) -> StoreError:
        """The port's error for one that is none yet."""
        return self.meaning(error) or self._meaning_of_another(error)

    def _meaning_of_another(self, error: Exception) -> StoreError:
        if isinstance(error, UnreadableRow):
            return RowFault(str(error), error.key)
        text = described(error)
        # An error that is not the network's is about a row, whose values could not be sent.
        return StoreUnavailable(f"{self.title}: {text}") if isinstance(error, OSError) else BatchFault(text)


class _Guard:
    """Every batch passes several: a generator would cost as much as a statement."""

    __slots__ = ("_store",)

    def __init__(self, store: GuardedStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        if isinstance(error, StoreUnavailable):
            self._store.close()
        elif not isinstance(error, StoreError | ConfigurationError):
            meaning = self._store.translated(error)
            if isinstance(meaning, StoreUnavailable):
                self._store.close()
            raise meaning from error
