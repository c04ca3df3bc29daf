"""`coordinator broker-accounts`: the broker's accounts for this application, with the least rights."""

import sys
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

import click

from coordinator.accounts.broker_changes import BrokerChange, changes, strangers
from coordinator.accounts.broker_names import broker_names
from coordinator.accounts.broker_script import lines_of
from coordinator.accounts.management import BrokerAdminSettings, open_management
from coordinator.accounts.passwords import ENVIRONMENT, KeptPasswords, NamedPasswords, Passwords
from coordinator.accounts.redis_script import print_accounts, print_lines
from coordinator.arguments import FOLDER, LANES_OF_PROCESS, SERVICE_NAME
from coordinator.exemplified import Exemplified
from coordinator.operate.output import EXIT_REFUSED, print_json, refusing
from coordinator.registry import registry
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import BrokerSettings, broker_setting, load
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.definitions import definitions, password_hash
from coordinator.transports.rabbitmq.rights import BrokerAccount, BrokerNames, broker_accounts
from coordinator.transports.redis.rights import redis_accounts

_DEFAULT_VHOST: Final = "/"
_How: TypeAlias = Literal["apply", "check", "json", "script"]


def _passwords(value: str) -> Passwords:
    if value == ENVIRONMENT:
        return NamedPasswords()
    if not value.isprintable():
        # The script names it, which a person reads before he runs it.
        raise click.BadParameter(f"{value!a} has characters that cannot be seen")
    folder = FOLDER.convert(value, None, click.get_current_context(silent=True))
    return KeptPasswords(folder)


@click.command("broker-accounts", cls=Exemplified, example="broker-accounts --check", acts_by="--apply")
@click.option(
    "--passwords",
    type=_passwords,
    metavar="FOLDER|env",
    help="Where the passwords are: FOLDER has a file for each account, readable by its owner only, and gets one for "
    "each that is missing, and beside it, where AMQP_URL or BROKER_URL is set, ACCOUNT.amqp_url for AMQP_URL_FILE or "
    "BROKER_URL_FILE; `env`: the variables BROKER_PASSWORD_<ACCOUNT>.",
)
@click.option(
    "--gateway", "gateways", multiple=True, type=SERVICE_NAME, help="Another gateway, or program: gateway.NAME."
)
@click.option(
    "--lanes",
    "together",
    multiple=True,
    type=LANES_OF_PROCESS,
    help="Another account, NAME_lanes, for a process that runs these lanes (`coordinator run LANE LANE`).",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print RabbitMQ's definitions, or Redis's accounts, with hashes of the passwords.",
)
@click.option("--check", "is_check", is_flag=True, help="Say what the server has otherwise, and change nothing.")
@click.option("--apply", "is_apply", is_flag=True, help="Make the server's accounts so.")
@refusing
def broker_accounts_command(
    passwords: Passwords | None,
    gateways: Sequence[str],
    together: Sequence[tuple[str, Sequence[str]]],
    *,
    as_json: bool,
    is_check: bool,
    is_apply: bool,
) -> None:
    """Print what an administrator of the broker runs: an account for each process, with the least rights.

    For Redis these are lines of redis-cli, with hashes of the passwords. For RabbitMQ the vhost is that of AMQP_URL.
    `--apply` and `--check` need an administrator: for RabbitMQ its management and an account with the tag
    `administrator`, RABBITMQ_ADMIN_URL, and for Redis BROKER_ADMIN_URL. They work on a server of somebody else's. Doing
    it again changes nothing.
    """
    if as_json + is_check + is_apply > 1:
        raise click.UsageError("--json, --check and --apply are three different things: name one.")
    if as_json and passwords is None:
        raise click.UsageError("--json needs --passwords: it has their hashes.")
    if len(dict(together)) < len(together):
        raise click.UsageError("--lanes names one process twice: say all of its lanes at once.")
    names, broker = broker_names(registry(), gateways, dict(together)), load(BrokerSettings)
    how: _How = "apply" if is_apply else "check" if is_check else "json" if as_json else "script"
    serve = _serve_rabbitmq if broker.is_rabbitmq else _serve_redis
    made = serve(names, broker.url, passwords, how)
    if how != "check" and isinstance(passwords, KeptPasswords):
        _say_unknown(made, passwords)
        if "url" in broker.model_fields_set:
            _write_addresses(made, broker.url, passwords)
        else:
            # The default is hardly the address of the processes, and would take the place of one that is.
            click.echo(f"note: {broker_setting()} is not set, so no addresses (.amqp_url) are written", err=True)


def _serve_redis(names: BrokerNames, url: str, passwords: Passwords | None, how: _How) -> Sequence[str]:  # noqa: ARG001  # as for RabbitMQ
    accounts = redis_accounts(names)
    if how in ("apply", "check"):
        # Only those who administer a Redis need its driver.
        from coordinator.accounts.redis_broker import compare  # noqa: PLC0415

        compare(accounts, passwords, is_apply=how == "apply")
    elif how == "json" and passwords is not None:
        print_accounts(accounts, passwords)
    else:
        print_lines(accounts, passwords)
    return [user.name for user in accounts]


def _serve_rabbitmq(names: BrokerNames, url: str, passwords: Passwords | None, how: _How) -> Sequence[str]:
    accounts = broker_accounts(names)
    vhost = parse_address(url).database or _DEFAULT_VHOST
    if how in ("apply", "check"):
        _compare(accounts, vhost, passwords, is_apply=how == "apply")
    elif how == "json" and passwords is not None:
        hashes = {each.name: password_hash(passwords.given(each.name)) for each in accounts}
        print_json(definitions(accounts, vhost, hashes))
    else:
        if passwords is not None:
            for account in accounts:
                passwords.given(account.name)
        files = (
            {each.name: passwords.path(each.name) for each in accounts} if isinstance(passwords, KeptPasswords) else {}
        )
        for line in lines_of(accounts, vhost, files):
            click.echo(line)
    return [account.name for account in accounts]


def _compare(accounts: Sequence[BrokerAccount], vhost: str, passwords: Passwords | None, *, is_apply: bool) -> None:
    server = open_management(load(BrokerAdminSettings).admin_url)
    if server.user in {account.name for account in accounts}:
        raise ConfigurationError(
            f"RABBITMQ_ADMIN_URL: {server.user} is the name of one of these accounts, which are no administrators: "
            "use an administrator of another name"
        )
    if not server.has_vhost(vhost):
        raise ConfigurationError(
            f"{broker_setting()}: RabbitMQ has no vhost {vhost!r}: `rabbitmqctl add_vhost` makes one"
        )
    kept = server.accounts()
    found = list(changes(accounts, kept, vhost, passwords, server))
    if is_apply:
        _apply(found)
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


def _say_unknown(accounts: Sequence[str], passwords: KeptPasswords) -> None:
    """Of accounts that the server had before the folder nobody here knows the password, nor makes another one."""
    unknown = [account for account in accounts if passwords.known(account) is None]
    if unknown:
        click.echo(
            f"note: {passwords.folder} has no password of {', '.join(unknown)}, which the server has with one: put it "
            f"there ({unknown[0]}.password), or delete the account and do this again",
            err=True,
        )


def _write_addresses(accounts: Sequence[str], url: str, passwords: KeptPasswords) -> None:
    """For AMQP_URL_FILE, or BROKER_URL_FILE, of each process: the broker's address with its account."""
    scheme, separator, rest = url.partition("://")
    at = rest.rpartition("@")[2]
    for account in accounts:
        password = passwords.known(account)
        if password is not None:
            text = f"{scheme}{separator}{account}:{quote(password, safe='')}@{at}\n"
            passwords.write(passwords.folder / f"{account}.amqp_url", text)
