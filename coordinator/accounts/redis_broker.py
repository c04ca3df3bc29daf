"""`coordinator broker-accounts --check` and `--apply` where the broker is a Redis."""

import sys
from collections.abc import Sequence

import click

from coordinator.accounts.passwords import Passwords
from coordinator.accounts.redis_acl import SETTING, RedisAcl, RedisAdminSettings, connected_to_acl
from coordinator.accounts.redis_changes import other_accounts, shown_passwords, user_changes
from coordinator.accounts.redis_script import digest_of
from coordinator.operate.output import EXIT_REFUSED
from coordinator.runtime.settings import load
from coordinator.service.errors import ConfigurationError
from coordinator.service.text import printable
from coordinator.transports.redis.rights import RedisAccount


def compare(accounts: Sequence[RedisAccount], passwords: Passwords | None, *, is_apply: bool) -> None:
    """Say what the server has otherwise, each with the line that mends it, or put it right. Exit status 1: it differs.

    Raises BrokerUnavailable, ConfigurationError.
    """
    with connected_to_acl(load(RedisAdminSettings).admin_url) as server:
        _compare(server, accounts, passwords, is_apply=is_apply)


def _compare(
    server: RedisAcl, accounts: Sequence[RedisAccount], passwords: Passwords | None, *, is_apply: bool
) -> None:
    names = [account.name for account in accounts]
    if server.own_name in names:
        raise ConfigurationError(
            f"{SETTING}: {printable(server.own_name)} is the name of one of these accounts, which are no "
            "administrators: use an administrator of another name"
        )
    kept = server.all()
    digests = _known(names, passwords)
    found = list(user_changes(accounts, kept, digests))
    if is_apply:
        digests |= _given([change.account for change in found if change.needs_password], passwords)
        found = list(user_changes(accounts, kept, digests))
        for change in found:
            server.set_user(change.account, change.rules)
    for change in found:
        click.echo(printable(f"{change.account}: {'changed: ' if is_apply else ''}{change.what}"))
        if not is_apply:
            click.echo(change.line)
    if not found:
        click.echo("all accounts are as they should be")
    if is_apply:
        # Also where nothing differs: whoever has changed it may have come no further.
        _keep(server)
    for line in (*other_accounts(names, kept, server), *shown_passwords(kept, server)):
        click.echo(printable(f"note: {line}"), err=True)
    if found and not is_apply:
        sys.exit(EXIT_REFUSED)


def _known(names: Sequence[str], passwords: Passwords | None) -> dict[str, str]:
    known = {} if passwords is None else {name: passwords.known(name) for name in names}
    return {name: digest_of(password) for name, password in known.items() if password is not None}


def _given(names: Sequence[str], passwords: Passwords | None) -> dict[str, str]:
    if passwords is None:
        for name in names:
            raise ConfigurationError(f"{name} has no password yet: --passwords says where its password is, or goes")
        return {}
    return {name: digest_of(passwords.given(name)) for name in names}


def _keep(server: RedisAcl) -> None:
    if not server.keep():
        click.echo(
            "note: this Redis has no aclfile, and forgets its accounts when it ends, unless `CONFIG REWRITE` keeps "
            "them in its configuration",
            err=True,
        )
