"""Whether what Redis confirms is on disk, and stays.

- `appendonly yes` with `appendfsync always`: Redis syncs before it answers.
- `appendonly yes` with another `appendfsync`, from Redis 7.2 on: WAITAOF says when it has synced. That takes up to a
  second with `everysec`.
- An eviction policy that takes keys away which do not expire would take queues away.

Another Redis is refused, unless the address allows it by name: `?allow_unsynced=true`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import redis

from coordinator.service.errors import ConfigurationError
from coordinator.transports.redis.driver_arguments import ALLOWS_UNSYNCED

_ASKED: Final = ("appendonly", "appendfsync", "maxmemory-policy")
_WAITAOF_SINCE: Final = (7, 2)


async def check_durable(call: Callable[..., Awaitable[Any]], about: Mapping[str, str], *, allows: bool) -> bool:
    """Whether a write is safe only once WAITAOF has said so. `about` is what INFO says.

    Raises ConfigurationError for a Redis that may lose what it has confirmed, unless that is allowed.
    """
    try:
        answers = [await call("CONFIG", "GET", name) for name in _ASKED]
    except redis.ResponseError as error:
        if allows:
            return False
        raise _refused(f"it does not say how it keeps its data ({error})") from None
    found = {_text(answer[0]): _text(answer[1]) for answer in answers if answer}
    if allows:
        return False
    policy = found.get("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys-"):
        raise _refused(f"maxmemory-policy is {policy}, by which it takes queues away: set noeviction")
    if found.get("appendonly") != "yes":
        raise _refused("appendonly is no: set appendonly to yes, and appendfsync to always")
    if found.get("appendfsync") == "always":
        return False
    if _release(about.get("redis_version", "")) >= _WAITAOF_SINCE:
        return True
    raise _refused(f"appendfsync is {found.get('appendfsync')}: set it to always")


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"BROKER_URL: this Redis may lose commands that it has confirmed: {why}; or allow that with the option "
        f"{ALLOWS_UNSYNCED}=true of the address"
    )


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found is not None else (0, 0)


def _text(value: Any) -> str:
    return bytes(value).decode(errors="replace")
