"""Opens the store, or the `LaneAdmin`, for an address."""

from coordinator.runtime.addresses import parse_address
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.kinds import kind_of
from coordinator.stores.port import Store


def open_store(url: str, service: Service, *, needs_standby: bool = False) -> Store:
    """The store for a database's address; connects on first use. Raises ConfigurationError.

    `needs_standby`: it commits nothing unless the database makes each commit wait for a synchronous standby.
    """
    address = parse_address(url)
    kind = kind_of(address)
    return kind.open_store_with_standby(address, service) if needs_standby else kind.open_store(address, service)


def open_admin(url: str, lane: str) -> LaneAdmin:
    """What an operator may do there; likewise."""
    address = parse_address(url)
    return kind_of(address).open_admin(address, lane)
