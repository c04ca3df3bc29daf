"""The tenants of services in one process: their gateways behind its one port, each at his host."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from aiohttp import web

from coordinator.service.lane_names import lane_of
from coordinator.service.service import Service


class TenantInside:
    """Implements `TenantGateway`: an application whose lanes, and so its databases, are in this process."""

    def __init__(self, app: web.Application, failed: Callable[[], Awaitable[NoReturn]]) -> None:
        self.app = app
        self._failed = failed

    async def check(self) -> None:
        """The lanes have looked at the files."""

    async def failed(self) -> NoReturn:
        await self._failed()


def tenants_of(services: Sequence[Service]) -> tuple[str, ...]:
    """All of them, where there are several: one alone has the port as if there were none."""
    found = tuple(dict.fromkeys(service.tenant for service in services if service.tenant is not None))
    return found if len(found) > 1 else ()


def services_for(tenant: str, services: Sequence[Service]) -> list[Service]:
    """Those whose routes a tenant's host has: his own first, whose keys count, and those that tenants share."""
    shared = (service for service in services if service.tenant is None)
    return [*(service for service in services if service.tenant == tenant), *shared]


def host_of_tenant(tenant: str) -> str:
    """The host by which this machine asks for him: RFC 6761, section 6.3."""
    return f"{tenant.replace('_', '-')}.localhost"


def shown_url(url: str, service: Service, tenants: Sequence[str]) -> str:
    """Where the gateway of a service is asked; of one that tenants share, by the first of them."""
    if not tenants:
        return url
    port = url.rpartition(":")[2]
    return f"http://{host_of_tenant(service.tenant or tenants[0])}:{port}"


def name_of(monolith: str, tenant: str) -> str:
    """What logs and metrics call a tenant's gateway of several services."""
    return lane_of(monolith, tenant)
