"""Scripts over real connections to Redis. No script is sent twice: one that was sent may still run."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.retry

from coordinator.cache.driver_arguments import connection_of
from coordinator.cache.scripts import Arguments, CacheUnavailable
from coordinator.runtime.settings import CacheSettings


class RedisScripts:
    """Implements `Scripts`. Connects on first use."""

    def __init__(self, settings: CacheSettings) -> None:
        self._client = redis.Redis(
            **connection_of(settings),
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        )
        self._registered: dict[str, Any] = {}

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        registered = self._registered.get(script)
        if registered is None:
            registered = self._registered[script] = self._client.register_script(script)
        try:
            return registered(keys=keys, args=arguments)
        except (redis.RedisError, OSError) as error:
            raise CacheUnavailable(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._client.close()


class AsyncRedisScripts:
    """Implements `AsyncScripts`. Connects on first use."""

    def __init__(self, settings: CacheSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._client = redis.asyncio.Redis(
            **connection_of(settings),
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
        )
        self._registered: dict[str, Any] = {}

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        registered = self._registered.get(script)
        if registered is None:
            registered = self._registered[script] = self._client.register_script(script)
        try:
            # The limit is for all of it: connecting, and sending a script that is new to Redis, are several round
            # trips.
            async with asyncio.timeout(self._timeout_s):
                return await registered(keys=keys, args=arguments)
        except TimeoutError as error:
            raise CacheUnavailable(f"no answer within {self._timeout_s} s") from error
        except (redis.RedisError, OSError) as error:
            raise CacheUnavailable(f"{type(error).__name__}: {error}") from error

    async def ping(self) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.ping()
        except (TimeoutError, redis.RedisError, OSError):
            return False
        return True

    async def close(self) -> None:
        await self._client.aclose()
