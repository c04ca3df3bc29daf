"""The accounts of a Redis that carries commands: one for each process of a system, with the least rights that will do.

They are for Redis 7 and newer, which has rights to read a key only. Whoever may write to a lane's system stream speaks
as the system, and whoever may write to its public one is believed when it says who asks: that is for gateways.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.rights import (
    OPERATOR,
    BrokerNames,
    effects_account,
    gateway_account,
    lane_account,
    lanes_account,
)
from coordinator.transports.redis.keys import (
    REPLIES_PREFIX,
    commands_key,
    counter_key,
    kept_key,
    later_key,
    lease_key,
    system_stream_key,
    worker_key,
)

_OF_ALL: Final = ("ping", "select", "info", "script|load", "evalsha", "client|setname", "config|get", "acl|dryrun")
_ADDS: Final = ("hget", "hmget", "hset", "xadd", "xinfo|stream", "xrevrange")
_LANE: Final = (
    *("client|id", "client|list", "get", "set", "del", "hdel", "hincrby", "xread", "xrange", "xdel", "xlen", "xsetid"),
    *("pttl", "publish"),
)
_WORKER: Final = (
    *("exists", "set", "del", "time", "xreadgroup", "xack", "xdel", "xlen", "xpending", "xclaim", "xinfo|consumers"),
    *("xgroup|create", "xgroup|delconsumer", "zadd", "zcard", "zrangebyscore", "zrem"),
)
_GATEWAY: Final = ("exists", "xlen", "subscribe")
# An operator's process of an earlier release asks for the group.
_OPERATOR: Final = ("exists", "xlen", "zcard", "xinfo|consumers", "xinfo|groups", "subscribe")


UNKNOWN_LOGIN: Final = ">PASSWORD"
"""What stands in a line for a password that is not known."""


class RedisAccount(Struct, frozen=True, kw_only=True):
    """An account, and whose it is. `keys` and `channels` are patterns with the signs that `ACL SETUSER` takes."""

    name: str
    whose: str
    keys: Sequence[str]
    channels: Sequence[str] = ()
    commands: Sequence[str]

    @property
    def rules(self) -> str:
        """As `ACL SETUSER` takes them behind the password."""
        calls = (f"+{command}" for command in dict.fromkeys((*_OF_ALL, *self.commands)))
        return " ".join((*self.keys, "resetchannels", *self.channels, *calls))


def redis_accounts(names: BrokerNames) -> tuple[RedisAccount, ...]:
    """All accounts of a system."""
    of_lanes = {lane: _of_lane(lane, has_effects=lane in names.calling) for lane in names.lanes}
    return (
        *of_lanes.values(),
        *(_of_lanes(name, lanes, [of_lanes[lane] for lane in lanes]) for name, lanes in names.together.items()),
        *(_of_worker(service) for service in names.lanes if service in names.calling),
        *(_of_gateway(name, is_system=name in names.system_gateways) for name in names.gateways),
        RedisAccount(
            name=OPERATOR,
            whose="the operator's commands: orders to the system streams; asks how long queues are; reads marks",
            keys=(f"~{_system('*')}", f"~{counter_key('*')}", "%R~writes.*"),
            channels=(f"&{REPLIES_PREFIX}operator.*",),
            commands=(*_ADDS, *_OPERATOR),
        ),
    )


def acl_line_of(account: RedisAccount, digest: str | None = None) -> str:
    """What makes it in `redis-cli`, in the place of whatever it was; `digest` is SHA-256 of its password."""
    password = UNKNOWN_LOGIN if digest is None else f"#{digest}"
    return f"ACL SETUSER {account.name} reset on {password} {account.rules}"


def rules_of(account: RedisAccount) -> tuple[str, ...]:
    """Its rules, one by one."""
    return tuple(account.rules.split())


def _of_lane(lane: str, *, has_effects: bool) -> RedisAccount:
    own = (commands_key(lane, is_system=False), lease_key(lane), kept_key(lane))
    # What its commands emit goes to other lanes, too.
    effects = (system_stream_key(effects_key(lane)),) if has_effects else ()
    return RedisAccount(
        name=lane_account(lane),
        whose=f"`coordinator run {lane}`: its streams; emitted commands to the system streams; outcomes",
        keys=tuple(f"~{key}" for key in (*own, *effects, _system("*"), counter_key("*"))),
        channels=(f"&{REPLIES_PREFIX}*",),
        commands=(*_ADDS, *_LANE),
    )


def _of_lanes(name: str, lanes: Sequence[str], accounts: Sequence[RedisAccount]) -> RedisAccount:
    return RedisAccount(
        name=lanes_account(name),
        whose=f"`coordinator run {' '.join(lanes)}`: what each of these lanes may",
        keys=tuple(dict.fromkeys(key for each in accounts for key in each.keys)),
        channels=tuple(dict.fromkeys(channel for each in accounts for channel in each.channels)),
        commands=tuple(dict.fromkeys(command for each in accounts for command in each.commands)),
    )


def _of_worker(service: str) -> RedisAccount:
    key = effects_key(service)
    own = (system_stream_key(key), later_key(service), worker_key(service, "*"))
    return RedisAccount(
        name=effects_account(service),
        whose=f"`coordinator effects {service}`: the stream of its effects; results to the system streams",
        # A script that looks for dead workers is given what the names of their keys begin with.
        keys=tuple(f"~{each}" for each in (*own, _system("*"), counter_key("*"))),
        commands=(*_ADDS, *_WORKER),
    )


def _of_gateway(gateway: str, *, is_system: bool) -> RedisAccount:
    system = ", and what it has verified to the system streams" if is_system else ""
    streams = (commands_key("*", is_system=False), *((_system("*"),) if is_system else ()))
    # Redis joins two rights to one pattern, so none is named twice.
    read = (*(() if is_system else (_system("*"),)), lease_key("*"), kept_key("*"))
    return RedisAccount(
        name=gateway_account(gateway),
        whose=f"`coordinator gateway {gateway}`: commands to the public streams{system}; a channel for outcomes",
        keys=(*(f"~{each}" for each in (*streams, counter_key("*"))), *(f"%R~{each}" for each in read)),
        channels=(f"&{REPLIES_PREFIX}gateway.{gateway}.*",),
        commands=(*_ADDS, *_GATEWAY),
    )


def _system(lane: str) -> str:
    return commands_key(lane, is_system=True)
