"""The base of the stores on a connection: errors in the port's terms, and no use of a broken connection."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """The one place where a driver's errors become the port's.

        The connection is closed when the server, or the fate of a transaction, is out of reach.
        """
        try:
            yield
        except StoreUnavailable:
            self.close()
            raise
        except (StoreError, ConfigurationError):
            raise
        except Exception as error:
            meaning = self.meaning(error) or self._meaning_of_another(error)
            if isinstance(meaning, StoreUnavailable):
                self.close()
            raise meaning from error

    def _meaning_of_another(self, error: Exception) -> StoreError:
        if isinstance(error, UnreadableRow):
            return RowFault(str(error))
        text = described(error)
        # An error that is not the network's is about a row, whose values could not be sent.
        return StoreUnavailable(f"{self.title}: {text}") if isinstance(error, OSError) else BatchFault(text)
