"""Which services there are, and which gateways: named by the user who starts a process, and imported when asked for.

An application is named as `module:NAME`, by the option `--app` or the setting COORDINATOR_APP. Without one, it is what
installed packages name as entry points of three groups, each `NAME = "module:ATTRIBUTE"`:

    [project.entry-points."write_coordinator.services"]
    orders = "shop.orders:SERVICE"

    [project.entry-points."write_coordinator.gateways"]
    orders = "shop.http:ORDERS"

    [project.entry-points."write_coordinator.dev"]
    orders = "shop.dev:ORDERS"
"""

import importlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from coordinator.runtime.extras import extra_of
from coordinator.service.authors_code import authors_line
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import TENANT_SIGN, is_name, lane_of, service_of, settings_prefix, tenant_of
from coordinator.service.outside_calls import effects_key
from coordinator.service.service import Service

APP_SETTING: Final = "COORDINATOR_APP"
SERVICE_GROUP: Final = "write_coordinator.services"
GATEWAY_GROUP: Final = "write_coordinator.gateways"
DEV_GROUP: Final = "write_coordinator.dev"

T = TypeVar("T")


class App(Struct, frozen=True, kw_only=True):
    """The services of a system, and by their names what belongs to them: `module:ATTRIBUTE`, which imports nothing.

    `dev` names what services want of `coordinator dev`, each a `coordinator.dev.services.DevService`; those without
    one get the defaults. `settings` names groups of settings that are the system's own, and says who reads each.

    `tenants` of those services that keep each tenant's data in a lane and a database of its own: with
    `{"seats": ("acme", "bolt")}` there are the lanes `seats-acme` and `seats-bolt`, and none that is named `seats`.
    `tenant_of_host` names a function: for a gateway of several tenants it says whose a host is, None if nobody's. It is
    asked at each request, in the event loop, so it waits for nothing. Without one a host's first label is the tenant.
    """

    services: Mapping[str, str]
    gateways: Mapping[str, str] = {}
    dev: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}
    tenants: Mapping[str, Sequence[str]] = {}
    tenant_of_host: str = ""


class Registry:
    """An application's services, their lanes, and gateways. Each is imported when it is first asked for."""

    def __init__(self, app: App) -> None:
        """Raises ConfigurationError for names from which no lanes can be made."""
        _check_names(app)
        self._app = app
        self._lanes = {lane: name for name in app.services for lane in _lanes_of(app, name)}
        self._services: dict[str, Service] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the lanes, in the application's order: those of services, and of their tenants."""
        return tuple(self._lanes)

    @property
    def gateway_names(self) -> tuple[str, ...]:
        """Of all that can be served: lanes, and gateways without one, in the application's order."""
        return tuple(dict.fromkeys((*self._lanes, *self._named_gateways)))

    @property
    def served_names(self) -> tuple[str, ...]:
        """The same, and the services that have a gateway for each tenant: each is all of these."""
        return tuple(dict.fromkeys((*self.gateway_names, *self._app.tenants)))

    def gateways_of(self, name: str) -> tuple[str, ...]:
        """Those that are meant by one of `served_names`: mostly one."""
        return (name,) if name in self.gateway_names else tuple(_lanes_of(self._app, name))

    @property
    def tenants(self) -> frozenset[str]:
        """Of all services."""
        return frozenset(tenant for of_it in self._app.tenants.values() for tenant in of_it)

    @property
    def tenant_of_host(self) -> Callable[[str], str | None] | None:
        """What says whose a host is; None: nothing does. Raises ConfigurationError."""
        reference = self._app.tenant_of_host
        if not reference:
            return None
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction  # noqa: PLC0415

        found: Callable[[str], str | None] = imported(reference, FunctionType)
        if any(is_other(found) for is_other in (iscoroutinefunction, isgeneratorfunction, isasyncgenfunction)):
            raise ConfigurationError(
                f"{reference!r} must return the tenant at once: write `def`, without await or yield"
            )
        return found

    @property
    def _named_gateways(self) -> tuple[str, ...]:
        """Those that are not made of their services; of a service with tenants one for each."""
        return tuple(lane for name in self._app.gateways for lane in _lanes_of(self._app, name))

    @property
    def services(self) -> tuple[Service, ...]:
        """All of them, once for each of their lanes. Raises ConfigurationError."""
        return tuple(map(self.service, self.names))

    @property
    def calling(self) -> tuple[Service, ...]:
        """Those that make calls to the outside. Raises ConfigurationError."""
        return tuple(service for service in self.services if service.effects is not None)

    def service(self, lane: str) -> Service:
        """The service that has this lane.

        Raises ConfigurationError, which lists the names there are, or says what cannot be imported.
        """
        known = self._services.get(lane)
        if known is None:
            name = self._reference("lane", self._lanes, lane)
            known = imported(self._app.services[name], Service)
            if known.lane != name:
                raise ConfigurationError(f"service {name!r} is named {known.lane!r} by itself")
            if (tenant := tenant_of(lane)) is not None:
                known = known.for_tenant(tenant)
            # It loads SQLAlchemy, and the command line alone does not.
            from coordinator.stores.row_defects import check_declaration  # noqa: PLC0415

            check_declaration(known)
            self._services[lane] = known
        return known

    def gateway(self, name: str) -> Any:
        """A `coordinator.http.app.Gateway`: the one that is named, or else one made of the service itself.

        That of a tenant has the name of his lane. Raises ConfigurationError.
        """
        declared = service_of(name)
        if name in self._lanes and declared not in self._app.gateways:
            # Only a gateway serves HTTP.
            from coordinator.http.service_gateway import gateway_of  # noqa: PLC0415

            return gateway_of(self.service(name))
        self._reference("gateway", dict.fromkeys(self._named_gateways, ""), name)
        made = imported(self._app.gateways[declared], object)
        return made if name == declared else replace(made, name=name)

    @property
    def system_gateways(self) -> tuple[str, ...]:
        """Those that issue commands as the system. Raises ConfigurationError.

        One that is made of its service never does, and is not made to find that out.
        """
        return tuple(name for name in self._named_gateways if self.gateway(name).is_system)

    def dev(self, name: str) -> Any:
        """What a service wants of `coordinator dev`; None where it does not say. Raises ConfigurationError."""
        reference = self._app.dev.get(service_of(name))
        return None if reference is None else imported(reference, object)

    @property
    def settings(self) -> tuple[tuple[Any, str], ...]:
        """The system's own groups of settings, and who reads each. Raises ConfigurationError."""
        return tuple((imported(reference, type), readers) for reference, readers in self._app.settings.items())

    def without(self, names: Collection[str]) -> "Registry":
        """The application as if it had not these lanes."""
        app = self._app
        tenants = {
            name: [tenant for tenant in of_it if lane_of(name, tenant) not in names]
            for name, of_it in app.tenants.items()
        }
        gone = {name for name in app.services if not set(_lanes_of(app, name)) - set(names)}

        def left(references: Mapping[str, T]) -> dict[str, T]:
            return {name: reference for name, reference in references.items() if name not in gone | set(names)}

        return Registry(
            replace(
                app,
                services=left(app.services),
                gateways=left(app.gateways),
                dev=left(app.dev),
                tenants=left(tenants),
            )
        )

    def targets(self, *own: Service) -> frozenset[str]:
        """To whom anything can be emitted: the lanes, and those who carry out their effects."""
        return targets_of((*own, *self.services))

    def _reference(self, kind: str, known: Mapping[str, str], name: str) -> str:
        reference = known.get(name)
        if reference is None:
            raise ConfigurationError(f"no {kind} {name!r}: there are {_listed(known)}")
        return reference


def _lanes_of(app: App, name: str) -> list[str]:
    """The lanes of a service; of a gateway without one its name."""
    tenants = app.tenants.get(name)
    return [name] if tenants is None else [lane_of(name, tenant) for tenant in tenants]


def _check_names(app: App) -> None:
    for name, tenants in app.tenants.items():
        if name not in app.services:
            raise ConfigurationError(f"`tenants` names {name!r}, and there is no such service: {_listed(app.services)}")
        if isinstance(tenants, str) or not isinstance(tenants, Sequence) or not tenants:
            raise ConfigurationError(f"`tenants` of {name!r} must be names, such as ('acme',), and is {tenants!r:.100}")
        for tenant in tenants:
            if not is_name(tenant):
                # An empty one would have the lane of the service itself, which tenants do not share.
                raise ConfigurationError(
                    f"`tenants` of {name!r} has {tenant!r:.100}, which is no name: "
                    "lower-case letters, digits and _, of at most 63 characters"
                )
    for name in (*app.services, *app.gateways):
        if TENANT_SIGN in name:
            raise ConfigurationError(
                f"{name!r} is no name of a service or a gateway: a tenant's is behind a {TENANT_SIGN}"
            )
    lanes = [lane for name in app.services for lane in _lanes_of(app, name)]
    # One without a lane reads settings of its own name, too.
    others = [each for name in app.gateways for each in _lanes_of(app, name) if each not in lanes]
    for prefix, times in Counter(map(settings_prefix, (*lanes, *others))).items():
        if times > 1:
            text = f"two lanes or gateways would have the settings {prefix}…: a service or a tenant needs another name"
            raise ConfigurationError(text)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def targets_of(services: Sequence[Service]) -> frozenset[str]:
    """The lanes of some services, and those who carry out their effects."""
    effects = (effects_key(service.lane) for service in services if service.effects is not None)
    return frozenset((*(service.lane for service in services), *effects))


_known: dict[str, Registry] = {}
_named_here: set[str] = set()
"""The applications that were named by an argument or an option, and not by the setting."""


def registry() -> Registry:
    """That of the application that this process runs. Raises ConfigurationError where none is named."""
    name = os.environ.get(APP_SETTING, "")
    if name not in _known:
        _known[name] = Registry(_application(name) if name else _installed())
    return _known[name]


def _application(name: str) -> App:
    """The application of this name; that of a service alone has that service."""
    try:
        found = imported(name, (App, Service))
    except ConfigurationError as error:
        if name in _named_here:
            raise
        # Whoever began the process may not know of it: a shell keeps it when it goes on to another project.
        raise ConfigurationError(f"{APP_SETTING}: {error}") from error
    return found if isinstance(found, App) else App(services={found.name: name})


def use(name: str) -> None:
    """Have this process, and those that it starts, run the application of this name."""
    _named_here.add(name)
    os.environ[APP_SETTING] = name


def imported(reference: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    """What `module:ATTRIBUTE` names. Raises ConfigurationError, which names it."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"{reference!r} does not name anything: write module:NAME")
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise ConfigurationError(
            f"the folder in which this was started cannot be found ({error.strerror}): go to one that is there"
        ) from None
    if here not in sys.path:
        # A console script does not look where it is started; `python -m` does.
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ConfigurationError:
        raise
    except Exception as error:
        import traceback  # noqa: PLC0415 - it takes as long to load as half of the command line

        place = authors_line("".join(traceback.format_exception(error)))
        at = "" if place is None else f" ({place})"
        what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        what = extra_of(error) or what
        raise ConfigurationError(f"{reference!r} is no module:NAME that can be imported: {what}{at}") from error
    if not isinstance(found, kind):
        wanted = " or ".join(_a(each.__name__) for each in (kind if isinstance(kind, tuple) else (kind,)))
        is_now = f"the class {found.__name__}" if isinstance(found, type) else _a(type(found).__name__)
        raise ConfigurationError(f"{reference!r} is {is_now}, and must be {wanted}")
    return found


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def _installed() -> App:
    services = _named(SERVICE_GROUP)
    if not services:
        # It loads pydantic, and the command line alone does not.
        from coordinator.runtime.loading import where_set  # noqa: PLC0415

        raise ConfigurationError(
            f"no services: name an application (--app module:NAME, or {APP_SETTING}), or install a package that has "
            f"entry points of the group {SERVICE_GROUP}{where_set(APP_SETTING)}"
        )
    return App(services=services, gateways=_named(GATEWAY_GROUP), dev=_named(DEV_GROUP))


def _named(group: str) -> dict[str, str]:
    # It loads an email parser, and an application that is named needs none of it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return {point.name: point.value for point in sorted(entry_points(group=group))}
