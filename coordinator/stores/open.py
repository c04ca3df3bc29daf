"""Which store serves which address."""

from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.port import Store


def open_store(url: str, service: Service) -> Store:
    """The store for a database's address; connects on first use. Raises ConfigurationError."""
    return kind_of(url).open_store(url, service)
