"""Lanes that run in one process without a broker (`coordinator dev module:NAME`), seen from the operator's commands.

Such a lane's database is an SQLite file. Orders go in by a socket beside it.
"""

import asyncio
from pathlib import Path
from typing import Final

from coordinator.runtime.addresses import WITHOUT_SERVER, parse_address
from coordinator.runtime.loading import setting_value
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.stores.sqlite.file import file_of
from coordinator.transports.inprocess.operators_socket import AtHand, SocketWrites, socket_beside

_BROKER_SETTING: Final = "AMQP_URL"


def socket_of(lane: str) -> Path | None:
    """The socket of a lane whose database is a file, where no broker is named; None: its commands go by a broker."""
    if setting_value(_BROKER_SETTING):
        return None
    try:
        address = parse_address(load(DatabaseSettings, prefix=f"{lane.upper()}_").database_url)
    except ConfigurationError:
        return None
    return socket_beside(Path(file_of(address.database))) if address.scheme in WITHOUT_SERVER else None


def at_hand(socket: Path, lane: str) -> AtHand:
    """What the process knows that runs a lane. Raises BrokerUnavailable where none does."""

    async def ask() -> AtHand:
        async with SocketWrites(socket) as writes:
            return await writes.at_hand(lane)

    return asyncio.run(ask())
