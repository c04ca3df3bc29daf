"""The plan of a run: the services of the application, the servers that each wants, and every port."""

import collections
import itertools
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from coordinator.accounts.broker_names import broker_names
from coordinator.dev.servers.addresses import HOST, Wanted
from coordinator.dev.servers.ports import port_is_free
from coordinator.dev.services import BrokerKind, DevService, Helper, Place
from coordinator.dev.settings import DevSettings
from coordinator.dev.workspace import MADE
from coordinator.registry import Registry
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import service_of, settings_prefix
from coordinator.transports.rabbitmq.rights import BrokerNames, broker_accounts
from coordinator.transports.redis.rights import redis_accounts

_OPERATIONS_PORT = 8080
_GATEWAY_PORT_FIRST = 8081
_METRICS_PORT_FIRST = 9101
_EFFECTS_PORT_FIRST = 9111
_INGRESS_PORT = 9121
PORT_MAX = 65535


class PlannedPort(Struct, frozen=True):
    """A port, its listener, and the setting that has its number."""

    setting: str
    number: int
    title: str
    host: str = HOST

    @property
    def url(self) -> str:
        """The address at which a process of this machine reaches it."""
        return f"http://{HOST if self.host == '0.0.0.0' else self.host}:{self.number}"


class PlannedHelper(Struct, frozen=True):
    """A helper in its place."""

    helper: Helper
    place: Place
    port: PlannedPort


class PlannedService(Struct, frozen=True, kw_only=True):
    """One service of a run."""

    name: str
    declared: DevService
    metrics: PlannedPort
    gateway: PlannedPort | None
    """None: it has no gateway."""
    effects: PlannedPort | None
    """None: it makes no calls to the outside."""
    helpers: tuple[PlannedHelper, ...]
    """Those that are wanted."""

    @property
    def gateway_url(self) -> str:
        """The address of its gateway; empty if there is none."""
        return _gateway_url(self.gateway)


class Plan(Struct, frozen=True):
    """All services, in the application's order."""

    services: tuple[PlannedService, ...]
    broker: BrokerNames
    """Of which the accounts of its broker are made."""
    operations: PlannedPort
    broker_kind: BrokerKind = "rabbitmq"
    ingress: PlannedPort | None = None
    """None: it has no outside accounts."""

    @property
    def wanted(self) -> Wanted:
        """The servers that they want."""
        declared = {service.name: service.declared for service in self.services}
        return _wanted(declared, self.broker, self.broker_kind)

    @property
    def account_settings(self) -> dict[str, str]:
        """What the processes are told of the broker's accounts: lanes believe who asks, since a gateway says it."""
        outside = {"INGRESS_ACCOUNTS": " ".join(self.broker.outside)} if self.broker.outside else {}
        return {"LANE_GATEWAY_ACCOUNTS": " ".join(self.broker.gateway_accounts)} | outside

    @property
    def helpers(self) -> tuple[PlannedHelper, ...]:
        """The helpers of all services that are wanted."""
        return tuple(helper for service in self.services for helper in service.helpers)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The settings whose values are made up once."""
        return tuple(name for service in self.services for name in service.declared.secrets)

    @property
    def ports(self) -> Iterator[PlannedPort]:
        """Of everything but the servers."""
        yield self.operations
        yield from (service.gateway for service in self.services if service.gateway)
        yield from (service.metrics for service in self.services)
        yield from (service.effects for service in self.services if service.effects)
        if self.ingress is not None:
            yield self.ingress
        yield from (helper.port for helper in self.helpers)


def wanted_of(known: Registry) -> Wanted:
    """The servers that an application's services want. Raises ConfigurationError."""
    return _wanted(_declared(known), broker_names(known))


def kept_names(known: Registry) -> frozenset[str]:
    """The files that only runs of this application keep in their directory. Raises ConfigurationError."""
    return frozenset(_kept(_declared(known).values()))


def secret_file(setting: str) -> str:
    """The file that keeps the value of a setting that is made up once."""
    return setting.lower().replace("_", "-")


def unfinished(name: str) -> str:
    """Under which name it is written."""
    return f"{name}.new"


def plan_of(known: Registry, settings: DevSettings, directory: Path, given: Mapping[str, str]) -> Plan:
    """Plan a run of an application in a directory; `given` is the environment, with the settings of the ports.

    Raises ConfigurationError, which names the declaration or the setting that is wrong.
    """
    declared = _declared(known)
    calling = [service.lane for service in known.calling]
    served = [name for name in declared if name in known.gateway_names]
    metrics = _numbers({name: each.metrics_port for name, each in declared.items()}, _METRICS_PORT_FIRST)
    gateways = _numbers({name: declared[name].gateway_port for name in served}, _GATEWAY_PORT_FIRST)
    if _is_port_given(settings):
        if len(served) > 1:
            own = ", ".join(f"DEV_{settings_prefix(name)}PORT" for name in served)
            raise ConfigurationError(
                "DEV_GATEWAY_PORT is the port of all routes where one process has them; on servers each gateway has "
                f"its own ({own}): set these, or unset it"
            )
        gateways = dict.fromkeys(served, settings.gateway_port)
    effects = _numbers({name: declared[name].effects_port for name in calling}, _EFFECTS_PORT_FIRST)
    services = []
    for name, wishes in declared.items():
        gateway = None
        if name in gateways:
            gateway = _port(name, gateways[name], f"the gateway of {name}", given, settings.host)
        services.append(
            PlannedService(
                name=name,
                declared=wishes,
                metrics=_port(f"{name}_metrics", metrics[name], f"the coordinator of {name}", given),
                gateway=gateway,
                effects=_port(f"{name}_effects", effects[name], f"the effect worker of {name}", given)
                if name in effects
                else None,
                helpers=tuple(
                    _in_place(helper, directory, _gateway_url(gateway), given)
                    for helper in wishes.helpers
                    if helper.is_wanted(given)
                ),
            )
        )
    operations = _operations_port(_OPERATIONS_PORT, given, settings.host)
    names = broker_names(known)
    has_ingress = bool(names.outside) and settings.broker == "rabbitmq"
    ingress = _port("ingress", _INGRESS_PORT, "the ingress", given) if has_ingress else None
    plan = Plan(tuple(services), names, operations, settings.broker, ingress)
    _check_names(plan, _kept(declared.values()))
    return plan


class PlanOfOne(Struct, frozen=True, kw_only=True):
    """A run in one process: one gateway for all services, and the pages for operators."""

    gateway: PlannedPort
    operations: PlannedPort
    helpers: tuple[PlannedHelper, ...]
    """Those that are wanted."""
    secrets: tuple[str, ...]
    """The settings whose values are made up once."""
    is_cached: bool
    """Whether a service wants a cache."""

    @property
    def ports(self) -> tuple[PlannedPort, ...]:
        return (self.gateway, self.operations, *(helper.port for helper in self.helpers))


def plan_of_one(known: Registry, settings: DevSettings, directory: Path, given: Mapping[str, str]) -> PlanOfOne:
    """Plan a run of all services in one process, without a server; helpers keep their data in this directory.

    One service has the port that is its own on servers, too; several share one. Raises ConfigurationError for a helper
    that is a process only.
    """
    declared = _declared(known)
    names = list(declared)
    if len(names) == 1:
        asked = None if _is_port_given(settings) else declared[names[0]].gateway_port
        asked = asked or settings.gateway_port
        gateway = _port(names[0], asked, f"the gateway of {names[0]}", given, settings.host)
    else:
        title = f"the gateway of {', '.join(names)}"
        gateway = PlannedPort("DEV_GATEWAY_PORT", settings.gateway_port, title, settings.host)
    wanted = [(name, helper) for name, each in declared.items() for helper in each.helpers if helper.is_wanted(given)]
    for name, helper in wanted:
        if helper.application is None:
            raise ConfigurationError(f"{name} wants more than one process: {helper.name}; run it with --servers auto")
    return PlanOfOne(
        gateway=gateway,
        operations=_operations_port_beside(gateway, settings, given),
        helpers=tuple(_in_place(helper, directory, gateway.url, given) for _, helper in wanted),
        secrets=tuple(secret for each in declared.values() for secret in each.secrets),
        is_cached=any(each.cache is not None for each in declared.values()),
    )


def check_ports(ports: Sequence[PlannedPort]) -> None:
    """Raises ConfigurationError, which names every port that is in use or given twice, and its setting."""
    problems = []
    first: dict[int, str] = {}
    for port in ports:
        if port.number in first:
            both = f"{first[port.number]} and {port.setting}"
            problems.append(f"port {port.number} is given to both {both}; change one of them")
        elif not _is_free(port):
            problems.append(f"port {port.number} is in use ({port.title}); set {port.setting} to a free one")
        first.setdefault(port.number, port.setting)
    if problems:
        raise ConfigurationError("\n".join(problems))


def server_ports(settings: DevSettings, wanted: Wanted) -> list[PlannedPort]:
    """The ports of the servers that are wanted, if they are processes of ours."""
    broker = ("redis_broker_port",) if wanted.broker == "redis" else ("amqp_port", "amqp_dist_port", "epmd_port")
    fields = (*broker, *(f"{kind}_port" for kind in wanted.kinds))
    return [
        PlannedPort(
            f"DEV_{field.upper()}",
            getattr(settings, field),
            (DevSettings.model_fields[field].description or field).rstrip("."),
        )
        for field in fields
    ]


def _declared(known: Registry) -> dict[str, DevService]:
    found: dict[str, DevService] = {}
    begun: set[str] = set()
    for name in known.names:
        declared = known.dev(name)
        if declared is not None and not isinstance(declared, DevService):
            raise ConfigurationError(f"what `dev` names for service {name!r} must be a DevService")
        declared = declared or DevService()
        if service_of(name) in begun:
            # One of a kind: the first of the tenants' lanes has it.
            declared = replace(
                declared, gateway_port=None, metrics_port=None, effects_port=None, helpers=(), secrets=()
            )
        begun.add(service_of(name))
        found[name] = declared
    return found


def _kept(declared: Collection[DevService]) -> list[str]:
    helpers = [helper.name for service in declared for helper in service.helpers]
    secrets = {secret_file(name) for service in declared for name in service.secrets}
    return [*helpers, *secrets, *(unfinished(name) for name in secrets)]


def _wanted(declared: Mapping[str, DevService], broker: BrokerNames, kind: BrokerKind = "rabbitmq") -> Wanted:
    return Wanted(
        broker=kind,
        accounts=broker_accounts(broker),
        redis_accounts=redis_accounts(broker),
        databases={name: service.database for name, service in declared.items()},
        cache_keys=tuple(key for service in declared.values() if service.cache for key in service.cache_keys),
    )


def _check_names(plan: Plan, kept: Sequence[str]) -> None:
    """Raises ConfigurationError if two share a setting, or a place in the run's directory."""
    settings = [f"DEV_{name.upper()}" for name in DevSettings.model_fields]
    settings += [port.setting for port in plan.ports]
    for name, uses in collections.Counter((*settings, *MADE, *kept)).items():
        if uses > 1:
            raise ConfigurationError(f"{name} is asked for twice: a service, a helper or a secret needs another name")


def _numbers(asked: Mapping[str, int | None], first: int) -> dict[str, int]:
    """Default ports: the one that a service asks for, and for the others the next from `first` on."""
    others = (number for number in itertools.count(first) if number not in asked.values())
    return {name: number or next(others) for name, number in asked.items()}


def _is_port_given(settings: DevSettings) -> bool:
    return "gateway_port" in settings.model_fields_set


def _port(name: str, default: int, title: str, given: Mapping[str, str], host: str = HOST) -> PlannedPort:
    setting = f"DEV_{settings_prefix(name)}PORT"
    value = given.get(setting, "") or str(default)
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= PORT_MAX):
        raise ConfigurationError(f"{setting} must be a port, from 1 to {PORT_MAX}: it is {value!r}")
    return PlannedPort(setting, int(value), title, host)


def _operations_port_beside(gateway: PlannedPort, settings: DevSettings, given: Mapping[str, str]) -> PlannedPort:
    """The usual one, or the next where the gateway has that."""
    default = _OPERATIONS_PORT + (gateway.number == _OPERATIONS_PORT)
    return _operations_port(default, given, settings.host)


def _operations_port(default: int, given: Mapping[str, str], host: str) -> PlannedPort:
    return _port("operations", default, "the operations gateway", given, host)


def _in_place(helper: Helper, directory: Path, gateway_url: str, given: Mapping[str, str]) -> PlannedHelper:
    port = _port(helper.name, helper.port, helper.title, given)
    place = Place(
        port=port.number,
        url=f"http://{HOST}:{port.number}",
        directory=directory / helper.name,
        gateway_url=gateway_url,
        given=given,
    )
    # What it refuses is said before anything is started.
    helper.settings(place)
    return PlannedHelper(helper, place, port)


def _gateway_url(gateway: PlannedPort | None) -> str:
    return "" if gateway is None else gateway.url


def _is_free(port: PlannedPort) -> bool:
    try:
        return port_is_free(port.host, port.number)
    except socket.gaierror:
        raise ConfigurationError(f"DEV_HOST: {port.host!r} is not an address of this machine") from None
