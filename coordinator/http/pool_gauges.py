"""What a gateway's metrics say of its connections for reads. They are read when somebody asks."""

from collections.abc import Callable
from functools import partial

from prometheus_client import Gauge

from coordinator.stores.kinds import Database, PoolUse, pool_use

POOL = Gauge(
    "coordinator_gateway_pool_connections", "Connections for reads, by state: used, or idle.", ["service", "state"]
)
POOL_LIMIT = Gauge("coordinator_gateway_pool_connections_max", "How many there may be.", ["service"])
_STATES: tuple[tuple[str, Callable[[PoolUse], int]], ...] = (
    ("used", lambda use: use.used),
    ("idle", lambda use: use.idle),
)


def show_pool(service: str, database: Database, pool_max: int) -> None:
    """Have the metrics of this service's gateway show the pool of its database from now on."""

    def number(of: Callable[[PoolUse], int]) -> float:
        return of(pool_use(database))

    for state, of in _STATES:
        POOL.labels(service, state).set_function(partial(number, of))
    POOL_LIMIT.labels(service).set(pool_max)
