"""Scripts over real connections to Redis. No script is sent twice: one that was sent may still run."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final, cast

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.maint_notifications
import redis.retry

from coordinator.cache.driver_arguments import connection_of
from coordinator.cache.scripts import OF_READERS, Arguments, CacheRefused, CacheUnavailable
from coordinator.runtime.cache_settings import CacheSettings

# The user lacks a right. In a script it is another error, whose text depends on the version.
_NOT_PERMITTED: Final = re.compile("no permissions|ACL failure|user executing the script", re.IGNORECASE)
_COMMAND: Final = re.compile(r"'([a-z|]+)' (?:command|subcommand)")


class RedisScripts:
    """Implements `Scripts`. Connects on first use."""

    def __init__(self, settings: CacheSettings) -> None:
        self._client = redis.Redis(
            **_without_extras(),
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
            raise _translated(error, keys) from error

    def close(self) -> None:
        self._client.close()


class AsyncRedisScripts:
    """Implements `AsyncScripts`. Connects on first use."""

    def __init__(self, settings: CacheSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._client = redis.asyncio.Redis(
            **_without_extras(),
            **connection_of(settings),
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
        )
        pool = self._client.connection_pool
        pool.connection_class = _checked(pool.connection_class)
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
        except (redis.RedisError, OSError, RuntimeError) as error:
            # A RuntimeError is uvloop's, of a connection that ends just now.
            named = [str(arguments[0]), *keys] if script in OF_READERS else keys
            raise _translated(error, named) from error

    async def close(self) -> None:
        await self._client.aclose()


def _checked(connection: type[Any]) -> type[Any]:
    """The class of connections that are not taken from the pool once they are reset: the client sees an end only.

    Each time that it connects, it reads its files.
    """

    class Checked(connection):  # type: ignore[misc]  # of TCP or of TLS
        async def connect(self) -> None:
            context = getattr(self, "ssl_context", None)
            if context is not None:
                # It would keep the files that it read for its first connection.
                context.context = None
            await super().connect()

        async def can_read(self) -> bool:
            if self._writer is None or self._writer.is_closing():
                raise redis.ConnectionError("the connection has been ended")
            return cast(bool, await super().can_read())

    return Checked


def _translated(error: Exception, keys: Sequence[str]) -> CacheUnavailable:
    if isinstance(error, redis.AuthenticationError):
        return CacheRefused("Redis refuses the user or the password of REDIS_URL")
    if isinstance(error, redis.exceptions.NoPermissionError) or _NOT_PERMITTED.search(str(error)):
        command = _COMMAND.search(str(error))
        one_key = f"the key {keys[0]}" if len(keys) == 1 else "a key"
        refused = f"the command {command[1]}" if command else f"a command or {one_key}"
        return CacheRefused(f"Redis refuses {refused} to the user of REDIS_URL: see its rights in docs/OPERATING.md")
    return CacheUnavailable(f"{type(error).__name__}: {error}")


def _without_extras() -> dict[str, Any]:
    """The client would also say its name and ask for notices: more round trips, and rights that only those need."""
    return {
        "driver_info": None,
        "maint_notifications_config": redis.maint_notifications.MaintNotificationsConfig(enabled=False),
    }
