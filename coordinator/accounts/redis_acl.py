"""The accounts of a Redis as the server has them, and the changes to them that an administrator makes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import redis
import redis.backoff
import redis.retry
from msgspec import Struct
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.address_fields import Url
from coordinator.runtime.settings import Limits
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.service.text import printable
from coordinator.transports.redis.driver_arguments import redis_address_of

SETTING: Final = "BROKER_ADMIN_URL"
_TIMEOUT_S: Final = 15
_RULE: Final = re.compile(r"\([^)]*\)|\S+")


class RedisAdminSettings(BaseSettings, Limits):
    """A Redis that is the broker, for who makes its accounts."""

    model_config = SettingsConfigDict(env_prefix="BROKER_")

    admin_url: Url | None = Field(
        repr=False,
        default=None,
        pattern=r"^rediss?://",
        description="One Redis that is the broker, as a user who may make accounts: "
        "`rediss://NAME:PASSWORD@HOST:6379`. For `coordinator broker-accounts --apply` and `--check`.",
    )


class KeptUser(Struct, frozen=True, kw_only=True):
    """A user as the server has it: `digests` are SHA-256 of its passwords, `rights` rules of `ACL SETUSER`."""

    name: str
    is_on: bool
    needs_no_password: bool
    digests: frozenset[str]
    rights: tuple[str, ...]
    selectors: tuple[str, ...]


class RedisAcl:
    """One server's. Its methods raise the driver's errors."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._categories: dict[str, Sequence[str]] = {}
        self.own_name = self._text("ACL", "WHOAMI")

    def all(self) -> Mapping[str, KeptUser]:
        """By name."""
        found = [kept_user_of(bytes(line).decode(errors="replace")) for line in self._called("ACL", "LIST")]
        return {user.name: self._expanded(user) for user in found}

    def _expanded(self, user: KeptUser) -> KeptUser:
        """With single commands in the place of categories: before 7.2 a server says `+@stream -xtrim …` for a user who
        was given most of a category one by one."""
        if "+@all" in user.rights or not any(rule[1] == "@" for rule in user.rights):
            return user
        allowed = dict[str, None]()
        for rule in user.rights:
            names = self._category(rule[2:]) if rule[1] == "@" else (rule[1:],)
            match rule[0]:
                case "+":
                    allowed |= dict.fromkeys(names)
                case "-":
                    allowed = {name: None for name in allowed if name not in names}
        others = (rule for rule in user.rights if rule[0] not in "+-")
        return msgspec.structs.replace(user, rights=(*others, *(f"+{name}" for name in allowed)))

    def _category(self, name: str) -> Sequence[str]:
        """The commands of a category: subcommands, where a command has them."""
        if name not in self._categories:
            names = [bytes(each).decode() for each in self._called("ACL", "CAT", name)]
            containers = {each.partition("|")[0] for each in names if "|" in each}
            self._categories[name] = [each for each in names if each not in containers]
        return self._categories[name]

    def may(self, user: str, *words: str) -> bool:
        """Whether a user may do this."""
        return self._text("ACL", "DRYRUN", user, *words) == "OK"

    def setting(self, name: str) -> str:
        """What the server's configuration says; empty: nothing, or this user may not ask."""
        try:
            found = self._called("CONFIG", "GET", name)
        except redis.exceptions.NoPermissionError:
            return ""
        # By the protocol's third version it is a mapping.
        values = list(found.values()) if isinstance(found, dict) else found[1:]
        return bytes(values[0]).decode(errors="replace") if values else ""

    def set_user(self, name: str, rules: Sequence[str]) -> None:
        """As a line of `ACL SETUSER` does."""
        self._called("ACL", "SETUSER", name, *rules)

    def keep(self) -> bool:
        """Have the server find its accounts when it starts again; False: it has no file for them.

        Raises ConfigurationError where it has one, and cannot write it.
        """
        try:
            self._called("ACL", "SAVE")
        except redis.exceptions.NoPermissionError:
            raise
        except redis.ResponseError as error:
            file = self.setting("aclfile")
            if file:
                raise ConfigurationError(
                    f"Redis cannot write its aclfile, {printable(file)}, and forgets its accounts when it ends: mend "
                    f"that, and do this again ({printable(str(error))})"
                ) from None
            return False
        return True

    def _text(self, *words: str) -> str:
        return bytes(self._called(*words)).decode(errors="replace")

    def _called(self, *words: str) -> Any:
        return self._client.execute_command(*words)  # type: ignore[no-untyped-call]


def kept_user_of(line: str) -> KeptUser:
    """From a line of `ACL LIST`."""
    _, name, *rules = _RULE.findall(line)
    return KeptUser(
        name=name,
        is_on="on" in rules,
        needs_no_password="nopass" in rules,
        digests=frozenset(rule[1:] for rule in rules if rule.startswith("#")),
        rights=tuple(rule for rule in rules if rule[0] in "~%&+-" and rule != "-@all"),
        selectors=tuple(rule for rule in rules if rule.startswith("(")),
    )


@contextmanager
def connected_to_acl(url: str | None) -> Iterator[RedisAcl]:
    """Connect to the server of this address. Raises BrokerUnavailable, ConfigurationError."""
    if url is None:
        raise ConfigurationError(
            f"{SETTING} is not set: it is the address of one Redis with a user who may make accounts, such as "
            "rediss://NAME:PASSWORD@HOST:6379"
        )
    address = redis_address_of(SETTING, url)
    given: dict[str, Any] = {key: value for key, value in address.arguments.items() if value is not None}
    host = address.hosts[0]
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    try:
        with redis.Redis(
            host=host.name,
            port=host.port or 0,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=retry,
            **given,
        ) as client:
            yield RedisAcl(client)
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise ConfigurationError(
            f"{SETTING}: Redis at {address} does not let this user see and change accounts: {error}"
        ) from None
    except redis.RedisError as error:
        raise BrokerUnavailable(f"Redis at {address}: {error}") from None
