"""`coordinator broker-accounts`: RabbitMQ's accounts for this application, with the least rights."""

import hashlib
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import click

from coordinator.accounts.broker_changes import BrokerChange, changes, strangers
from coordinator.accounts.broker_names import broker_names
from coordinator.accounts.broker_script import lines_of
from coordinator.accounts.management import BrokerAdminSettings, open_management
from coordinator.accounts.passwords import ENVIRONMENT, KeptPasswords, NamedPasswords, Passwords
from coordinator.arguments import FOLDER, SERVICE_NAME
from coordinator.exemplified import Exemplified
from coordinator.operate.output import EXIT_REFUSED, print_json, refusing
from coordinator.registry import registry
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.definitions import definitions, password_hash
from coordinator.transports.rabbitmq.rights import BrokerAccount, broker_accounts
from coordinator.transports.redis.rights import RedisAccount, acl_line_of, redis_accounts

_DEFAULT_VHOST: Final = "/"


def _passwords(value: str) -> Passwords:
    if value == ENVIRONMENT:
        return NamedPasswords()
    if not value.isprintable():
        # The script names it, which a person reads before he runs it.
        raise click.BadParameter(f"{value!a} has characters that cannot be seen")
    folder = FOLDER.convert(value, None, click.get_current_context(silent=True))
    return KeptPasswords(folder)


@click.command("broker-accounts", cls=Exemplified, example="broker-accounts --check")
@click.option(
    "--passwords",
    type=_passwords,
    metavar="FOLDER|env",
    help="Where the passwords are: FOLDER has a file for each account, readable by its owner only, and gets one for "
    "each that is missing, and the account's AMQP_URL beside it; `env`: the variables BROKER_PASSWORD_<ACCOUNT>.",
)
@click.option(
    "--gateway", "gateways", multiple=True, type=SERVICE_NAME, help="Another gateway, or program: gateway.NAME."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print RabbitMQ's definitions, with salted hashes of the passwords."
)
@click.option("--check", "is_check", is_flag=True, help="Say what the server has otherwise, and change nothing.")
@click.option("--apply", "is_apply", is_flag=True, help="Make the server's accounts so, through RABBITMQ_ADMIN_URL.")
@refusing
def broker_accounts_command(
    passwords: Passwords | None, gateways: Sequence[str], *, as_json: bool, is_check: bool, is_apply: bool
) -> None:
    """Print what an administrator of the broker runs: an account for each process, with the least rights.

    For Redis these are lines of redis-cli, with hashes of the passwords. For RabbitMQ the vhost is that of AMQP_URL.
    `--apply` and `--check` need its management and an account with the tag `administrator`, RABBITMQ_ADMIN_URL: they
    work on a server of somebody else's. Doing it again changes nothing.
    """
    if as_json + is_check + is_apply > 1:
        raise click.UsageError("--json, --check and --apply are three different things: name one.")
    names, broker = broker_names(registry(), gateways), load(BrokerSettings)
    if not broker.is_rabbitmq:
        if as_json or is_check or is_apply:
            raise click.UsageError("--json, --check and --apply are for RabbitMQ: run the lines in redis-cli.")
        _print_for_redis(redis_accounts(names), broker.url, passwords)
        return
    accounts, url = broker_accounts(names), broker.url
    vhost = parse_address(url).database or _DEFAULT_VHOST
    if is_check or is_apply:
        _compare(accounts, vhost, url, passwords, is_apply=is_apply)
        return
    if as_json:
        if passwords is None:
            raise click.UsageError("--json needs --passwords: definitions have their hashes.")
        print_json(
            definitions(accounts, vhost, {each.name: password_hash(passwords.given(each.name)) for each in accounts})
        )
    else:
        if passwords is not None:
            for account in accounts:
                passwords.given(account.name)
        files = (
            {each.name: passwords.path(each.name) for each in accounts} if isinstance(passwords, KeptPasswords) else {}
        )
        for line in lines_of(accounts, vhost, files):
            click.echo(line)
    _write_addresses([account.name for account in accounts], url, passwords)


def _print_for_redis(accounts: Sequence[RedisAccount], url: str, passwords: Passwords | None) -> None:
    for account in accounts:
        click.echo(f"# {account.name}: {account.whose}")
        if passwords is None:
            click.echo(acl_line_of(account))
        else:
            # Redis takes the hash of a password in its place.
            digest = hashlib.sha256(passwords.given(account.name).encode()).hexdigest()
            click.echo(acl_line_of(account, digest))
    _write_addresses([account.name for account in accounts], url, passwords)


def _compare(
    accounts: Sequence[BrokerAccount], vhost: str, url: str, passwords: Passwords | None, *, is_apply: bool
) -> None:
    server = open_management(load(BrokerAdminSettings).admin_url)
    if server.user in {account.name for account in accounts}:
        raise ConfigurationError(
            f"RABBITMQ_ADMIN_URL: {server.user} is the name of one of these accounts, which are no administrators: "
            "use an administrator of another name"
        )
    if not server.has_vhost(vhost):
        raise ConfigurationError(f"AMQP_URL: RabbitMQ has no vhost {vhost!r}: `rabbitmqctl add_vhost` makes one")
    kept = server.accounts()
    found = list(changes(accounts, kept, vhost, passwords, server))
    if is_apply:
        _apply(found)
        _write_addresses([account.name for account in accounts], url, passwords)
    for change in found:
        click.echo(f"{change.account}: {'changed: ' if is_apply else ''}{change.what}")
    if not found:
        click.echo("all accounts are as they should be")
    for line in strangers(accounts, kept, vhost):
        click.echo(f"note: {line}", err=True)
    if found and not is_apply:
        sys.exit(EXIT_REFUSED)


def _apply(found: Sequence[BrokerChange]) -> None:
    for change in found:
        change.apply()


def _write_addresses(accounts: Sequence[str], url: str, passwords: Passwords | None) -> None:
    """For AMQP_URL_FILE, or BROKER_URL_FILE, of each process: the broker's address with its account."""
    if not isinstance(passwords, KeptPasswords):
        return
    scheme, separator, rest = url.partition("://")
    at = rest.rpartition("@")[2]
    for account in accounts:
        password = passwords.known(account)
        if password is not None:
            text = f"{scheme}{separator}{account}:{quote(password, safe='')}@{at}\n"
            passwords.write(passwords.folder / f"{account}.amqp_url", text)
