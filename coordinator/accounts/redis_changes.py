"""What differs between the accounts of Redis that a system needs and those that a server has, and what mends it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from coordinator.accounts.redis_acl import KeptUser, RedisAcl
from coordinator.accounts.redis_script import digest_of
from coordinator.transports.redis.keys import commands_key
from coordinator.transports.redis.rights import UNKNOWN_LOGIN, RedisAccount, rules_of

_DEFAULT: Final = "default"
_SHOWN_MAX: Final = 12
_AS_SYSTEM: Final = ("XADD", commands_key("any", is_system=True), "*", "a", "b")
_AS_ADMINISTRATOR: Final = ("ACL", "SETUSER", "any")


class UserChange(Struct, frozen=True):
    """What differs at one user, and the rules of `ACL SETUSER` that put it right."""

    account: str
    what: str
    rules: Sequence[str]

    @property
    def line(self) -> str:
        """For `redis-cli`."""
        return f"ACL SETUSER {self.account} {' '.join(self.rules)}"

    @property
    def needs_password(self) -> bool:
        """Whether the rules want one that is not known."""
        return UNKNOWN_LOGIN in self.rules


def user_changes(
    wanted: Sequence[RedisAccount], kept: Mapping[str, KeptUser], digests: Mapping[str, str]
) -> Iterator[UserChange]:
    """What differs, a change for each user where anything does. `digests` are those of the passwords that are known.

    The rules have the word PASSWORD where a password is needed that is not known. A user's own password stays if
    another is not known.
    """
    for account in wanted:
        found, digest = kept.get(account.name), digests.get(account.name)
        login = UNKNOWN_LOGIN if digest is None else f"#{digest}"
        if found is None:
            yield UserChange(account.name, "it is not there", ("reset", "on", login, *rules_of(account)))
            continue
        what = list(_differences(account, found))
        has_other = digest is not None and found.digests != {digest}
        if found.needs_no_password or not found.digests:
            what.append("it lets anybody in without a password" if found.needs_no_password else "it has no password")
            has_other = True
        elif has_other:
            what.append("its password")
        if what:
            passwords = ("resetpass", login) if has_other else ()
            rules = ("on", *passwords, "clearselectors", "resetkeys", "-@all", *rules_of(account))
            yield UserChange(account.name, "; ".join(what), rules)


def _differences(account: RedisAccount, found: KeptUser) -> Iterator[str]:
    wanted = {rule for rule in rules_of(account) if rule[0] in "~%&+"}
    if not found.is_on:
        yield "it is off"
    if lacks := [rule for rule in dict.fromkeys(rules_of(account)) if rule in wanted - set(found.rights)]:
        yield f"it lacks {_shown(lacks)}"
    if extra := [rule for rule in dict.fromkeys(found.rights) if rule not in wanted]:
        yield f"it has {_shown(extra)} too much"
    if found.selectors:
        yield f"it has {_shown(found.selectors)} too much"


def _shown(rules: Sequence[str]) -> str:
    more = len(rules) - _SHOWN_MAX
    return " ".join(rules[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def other_accounts(ours: Collection[str], kept: Mapping[str, KeptUser], server: RedisAcl) -> Iterator[str]:
    """A line for each user beside ours that speaks as the system."""
    for name, found in sorted(kept.items()):
        if name in ours or not found.is_on or not (found.needs_no_password or found.digests):
            continue
        if not server.may(name, *_AS_SYSTEM):
            continue
        if name == _DEFAULT and found.needs_no_password:
            yield "anybody speaks as the system, without a name: ACL SETUSER default off"
        elif server.may(name, *_AS_ADMINISTRATOR):
            yield f"{name} speaks as the system, an administrator: keep it for people"
        else:
            yield f"{name} speaks as the system: ACL DELUSER {name}, once nothing uses it"


def shown_passwords(kept: Mapping[str, KeptUser], server: RedisAcl) -> Iterator[str]:
    """A line for each password in the server's configuration by which one speaks as the system.

    All accounts may read the configuration, since they look whether Redis syncs what it confirms.
    """
    for setting, name in (("requirepass", _DEFAULT), ("masterauth", server.setting("masteruser") or _DEFAULT)):
        password, found = server.setting(setting), kept.get(name)
        if found is None or not found.is_on or not password or digest_of(password) not in found.digests:
            continue
        if server.may(name, *_AS_SYSTEM):
            yield (
                f"every account can read {setting} (CONFIG GET), and speak as the system with it, as {name}: keep "
                "passwords in an aclfile alone, as hashes"
            )
