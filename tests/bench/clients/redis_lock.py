"""A lock in Redis around a plain read, add, write: the classic without a fencing token."""

from collections.abc import Sequence

import redis.asyncio as redis

from tests.bench.clients.load import Caller
from tests.bench.clients.postgresql import Connection, connect, naive_credit
from tests.bench.clients.spec import Spec
from tests.bench.workloads import Operation

LOCK_TIMEOUT_S = 30.0
PAUSE_S = 0.002


class RedisLockClient:
    """redis-py's own lock, one name per account."""

    def __init__(self, spec: Spec) -> None:
        self._url = spec.target
        self._concurrency = spec.concurrency
        self._redis = redis.Redis.from_url(spec.environment["REDIS_URL"])
        self._connections: list[Connection] = []
        self.retries = 0

    async def open(self) -> None:
        await self._redis.ping()
        self._connections = [await connect(self._url) for _ in range(self._concurrency)]

    def callers(self) -> Sequence[Caller]:
        return [self._caller(connection) for connection in self._connections]

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        await self._redis.aclose()

    def _caller(self, connection: Connection) -> Caller:
        async def call(operation: Operation) -> bool:
            lock = self._redis.lock(f"account {operation[0]}", timeout=LOCK_TIMEOUT_S, sleep=PAUSE_S)
            async with lock:
                return await naive_credit(connection, operation)

        return call
