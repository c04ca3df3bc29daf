"""Whether what Redis confirms is on disk, and stays.

- `appendonly yes` with `appendfsync always`: Redis syncs before it answers, unless it may leave that out while it
  rewrites its file (`no-appendfsync-on-rewrite yes`).
- `appendonly yes` with either that or `everysec`, from Redis 7.2 on: WAITAOF says when it has synced. That takes up to
  a second with `everysec`.
- With `appendfsync no` Redis never syncs, and WAITAOF answers after its timeout (measured on 8.0.2).
- An eviction policy that takes keys away which do not expire would take queues away.
- The default user must have all rights, though it may be off. With its rights Redis reads its file when it starts: what
  a script had written is a transaction there, and Redis 7.0 leaves out each that the default user may not run, with no
  more than a line in its log (measured on 7.0.15: `user default off` in a configuration loses every queue).

Another Redis is refused, unless the address allows it by name: `?allow_unsynced=true`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import redis

from coordinator.runtime.settings import broker_setting
from coordinator.service.errors import ConfigurationError
from coordinator.transports.reconnecting import BrokerRefuses
from coordinator.transports.redis.driver_arguments import ALLOWS_UNSYNCED

_ASKED: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
_WAITAOF_SINCE: Final = (7, 2)
_KEY: Final = "writes.public.any"
_WRITES: Final = (("XADD", _KEY, "*", "a", "b"), ("XDEL", _KEY, "1"), ("HSET", _KEY, "a", "b"), ("SET", _KEY, "a"))


async def check_durable(call: Callable[..., Awaitable[Any]], about: Mapping[str, str], *, allows: bool) -> bool:
    """Whether a write is safe only once WAITAOF has said so. `about` is what INFO says.

    Raises ConfigurationError for a Redis that may lose what it has confirmed, unless that is allowed.
    """
    try:
        answers = [await call("CONFIG", "GET", name) for name in _ASKED]
        may_load = [bytes(await call("ACL", "DRYRUN", "default", *words)) for words in _WRITES]
    except redis.ResponseError as error:
        if allows:
            return False
        refusal = _refused(f"it does not say how it keeps its data ({error})")
        is_of_right = isinstance(error, redis.exceptions.NoPermissionError)
        raise (BrokerRefuses(str(refusal)) if is_of_right else refusal) from None
    found = {_text(answer[0]): _text(answer[1]) for answer in answers if answer}
    if allows:
        return False
    policy = found.get("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys-"):
        raise _refused(f"maxmemory-policy is {policy}, by which it takes queues away: set noeviction")
    if policy != "noeviction":
        # These are keys that expire.
        raise ConfigurationError(
            f"{broker_setting()}: maxmemory-policy of this Redis is {policy}, by which it takes away whose turn a lane "
            "is, and which effect workers live: set noeviction"
        )
    if any(answer != b"OK" for answer in may_load):
        raise _refused(
            "its default user lacks rights, without which it does not read all of its file when it starts again: "
            "`user default off ~* &* +@all` (off is right, and the rest is needed)"
        )
    return _waits_for_sync(found, _release(about.get("redis_version", "")))


def _waits_for_sync(found: Mapping[str, str], release: tuple[int, ...]) -> bool:
    if found.get("appendonly") != "yes":
        raise _refused("appendonly is no: set appendonly to yes, and appendfsync to always")
    syncs = found.get("appendfsync")
    if syncs == "no":
        raise _refused("appendfsync is no: set it to always")
    pauses = found.get("no-appendfsync-on-rewrite") == "yes"
    if syncs == "always" and not pauses:
        return False
    if release >= _WAITAOF_SINCE:
        return True
    if pauses:
        raise _refused("no-appendfsync-on-rewrite is yes: set it to no")
    raise _refused(f"appendfsync is {syncs}: set it to always")


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{broker_setting('BROKER_URL')}: this Redis may lose commands that it has confirmed: {why}; or allow that "
        f"with the option {ALLOWS_UNSYNCED}=true of the address"
    )


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found is not None else (0, 0)


def _text(value: Any) -> str:
    return bytes(value).decode(errors="replace")
