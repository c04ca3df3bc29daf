"""The services that exist. A fourth one is a folder beside these and a line here."""

from collections.abc import Sequence

from coordinator.service.errors import ConfigurationError
from coordinator.service.outside_calls import effects_key
from coordinator.service.service import Service
from shared.items import SERVICE as ITEMS
from shared.payments import SERVICE as PAYMENTS
from shared.users import SERVICE as USERS

SERVICES: tuple[Service, ...] = (USERS, ITEMS, PAYMENTS)


def service_named(name: str) -> Service:
    """Raises ConfigurationError, which lists the names there are."""
    for service in SERVICES:
        if service.name == name:
            return service
    raise ConfigurationError(f"no service {name!r}: there are {', '.join(service.name for service in SERVICES)}")


def targets_of(services: Sequence[Service]) -> frozenset[str]:
    """To whom anything can be emitted: the lanes of some services, and those who carry out their effects."""
    effects = (effects_key(service.name) for service in services if service.effects is not None)
    return frozenset((*(service.name for service in services), *effects))
