"""The rights of the cache's user: what coordinators and gateways may do, where Redis has ACLs."""

from collections.abc import Sequence
from typing import Final

COMMANDS: Final = (
    *("select", "evalsha", "script|load", "info", "time"),
    *("hget", "hmget", "hset", "hdel", "del", "expire", "pexpire", "pexpireat"),
)
"""All that they call. `select` is for a database other than 0; `script|load` is for a script that is new to Redis."""
_CALLED: Final = " ".join(f"+{command}" for command in COMMANDS)


def acl_line(user: str, keys: Sequence[str]) -> str:
    """What makes the cache's user in `redis-cli`, in the place of whatever it was; its password is to be put in."""
    return f"ACL SETUSER {user} reset on >PASSWORD {acl_rules(keys)}"


def reader_acl_rules(keys: Sequence[str]) -> str:
    """Those of gateways, from Redis 7 on: they only read the lease."""
    return f"{reader_acl_keys(keys)} {_CALLED}"


def reader_acl_keys(keys: Sequence[str]) -> str:
    """Their part about keys. The lease is the key that has no pattern in its name."""
    return " ".join(f"{'' if set(key) & set('*?[') else '%R'}~{key}" for key in keys)


def reader_acl_line(user: str, keys: Sequence[str]) -> str:
    """As `acl_line`, for the user of gateways."""
    return f"ACL SETUSER {user} reset on >PASSWORD {reader_acl_rules(keys)}"


def acl_rules(keys: Sequence[str]) -> str:
    """As `ACL SETUSER` takes them behind the password; `keys` are patterns of all that the cache keeps."""
    return f"{acl_keys(keys)} {_CALLED}"


def acl_keys(keys: Sequence[str]) -> str:
    """Their part about keys."""
    return " ".join(f"~{key}" for key in keys)
