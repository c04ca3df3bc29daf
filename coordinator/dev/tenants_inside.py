"""The tenants of services in one process: their gateways behind its one port, each at his host."""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NoReturn, Self

from aiohttp import web

from coordinator.protocol.wire import CommandMessage
from coordinator.service.lane_names import lane_of
from coordinator.service.outcome import Outcome
from coordinator.service.service import Service
from coordinator.worker.inprocess import InProcessWrites


class TenantInside:
    """Implements `TenantGateway`: an application whose lanes, and so its databases, are in this process."""

    def __init__(self, app: web.Application, failed: Callable[[], Awaitable[NoReturn]]) -> None:
        self.app = app
        self._failed = failed

    async def check(self) -> None:
        """The lanes have looked at the files."""

    async def failed(self) -> NoReturn:
        await self._failed()


class TenantWrites:
    """Implements `CommandTransport` for one tenant's gateway. The lanes of all tenants run in this process: how others'
    do, and what waits there, is not his to see.
    """

    def __init__(self, writes: InProcessWrites, lanes: Sequence[str]) -> None:
        """`lanes` are his own, and those that tenants share. `writes` is started and closed by whoever made it."""
        self._writes = writes
        self._lanes = tuple(lanes)

    @property
    def connected(self) -> bool:
        return not self.unready_reason

    @property
    def problem(self) -> str | None:
        return self._writes.problem_of(self._lanes)

    @property
    def unready_reason(self) -> str:
        return self._writes.unready_reason_of(self._lanes)

    @property
    def account(self) -> None:
        return self._writes.account

    def pending(self, command_id: str) -> bool:
        return self._writes.pending_in(self._lanes, command_id)

    def settled_place(self, command_id: str) -> None:
        return self._writes.settled_place(command_id)

    async def waiting(self, lane: str) -> int | None:
        return await self._writes.waiting(lane) if lane in self._lanes else None

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        return await self._writes.issue(lane, message, wait_s)

    async def start(self) -> None:
        """It is."""

    async def wait_connected(self, timeout_s: float) -> None:
        await self._writes.wait_connected(timeout_s)

    async def failed(self) -> NoReturn:
        await self._writes.failed()

    async def close(self) -> None:
        """The other tenants go on."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


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
