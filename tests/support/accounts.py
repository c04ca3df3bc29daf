"""RabbitMQ's accounts of the tests: what each process of ours has, with the rights that the product gives it.

On the tests' servers the password of an account is its name.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from coordinator.accounts.broker_names import broker_names
from coordinator.dev.servers.addresses import ACCOUNT, CACHE_READER
from coordinator.registry import Registry
from coordinator.service.lane_names import settings_prefix
from coordinator.transports.rabbitmq.rights import (
    INGRESS,
    OPERATOR,
    BrokerAccount,
    BrokerNames,
    broker_accounts,
    effects_account,
    gateway_account,
    lane_account,
)
from gateways.app import APP

OTHER_LANES = (
    *("seats", "notes", "borders", "voyages", "ferries", "bank", "profiles", "stock", "orders"),
    *("halls-acme", "halls-bolt", "posters"),
)
"""Of the other applications that tests run on the same broker; each has a gateway."""

OTHERS_THAT_CALL = ("seats",)
"""Those of them that have calls to the outside."""

APPLICATIONS = ("fastapi_shop", "flask_shop")
"""Programs of the examples, which issue commands as gateways do."""


OUTSIDE = ("partner", "billing")
"""Accounts of others, whose commands the ingress hands on."""

TOGETHER = {"all": ("users", "items", "payments")}
"""Processes with several lanes."""


def accounts_of_tests() -> tuple[BrokerAccount, ...]:
    """Those of the reference system, and of the other applications."""
    return broker_accounts(names_of_tests())


def names_of_tests() -> BrokerNames:
    """The names from which they are made."""
    known = broker_names(Registry(APP))
    return BrokerNames(
        lanes=(*known.lanes, *OTHER_LANES),
        calling=(*known.calling, *OTHERS_THAT_CALL),
        gateways=(*known.gateways, *OTHER_LANES, "halls", *APPLICATIONS),
        system_gateways=known.system_gateways,
        together=TOGETHER,
        outside=OUTSIDE,
    )


def as_account(url: str, account: str) -> str:
    """A broker's address with another account."""
    address = urlsplit(url)
    return address._replace(netloc=f"{account}:{account}@{address.netloc.rpartition('@')[2]}").geturl()


def believed(url: str) -> str:
    """For LANE_GATEWAY_ACCOUNTS: the gateways' accounts, and that of an address, with which tests ask for others."""
    gateways = map(gateway_account, broker_names(Registry(APP)).gateways)
    return " ".join((urlsplit(url).username or "guest", *gateways, INGRESS))


def account_of(module: Sequence[str]) -> str | None:
    """The broker's account of `python -m` with these arguments; None: it is an operator's, or speaks to no broker."""
    match list(module[:3]):
        case ["coordinator", "run", lane]:
            return lane_account(lane)
        case ["coordinator", "effects", service]:
            return effects_account(service)
        case ["coordinator", "gateway", service] | ["gateways", service, *_]:
            return gateway_account(service)
        case ["coordinator", "ingress", *_]:
            return INGRESS
        case _:
            return None


def own_settings(module: Sequence[str], settings: Mapping[str, str]) -> dict[str, str]:
    """Of the settings of all processes those that this one may have: its own account and its own database's address."""
    account = account_of(module)
    if account is None:
        return dict(settings)
    prefix = "" if account == INGRESS else settings_prefix(module[1] if module[0] == "gateways" else module[2])
    is_lane = module[1] == "run"
    own = {f"{prefix}DATABASE_URL"} if is_lane or f"{prefix}READER_URL" not in settings else set()
    own |= set() if is_lane else {f"{prefix}READER_URL"}
    kept = {
        name: value
        for name, value in settings.items()
        if name in own or not name.endswith(("_DATABASE_URL", "_READER_URL", "_MIGRATION_URL"))
    }
    return kept | {name: of_process(module, settings[name]) for name in ("AMQP_URL", "REDIS_URL") if name in settings}


def of_process(module: Sequence[str], url: str) -> str:
    """The broker's address with this process's account in the place of an operator's, or that of the cache with a
    gateway's in the place of a lane's; another one stays."""
    account = account_of(module)
    if account is None:
        return url
    url = url.replace(f"//{OPERATOR}:{OPERATOR}@", f"//{account}:{account}@")
    if account.endswith("_gateway"):
        url = url.replace(f"//{ACCOUNT}:{ACCOUNT}@", f"//{CACHE_READER}:{CACHE_READER}@")
    return url
