"""How many entries wait in lanes' streams, for those who ask about a command that is not settled."""

import asyncio
from time import monotonic
from typing import Final

import redis

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.keys import commands_key, kept_key, lease_key

LOOK_EVERY_S: Final = 1.0
"""However many ask, a lane is looked at so often at most."""
LOOK_TIMEOUT_S: Final = 2.0


class StreamLengths:
    """The lengths of lanes' streams as they were a moment ago. Used within one event loop."""

    def __init__(self, broker: BrokerSettings, name: str) -> None:
        self._broker = broker
        self._name = name
        self._known: dict[str, tuple[float, int | None]] = {}
        self._looking = asyncio.Lock()

    async def ready(self, lane: str) -> int | None:
        """The entries that no consumer holds, as the lane's said a moment ago; None: they cannot be seen. Never raises
        for that."""
        async with self._looking:
            looked_at_s, count = self._known.get(lane, (float("-inf"), None))
            if monotonic() - looked_at_s >= LOOK_EVERY_S:
                count = await self._look(lane)
                self._known[lane] = (monotonic(), count)
            return count

    async def _look(self, lane: str) -> int | None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                connection = await RedisConnection.open(self._broker, f"{self._name} look", must_sync=False)
                try:
                    keys = [commands_key(lane, is_system=is_system) for is_system in (False, True)]
                    public, system, lease, held = await asyncio.gather(
                        *(connection.call("XLEN", key) for key in keys),
                        connection.call("EXISTS", lease_key(lane)),
                        connection.call("HGET", kept_key(lane), "unsettled"),
                    )
                    return max(0, int(public) + int(system) - (int(held or 0) if lease else 0))
                finally:
                    await connection.close()
        except (BrokerUnavailable, ConfigurationError, TimeoutError, redis.RedisError):
            return None
