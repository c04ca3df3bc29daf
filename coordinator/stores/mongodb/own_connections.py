"""The connections of a lane's readers: none is used that leads to another lane's database."""

from typing import Any, Final

from pymongo.asynchronous.pool import AsyncConnection, Pool
from pymongo.errors import OperationFailure
from pymongo.monitoring import ConnectionClosedReason
from pymongo.read_preferences import ReadPreference

from coordinator.stores.kinds import ReadsAnotherLanes
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.errors import lack
from coordinator.stores.one_lane import LANES_READ_MAX, other_lane

_LOOK: Final = {
    "find": LEASE_TABLE,
    "projection": {"_id": 1},
    "limit": LANES_READ_MAX,
    "singleBatch": True,
}


def keeping_to_lane(database: str, lane: str) -> type[Pool]:
    """The class of pools of a client that look once at each new connection, whose the database is: the name of a host,
    or a proxy, may lead to another one by now. Such a connection raises ReadsAnotherLanes.

    The driver has no public way to look: its listeners hear of a connection, and cannot keep it from being used.
    """

    class LanesPool(Pool):
        async def connect(self, *args: Any, **named: Any) -> AsyncConnection:
            connection = await super().connect(*args, **named)
            if self.is_sdam:
                # It reads nothing but what the server says of itself.
                return connection
            try:
                await _look(connection, database, lane)
            except BaseException:
                async with self.lock:
                    self.active_contexts.discard(connection.cancel_context)
                await connection.close_conn(ConnectionClosedReason.ERROR)
                raise
            return connection

    return LanesPool


async def _look(connection: AsyncConnection, database: str, lane: str) -> None:
    try:
        # A secondary is asked, too, where the address says so.
        answer = await connection.command(database, dict(_LOOK), read_preference=ReadPreference.PRIMARY_PREFERRED)
    except OperationFailure as error:
        if lack(error) != "right":
            raise
        # Nothing shows whose it is, as for a role that may only read rows.
        return
    if other_lane((lease["_id"] for lease in answer["cursor"]["firstBatch"]), lane) is not None:
        # The next one may lead to the lane's own.
        raise ReadsAnotherLanes
