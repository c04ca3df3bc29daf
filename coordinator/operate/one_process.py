"""Lanes that run in one process (`coordinator dev module:NAME`), seen from the operator's commands.

Such a lane's database is an SQLite file. Orders go in by a socket beside it; where its process has a broker, too, for
lanes that run elsewhere, they may go by that, and the process is still the one to ask how the lane does.
"""

import asyncio
from pathlib import Path
from typing import Final

from coordinator.lane.high_water import Mark
from coordinator.runtime.addresses import WITHOUT_SERVER, parse_address
from coordinator.runtime.loading import setting_value
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.stores.sqlite.file import file_of
from coordinator.transports.inprocess.at_hand import AtHand
from coordinator.transports.inprocess.journal import journal_beside, mark_in
from coordinator.transports.inprocess.operators_socket import SocketWrites, is_listening, socket_beside

_BROKER_SETTINGS: Final = ("AMQP_URL", "BROKER_URL")


def socket_of(lane: str) -> Path | None:
    """The socket of a lane whose database is a file, where no broker is named; None: its commands go by a broker."""
    database = database_of(lane)
    return None if database is None else socket_beside(database)


def process_of(lane: str) -> Path | None:
    """The socket of the process that runs a lane whose database is a file, also where its commands may go by a broker;
    None: coordinators run it. Never raises for a file that nobody can open: whoever opens it says why.

    Beside a broker one has to listen there: the lane may have gone to coordinators since one was killed.
    """
    try:
        database = _file_of(lane)
    except ConfigurationError:
        return None
    if database is None:
        return None
    socket = socket_beside(database)
    return socket if not _has_broker() or is_listening(socket) else None


def database_at_work(lane: str) -> Path | None:
    """The file of a lane that a process beside a broker runs now; None: coordinators run it, or no broker is named."""
    return _file_of(lane) if _has_broker() and process_of(lane) is not None else None


def database_of(lane: str) -> Path | None:
    """The file of a lane whose database is one, where no broker is named; None: its commands go by a broker."""
    return None if _has_broker() else _file_of(lane)


def _has_broker() -> bool:
    return any(map(setting_value, _BROKER_SETTINGS))


def _file_of(lane: str) -> Path | None:
    try:
        address = parse_address(load(DatabaseSettings, prefix=settings_prefix(lane)).database_url)
    except ConfigurationError:
        return None
    return Path(file_of(address.database)) if address.scheme in WITHOUT_SERVER else None


def at_hand(socket: Path, lane: str) -> AtHand:
    """What the process knows that runs a lane. Raises BrokerUnavailable where none does."""

    async def ask() -> AtHand:
        async with SocketWrites(socket) as writes:
            return await writes.at_hand(lane)

    return asyncio.run(ask())


def mark_beside(database: Path, lane: str) -> Mark | None:
    """How far a lane is known to have come, by its process or what it has left; None: no mark. It has no series.

    Raises ConfigurationError where a process has the mark that no operator can ask.
    """
    try:
        known = at_hand(socket_beside(database), lane)
        return None if known.mark is None else Mark(known.mark, lineage=known.lineage, last=known.last)
    except BrokerUnavailable:
        kept = mark_in(journal_beside(database))
        return None if kept is None else Mark(kept.sequence, lineage=kept.lineage, last=kept.last)
