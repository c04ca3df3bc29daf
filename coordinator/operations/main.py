"""The composition root of the operations gateway: its lanes, its port, all from the environment."""

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final, NoReturn

import click
import structlog
from aiohttp import web

from coordinator.access.opening import asks_who_asks, check_access, is_loopback
from coordinator.access.settings import AccessSettings
from coordinator.client.hooks import Hooks
from coordinator.http.certificate import serve_certificate
from coordinator.http.contract.served import CONTRACT
from coordinator.http.hooks import HOOKS
from coordinator.http.keys import SERVICE_NAME, SETTINGS
from coordinator.http.middleware import serve as serve_request
from coordinator.http.operations import CHECKS, Check, watch_checks, without_metrics
from coordinator.http.secrets import watch_secrets
from coordinator.http.server import serve_until_stopped
from coordinator.http.waiting_requests import WAITING_REQUESTS, WaitingRequests
from coordinator.operate.open import check_addresses
from coordinator.operate.processes import checked_addresses
from coordinator.operations import find_routes, lane_routes, pages
from coordinator.operations.collector import LaneCollector
from coordinator.operations.contract import NAME, common_routes, operations_contract
from coordinator.operations.doors import SESSIONS
from coordinator.operations.lane_access import LaneAccess
from coordinator.operations.lane_routes import COLLECTOR, THREADS, WAIT_S
from coordinator.operations.lane_threads import LaneThreads
from coordinator.operations.pages import STOPPING, VIEWERS, WATCHED_BY
from coordinator.operations.sessions import Sessions
from coordinator.operations.settings import OperationsSettings
from coordinator.runtime.build_info import show_build
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.log_lines import configure_logging
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.server_tls import ServerTls
from coordinator.runtime.settings import BrokerSettings, GatewaySettings, TelemetrySettings, load
from coordinator.service.errors import ConfigurationError

OWN_ROUTES: Final = (*pages.routes, *lane_routes.routes, *find_routes.routes)

OF_LANES: Final = ("ask-", "act-", "find", "look-")
"""How the names of the threads begin that ask."""
END_S: Final = 1.0
"""How long the end waits for each of them."""

log = structlog.get_logger("operations")


def serve(
    lanes: Sequence[str], host: str, port: int, coordinators: Sequence[str] = (), metrics_port: int | None = None
) -> int:
    """Serve the pages of some lanes until SIGTERM, SIGINT or SIGHUP; return the exit status.

    `coordinators` are addresses beside those of OPERATIONS_COORDINATORS. `metrics_port`: `/metrics` is there, and not
    at `port`.
    """
    try:
        configure_logging(load(TelemetrySettings), NAME)
        check_addresses(lanes)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(lanes, host, port, coordinators, metrics_port))
    except ConfigurationError as error:
        click.echo(f"operations: {error}", err=True)
        return 2
    return 0


async def _serve(
    lanes: Sequence[str], host: str, port: int, coordinators: Sequence[str], metrics_port: int | None
) -> None:
    settings = load(GatewaySettings)
    app = operations_app(lanes, host, settings, coordinators, shows_metrics=metrics_port is None)
    if settings.server_files is not None:
        serve_certificate(app, ServerTls("gateway", settings.server_files))
    watch_secrets(app)
    await serve_until_stopped(app, host, port, _never_fails, setting="OPERATIONS_PORT", metrics_port=metrics_port)
    if _are_asking():
        # A database, or the broker, says nothing any more: Python would wait for it at its end.
        log.warning("stopped_while_asking", service=NAME)
        logging.shutdown()
        os._exit(0)


def _are_asking() -> bool:
    """Whether a thread that asks a database or the broker goes on when it is to end."""
    own = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not own and thread.name.startswith(OF_LANES):
            thread.join(END_S)
            if thread.is_alive():
                return True
    return False


def operations_app(
    lanes: Sequence[str],
    host: str,
    settings: GatewaySettings,
    coordinators: Sequence[str] = (),
    *,
    shows_metrics: bool = True,
) -> web.Application:
    """The application. `shows_metrics`: `/metrics` is among its routes.

    Raises ConfigurationError for an address that others reach where nothing says who may ask."""
    own, access_settings = load(OperationsSettings), load(AccessSettings)
    check_access(access_settings, host)
    _check_open(access_settings, own, host)
    warn_of_unknown(settings, own, access_settings, load(BrokerSettings))
    access = LaneAccess(access_settings, lanes) if asks_who_asks(access_settings) else None
    app = web.Application(middlewares=[serve_request], client_max_size=settings.body_bytes_max)
    app[HOOKS] = Hooks()
    app[SERVICE_NAME] = NAME
    app[SETTINGS] = settings
    app[WAITING_REQUESTS] = WaitingRequests(settings.connections_max, settings.in_flight_max)
    app[SESSIONS] = Sessions(
        access,
        tuple(lanes),
        own.session_s,
        open_as=own.open_as.split(),
        is_behind_tls=own.behind_tls,
    )
    try:
        urls = checked_addresses((*own.coordinators.split(), *coordinators))
    except ValueError as error:
        raise ConfigurationError(f"--coordinator, OPERATIONS_COORDINATORS: {error}") from None
    collector = app[COLLECTOR] = LaneCollector(lanes, urls, own.refresh_s)
    app[CHECKS] = [Check("lanes", collector.problem)]
    common = common_routes if shows_metrics else without_metrics(common_routes)
    app[CONTRACT] = operations_contract(OWN_ROUTES, asks=access is not None, common=common)
    show_build()
    app[THREADS] = LaneThreads(lanes)
    app[WAIT_S] = own.wait_s
    app[VIEWERS] = own.viewers_max
    app[WATCHED_BY] = Counter()
    app[STOPPING] = asyncio.Event()
    if access is not None:
        app.cleanup_ctx.append(access.running)
    app.cleanup_ctx.append(app[THREADS].running)
    app.cleanup_ctx.append(collector.running)
    watch_checks(app)
    app.on_shutdown.append(_end_streams)
    app.on_response_prepare.append(pages.add_headers)
    app.add_routes([*OWN_ROUTES, *common])
    return app


def _check_open(access: AccessSettings, own: OperationsSettings, host: str) -> None:
    """Raises ConfigurationError where `none`, by which gateways are opened, would make everybody an operator."""
    if not asks_who_asks(access) and not is_loopback(host) and not own.open_as:
        raise ConfigurationError(
            f"ACCESS_METHODS=none, and others than this machine reach {host!r}: everybody who does would operate all "
            "lanes, and read what their commands hold. Set ACCESS_METHODS=keys (or tokens) for the operations gateway; "
            "or, if everybody shall, the names by which they may ask it: OPERATIONS_OPEN_AS=localhost, say"
        )


async def _end_streams(app: web.Application) -> None:
    """Or a stop would wait for pages that are open."""
    app[STOPPING].set()
    app[COLLECTOR].hurry()


async def _never_fails() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")
