"""How far a lane has come where a gateway reads: beside the lane's own sequence it shows how far a replica lags."""

from typing import Final

from prometheus_client import Gauge

from coordinator.client.database import reading
from coordinator.client.recency import ReadDatabase

PLACE: Final = Gauge(
    "coordinator_gateway_reader_sequence",
    "The last sequence of the lane in a database from which this gateway reads, as it was looked at last.",
    ("service", "server"),
)


async def show_place(source: ReadDatabase) -> None:
    """Look, and show it under the server's name in `Served-By`.

    Raises DatabaseUnavailable: what was seen last stays then.
    """
    async with reading():
        server, place = await source.look()
    PLACE.labels(source.lane, server).set(place)
