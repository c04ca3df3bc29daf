"""Free ports for servers."""

import random
import socket

from coordinator.dev.servers.addresses import HOST
from coordinator.service.errors import ConfigurationError

# Below Linux's ephemeral range: a client's socket must not take the port of a server that is being restarted.
_FREE_PORTS = range(20_000, 32_000)
_chosen: dict[int, None] = {}
"""The ports that were given, the last one last."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that this process was not given before.

    Once it was given all of them, it may be given those again that it got first.
    """
    for _ in range(2):
        for port in random.sample(_FREE_PORTS, len(_FREE_PORTS)):
            if port not in _chosen and port_is_free(HOST, port):
                _chosen[port] = None
                return port
        for port in list(_chosen)[: (len(_chosen) + 1) // 2]:
            del _chosen[port]
    raise ConfigurationError(f"no port between {_FREE_PORTS.start} and {_FREE_PORTS.stop} is free")


def port_is_free(host: str, port: int) -> bool:
    """Whether a server can listen there now. Raises socket.gaierror for a host that does not exist."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise
        except OSError:
            return False
    return True
