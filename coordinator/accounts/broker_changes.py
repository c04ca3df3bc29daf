"""What differs between the accounts that a system needs and those that a server has, and how it is put right."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from msgspec import Struct

from coordinator.accounts.management import KeptAccount, Management
from coordinator.accounts.passwords import Passwords
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.definitions import HASHING, is_hash_of, password_hash, rights_of
from coordinator.transports.rabbitmq.rights import BrokerAccount
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

_RIGHTS: Final = ("configure", "write", "read")


class BrokerChange(Struct, frozen=True):
    """One difference, and what puts it right."""

    account: str
    what: str
    apply: Callable[[], None]


def changes(
    wanted: Sequence[BrokerAccount],
    kept: Mapping[str, KeptAccount],
    vhost: str,
    passwords: Passwords | None,
    server: Management,
) -> Iterator[BrokerChange]:
    """What differs, account by account; nothing: all is as it should be. Nothing is changed yet.

    Raises ConfigurationError for an account that is to be made without a password, and for one that is there and has
    another password than is known.
    """
    for account in wanted:
        found = kept.get(account.name)
        yield from _of_login(account, found, passwords, server)
        yield from _of_rights(account, found, vhost, server)
        for limit, value in account.limits.items():
            now = None if found is None else found.limits.get(limit)
            if now != value:
                what = f"{limit}: {value}" if now is None else f"{limit}: {value}, not {now}"
                yield BrokerChange(account.name, what, partial(server.put_limit, account.name, limit, value))


def _of_login(
    account: BrokerAccount, found: KeptAccount | None, passwords: Passwords | None, server: Management
) -> Iterator[BrokerChange]:
    name = account.name
    if found is None:
        if passwords is None:
            raise ConfigurationError(f"there is no account {name} yet: --passwords says where its password is, or goes")
        yield BrokerChange(
            name, "it is not there", lambda: server.put_account(name, password_hash(passwords.given(name)))
        )
        return
    if found.tags:
        # Who may monitor sees the messages of all queues; who administers may give itself every right.
        yield BrokerChange(name, f"it has the tags {found.tags}", partial(_take_tags, server, found))
    known = None if passwords is None else passwords.known(name)
    if known is not None and not is_hash_of(found.password_hash, known):
        yield BrokerChange(name, "its password", lambda: server.put_account(name, password_hash(known)))


def _take_tags(server: Management, found: KeptAccount) -> None:
    if found.hashing != HASHING:
        raise ConfigurationError(
            f"the password of {found.name} is kept as {found.hashing}: `rabbitmqctl set_user_tags {found.name}` takes "
            "its tags, and leaves that as it is"
        )
    server.put_account(found.name, found.password_hash)


def _of_rights(
    account: BrokerAccount, found: KeptAccount | None, vhost: str, server: Management
) -> Iterator[BrokerChange]:
    rights = rights_of(account)
    now = {} if found is None else found.rights.get(vhost, {})
    if found is None or not now:
        what = "its rights" if found is None else f"it has no rights in {vhost}"
        yield BrokerChange(account.name, what, partial(server.put_rights, account.name, vhost, rights))
    elif now != rights:
        different = (f"{kind} {rights[kind]}, not {now[kind]}" for kind in _RIGHTS if rights[kind] != now[kind])
        yield BrokerChange(account.name, "; ".join(different), partial(server.put_rights, account.name, vhost, rights))
    for other in sorted(set() if found is None else set(found.rights) - {vhost}):
        what = f"it has rights in {other}, too"
        yield BrokerChange(account.name, what, partial(server.delete_rights, account.name, other))


def strangers(wanted: Sequence[BrokerAccount], kept: Mapping[str, KeptAccount], vhost: str) -> Iterator[str]:
    """A line for each account beside these that speaks as the system, or may delete what the system needs."""
    ours = {account.name for account in wanted}
    for name, found in sorted(kept.items()):
        now = found.rights.get(vhost)
        if name in ours or now is None or not found.password_hash:
            continue
        can = [
            *(["speaks as the system"] if _matches(now["write"], SYSTEM_EXCHANGE) else []),
            *(["may delete its exchanges"] if _matches(now["configure"], SYSTEM_EXCHANGE) else []),
        ]
        if can:
            is_administrator = "administrator" in found.tags.split(",")
            whose = ", an administrator: keep it for people" if is_administrator else ": delete it once nothing uses it"
            yield f"{name} {' and '.join(can)} in {vhost}{whose}"


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        # Of PCRE and not of Python: nobody knows, so a person must look.
        return True
