"""One port for several tenants: each has an application of his own, with all that a gateway alone would have.

What a port has is the process's: its connections with their limits, its certificate, its log. Everything else is a
tenant's: databases, connections to the broker, keys, limits of principals, receipts, metrics. So nothing of one counts
for another. Before them stands an application for requests at a host that is no tenant's: it says how the process is,
and refuses the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn, Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from coordinator.client.hooks import Hooks
from coordinator.http.connections import HEALTH_PATHS, Serve
from coordinator.http.contract.problem_codes import PROBLEM_CODES
from coordinator.http.contract.served import CONTRACT, ServedContract, show_problem
from coordinator.http.database_part import NOT_OF_USE, NOT_YET
from coordinator.http.hooks import HOOKS
from coordinator.http.hosts import TenantOfHost, host_of
from coordinator.http.keys import CONTEXT, SERVICE_NAME, SETTINGS
from coordinator.http.middleware import serve
from coordinator.http.operations import CHECKS, LOOKS, PARTS, Check, health_routes, watch_checks, without_metrics
from coordinator.http.problems import NotReady, RequestRefused
from coordinator.http.request_log import in_flight_of
from coordinator.http.runner import DISPATCH
from coordinator.runtime.build_info import show_build
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import ConfigurationError, Overloaded

REFUSAL: Final = web.RequestKey("REFUSAL", Exception)
"""Why a request is not given to a tenant's application."""
WHOSE: Final = web.RequestKey("WHOSE", str)
"""The name of the tenant's gateway for which a request is."""
HEALTHZ_PATH: Final = "/healthz"
RETRY_S: Final = 2.0
"""How long a tenant's gateway rests between two looks whether its databases are of use by now."""
FIRST_WAIT_S: Final = 8.0
"""How long the port waits for the gateways behind it to start: each waits for its database, then for the broker, and
looks at both."""

log = structlog.get_logger("gateway")


def share_of_one(connections_max: int) -> int:
    """Of the requests that a port serves at a time, those of one tenant: he leaves as many to the others."""
    return -(-connections_max // 2)


def settings_of_one(settings: GatewaySettings) -> GatewaySettings:
    """Those of a tenant's application: its shares are of what he may have."""
    return settings.model_copy(update={"connections_max": share_of_one(settings.connections_max)})


class TenantGateway(Protocol):
    """The gateway of one tenant: an `OpenGateway`."""

    @property
    def app(self) -> web.Application:
        """Its application, which has not started."""

    async def check(self) -> None:
        """Raises ConfigurationError where its databases are no use until somebody acts."""

    async def failed(self) -> NoReturn:
        """Raise what ends it for good."""


class _Tenant:
    """One tenant: `serve` is there once his gateway runs, and `why_not` until then where something is wrong."""

    def __init__(self, gateway: TenantGateway) -> None:
        self.gateway = gateway
        self.name = gateway.app[SERVICE_NAME]
        self.runner = web.AppRunner(gateway.app)
        self.requests = in_flight_of(self.name)
        self.serve: Serve | None = None
        self.why_not: str | None = None
        self.tried = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether all that it needs did its work when it was looked at last."""
        app = self.gateway.app
        parts = app[PARTS]
        needed = [check.name for check in app[CHECKS] if check.is_needed]
        return all(name in parts and parts[name].said is None for name in needed)

    def refusals(self) -> dict[str, str]:
        """Why none of his requests is served now, by parts; none: they are.

        Alone his process would be unready, and a balancer would take it out. Here it is ready for the others.
        """
        if self.serve is None:
            return {"database": NOT_YET if self.why_not is None else NOT_OF_USE}
        said = ((check.name, check.refusal()) for check in self.gateway.app[CHECKS])
        return {name: why for name, why in said if why is not None}

    async def run(self) -> NoReturn:
        """Start his gateway, as soon as its databases are of use; raise what ends it for good."""
        # Of all tasks that it starts the lines in the log say whose they are.
        structlog.contextvars.bind_contextvars(service=self.name)
        try:
            while not await self._is_of_use():
                self.tried.set()
                await asyncio.sleep(RETRY_S)
            await self.runner.setup()
            if self.runner.server is None:
                raise AssertionError("a runner that is set up has a server")
            self.serve = self.runner.server.request_handler
            with suppress(Exception):
                # So that the port does not seem unready because nobody has looked yet. A defect is logged by the watch.
                await self.gateway.app[LOOKS].look(self.gateway.app)
        finally:
            self.tried.set()
        await self.gateway.failed()

    async def _is_of_use(self) -> bool:
        try:
            await self.gateway.check()
        except ConfigurationError as error:
            if str(error) != self.why_not:
                # A gateway alone would end, and his callers would find nobody. The others go on here.
                log.error("tenant_not_served", service=self.name, reason=str(error))
            self.why_not = str(error)
            return False
        self.why_not = None
        return True


class TenantApps:
    """The gateways of several tenants behind one port."""

    def __init__(
        self, gateways: Mapping[str, TenantGateway], tenant_of_host: TenantOfHost, connections_max: int
    ) -> None:
        self._tenants = {tenant: _Tenant(gateway) for tenant, gateway in gateways.items()}
        for gateway in gateways.values():
            gateway.app[LOOKS].share_process(len(gateways))
        self._tenant_of_host = tenant_of_host
        self._requests_max = share_of_one(connections_max)
        self._running: list[asyncio.Task[NoReturn]] = []

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the port is open. All start at a time: one whose servers are away keeps no other waiting."""
        tenants = self._tenants.values()
        self._running = [asyncio.create_task(each.run(), name=f"gateway {each.name}") for each in tenants]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_WAIT_S):
                    await asyncio.gather(*(each.tried.wait() for each in tenants))
            yield
        finally:
            await end_tasks(*self._running)
            cleaned = (each.runner.cleanup() for each in tenants)
            for error in filter(None, await asyncio.gather(*cleaned, return_exceptions=True)):
                log.error("internal_error", exc_info=error)

    async def failed(self) -> NoReturn:
        """Raise what ends one of them for good: a defect, or a broker that refuses the account of all."""
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        raise AssertionError("gateways end by raising only")

    def dispatch(self, others: Serve) -> Serve:
        """Have each request served by its tenant's application; `others` serves what is of none, or refused."""
        return partial(self._serve, others)

    async def problem(self) -> str | None:
        """For readiness: why no tenant is served."""
        is_any_ready = any(each.is_ready for each in self._tenants.values())
        return None if is_any_ready else "nothing behind this port can serve now"

    async def _serve(self, others: Serve, request: web.BaseRequest) -> web.StreamResponse:
        try:
            serve_it = self._find(request)
        except Exception as error:  # noqa: BLE001  # the boundary is the middleware of the others
            request[REFUSAL] = error
            serve_it = None
        return await (serve_it or others)(request)

    def _find(self, request: web.BaseRequest) -> Serve | None:
        """Raises RequestRefused (400), NotReady, Overloaded, and what the application's function does."""
        host = host_of(request)
        try:
            name = None if host is None else self._tenant_of_host(host)
            tenant = None if name is None else self._tenants.get(name)
        except Exception:
            if request.path in HEALTH_PATHS:
                # A balancer asks by address. A function that does not know it must not take out all tenants.
                return None
            raise
        if tenant is None or (tenant.serve is None and request.path == HEALTHZ_PATH):
            return None
        request[WHOSE] = tenant.name
        # Of all that the request causes the lines in the log say whose they are.
        structlog.contextvars.bind_contextvars(service=tenant.name)
        if tenant.serve is not None and request.path in HEALTH_PATHS:
            return tenant.serve
        if refusals := tenant.refusals():
            raise NotReady(dict.fromkeys(refusals, "down"), refusals)
        if (number := tenant.requests.number_without_awaited) >= self._requests_max:
            text = f"{number} requests are being served at this host already"
            raise Overloaded(f"{text} (a share of GATEWAY_CONNECTIONS_MAX)")
        return tenant.serve


def front_app(name: str, tenants: TenantApps, settings: GatewaySettings) -> web.Application:
    """The application that stands before those of tenants. `name` is in logs, and in metrics of the port."""
    app = web.Application(middlewares=[serve, _refuse], client_max_size=settings.body_bytes_max)
    show_build()
    app[HOOKS] = Hooks()
    app[SERVICE_NAME] = name
    app[SETTINGS] = settings
    app[CONTRACT] = ServedContract(name, about="", own={}, common=(), problems=PROBLEM_CODES, credentials=None)
    app[CHECKS] = [Check("tenants", tenants.problem)]
    app[DISPATCH] = tenants.dispatch
    app.cleanup_ctx.append(tenants.running)
    watch_checks(app)
    # Metrics name the tenants, and anybody can ask at a host that is none's.
    app.add_routes(without_metrics(health_routes))
    app.add_routes([web.get("/problems/{code}", show_problem)])
    return app


@web.middleware
async def _refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises why the request is refused, if it is. What is at no tenant's host is refused in the same words at all
    hosts: nobody learns which tenants there are."""
    error = request.get(REFUSAL)
    if error is not None:
        # The log and the metrics say whose clients are refused.
        request[CONTEXT].service = request.get(WHOSE, request[CONTEXT].service)
        raise error
    if request.match_info.http_exception is not None:
        raise RequestRefused(421, "misdirected_request", "nothing is served here at this host", field="Host")
    return await handler(request)
