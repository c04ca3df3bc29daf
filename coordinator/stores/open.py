"""Opens the store for an address."""

from coordinator.runtime.addresses import parse_address
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.port import Store


def open_store(url: str, service: Service) -> Store:
    """The store for a database's address; connects on first use. Raises ConfigurationError."""
    address = parse_address(url)
    return kind_of(address).open_store(address, service)
