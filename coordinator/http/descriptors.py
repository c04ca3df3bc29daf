"""Open files: a gateway's connections must fit beside its other open files."""

import resource
from typing import Final

from coordinator.http.connections import SURPLUS
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import ConfigurationError

BACKLOG_MAX: Final = 128
OTHERS: Final = 48
"""The broker's two connections, the cache's, the port, the log, the loop's own, the files that Python opens."""

OTHERS_OF_EACH: Final = 12
"""Of each further service, or tenant, in the process: its database, its connections to the broker or its file of
accepted commands, and what belongs to them."""


def backlog_of(connections_max: int) -> int:
    """How many connections the kernel holds for us. A loop accepts all of them before it looks at the first.

    So they need open files too. They must be fewer than the connections that there may be: otherwise connections that
    come at once would take each other's place before any of them is read.
    """
    return max(1, min(BACKLOG_MAX, connections_max // 4))


def make_room_for_connections(settings: GatewaySettings, ports: int = 1, behind: int = 1) -> None:
    """Raise this process's limit of open files as far as its gateways need, and no further.

    `behind` each of its ports there are so many. Raises ConfigurationError if the hard limit is too low.
    """
    needed = _needed(settings.connections_max, settings, ports, behind)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        # No more than the limit ever fit, however many are asked for.
        highest = min(settings.connections_max, hard)
        fitting = next((some for some in range(highest, 0, -1) if _needed(some, settings, ports, behind) <= hard), 0)
        advice = (
            f"set GATEWAY_CONNECTIONS_MAX to at most {fitting}, or raise the limit"
            if fitting > 0
            else "raise the limit"
        )
        raise ConfigurationError(
            f"GATEWAY_CONNECTIONS_MAX: {settings.connections_max} connections do not fit: this process may have {hard}"
            f" open files (ulimit -Hn), and with those for the broker, the database, the log and new connections it"
            f" needs {needed}; {advice}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _needed(connections_max: int, settings: GatewaySettings, ports: int, behind: int) -> int:
    at_a_port = connections_max + SURPLUS + backlog_of(connections_max)
    gateways = ports * behind
    return ports * at_a_port + gateways * settings.read_pool_max + OTHERS + (gateways - 1) * OTHERS_OF_EACH
