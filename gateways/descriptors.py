"""Open files: a gateway's connections must fit beside whatever else it opens."""

import resource
from typing import Final

from gateways.connections import SURPLUS
from shared.errors import ConfigurationError
from shared.settings import GatewaySettings

BACKLOG: Final = 128
"""Connections that the kernel holds for us: a loop accepts all of them before it looks at the first."""
OTHERS: Final = 48
"""The broker's two connections, the cache's, the port, the log, the loop's own, the files that Python opens."""


def make_room_for_connections(settings: GatewaySettings) -> None:
    """Raise this process's limit of open files as far as it needs, and no further.

    Raises ConfigurationError where the hard limit is below that.
    """
    reserved = SURPLUS + BACKLOG + settings.read_pool_max + OTHERS
    needed = settings.connections_max + reserved
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        fitting = hard - reserved
        advice = (
            f"set GATEWAY_CONNECTIONS_MAX to at most {fitting}, or raise the limit"
            if fitting > 0
            else "raise the limit"
        )
        raise ConfigurationError(
            f"GATEWAY_CONNECTIONS_MAX: {settings.connections_max} connections do not fit: this process may have {hard}"
            f" open files (ulimit -Hn), of which {reserved} are for the broker, the database, the log and new"
            f" connections; {advice}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
