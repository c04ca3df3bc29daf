"""What makes the accounts of a Redis, for whoever administers it: lines of `redis-cli`, or JSON."""

import hashlib
from collections.abc import Sequence

import click

from coordinator.accounts.passwords import Passwords
from coordinator.operate.output import print_json
from coordinator.transports.redis.rights import RedisAccount, acl_line_of, rules_of


def print_lines(accounts: Sequence[RedisAccount], passwords: Passwords | None) -> None:
    """For redis-cli; with hashes of the passwords, which Redis takes in their place, if these are known."""
    for account in accounts:
        click.echo(f"# {account.name}: {account.whose}")
        click.echo(acl_line_of(account, None if passwords is None else digest_of(passwords.given(account.name))))


def print_accounts(accounts: Sequence[RedisAccount], passwords: Passwords) -> None:
    """As JSON. `acl` is a line of a file of accounts (`aclfile`), or of a configuration."""
    digests = {account.name: digest_of(passwords.given(account.name)) for account in accounts}
    print_json(
        [
            {
                "name": account.name,
                "whose": account.whose,
                "sha256": digests[account.name],
                "rules": list(rules_of(account)),
                "acl": " ".join(("user", account.name, "on", f"#{digests[account.name]}", *rules_of(account))),
            }
            for account in accounts
        ]
    )


def digest_of(password: str) -> str:
    """SHA-256, which Redis takes in the place of a password."""
    return hashlib.sha256(password.encode()).hexdigest()
