"""The names of lanes: that of a service, or of one of its tenants, as in `seats-acme`.

No service's name has a `-`, so each lane's name says whose it is.
"""

import re
from typing import Final

TENANT_SIGN: Final = "-"
"""What is between a service's name and a tenant's."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


_AT_BROKERS: Final = "what every lane has at the broker"
RESERVED: Final = {
    "system": _AT_BROKERS,
    "dead": _AT_BROKERS,
    "lane": "every lane's own commands",
    "operations": "the operations gateway",
}
"""No services, and for what each name is kept. Queues of the first two would have the names of exchanges, and rights at
RabbitMQ are by name; `lane.…` are types of commands; and a program, its port and its settings have the last."""


def is_name(name: object) -> bool:
    """Whether a service, or a tenant, can have this name: lower-case letters, digits and _, 63 characters at most."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def lane_of(service: str, tenant: str | None) -> str:
    """The lane of a service, or of a tenant's data in it."""
    return service if tenant is None else f"{service}{TENANT_SIGN}{tenant}"


def service_of(lane: str) -> str:
    """The service whose commands a lane applies: what their types begin with."""
    return lane.partition(TENANT_SIGN)[0]


def tenant_of(lane: str) -> str | None:
    """The tenant whose lane it is; None: it is the service's only one."""
    return lane.partition(TENANT_SIGN)[2] or None


def settings_prefix(lane: str) -> str:
    """What the names of its settings begin with: `SEATS_`, `SEATS_ACME_`."""
    return f"{lane.upper().replace(TENANT_SIGN, '_')}_"
