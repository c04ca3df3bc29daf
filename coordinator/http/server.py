"""Serving an application on a port until the process is told to stop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from coordinator.http.certificate import context_of
from coordinator.http.descriptors import backlog_of, make_room_for_connections
from coordinator.http.keys import SERVICE_NAME, SETTINGS
from coordinator.http.request_log import RequestLog
from coordinator.http.runner import LimitedRunner, LimitedSite
from coordinator.runtime.garbage import spare_the_long_lived
from coordinator.runtime.health import HealthEndpoint
from coordinator.runtime.settings import TelemetrySettings, load
from coordinator.runtime.stopping import stop_at_signals
from coordinator.service.errors import ConfigurationError

STOP_MARGIN_S: Final = 2.0
"""Time to write the response, beyond the longest wait for an outcome."""
PORT_SETTING: Final = "GATEWAY_PORT"

log = structlog.get_logger("gateway")


def create_runner(app: web.Application) -> LimitedRunner:
    """The runner for an application, with our log line and limits. Its cleanup gives requests in flight time to end."""
    return LimitedRunner(
        app,
        access_log_class=RequestLog,
        shutdown_timeout=app[SETTINGS].wait_s + STOP_MARGIN_S,
        logger=_server_logger(),
        # Bodies are small: a compressed one is refused, so it cannot swell in here.
        auto_decompress=False,
    )


async def serve_until_stopped(
    app: web.Application,
    host: str,
    port: int,
    failed: Callable[[], Awaitable[NoReturn]],
    setting: str = PORT_SETTING,
    metrics_port: int | None = None,
    gateways: int = 1,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then stop accepting, finish the requests in flight, and clean up.

    `setting` has the port; `metrics_port` that of `/metrics`, if it has one of its own; `gateways` is how many are
    behind the port. Raises ConfigurationError if a port is not available, and what `failed` does.
    """
    stop = stop_at_signals(service=app[SERVICE_NAME])
    metrics = HealthEndpoint(("gateway", app[SERVICE_NAME]), None, load(TelemetrySettings), metrics_port)
    try:
        await metrics.start()
        async with listening(app, host, port, setting=setting, behind=gateways):
            spare_the_long_lived()
            await stopped(stop, failed)
    finally:
        await metrics.stop()
    log.info("stopped", service=app[SERVICE_NAME])


async def stopped(stop: asyncio.Event, failed: Callable[[], Awaitable[NoReturn]]) -> None:
    """Return once the event is set.

    `failed` is awaited meanwhile: it raises once a part of the process has ended that must run for ever, and then this
    raises too.
    """
    stopping, failing = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(failed())
    try:
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        stopping.cancel()
        failing.cancel()


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, ports: int = 1, *, setting: str = PORT_SETTING, behind: int = 1
) -> AsyncIterator[None]:
    """Serve an application; at the end stop accepting, finish the requests in flight, and clean up.

    `ports` are all of this process, and `behind` are the gateways behind this one. Raises ConfigurationError if the
    port is not available.
    """
    make_room_for_connections(app[SETTINGS], ports, behind)
    runner = create_runner(app)
    try:
        await runner.setup()
        site = LimitedSite(runner, host, port, context_of(app), backlog=backlog_of(app[SETTINGS].connections_max))
        try:
            await site.start()
        except (OSError, UnicodeError) as error:
            # The second: a name of a host that has no form in ASCII.
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise ConfigurationError(
                f"cannot listen on port {port} of {host!r}: {reason};"
                f" choose another with --port or {setting}, or stop what uses it"
            ) from None
        log.info("started", service=app[SERVICE_NAME], host=host, port=site.port)
        yield
    finally:
        await runner.cleanup()


def _server_logger() -> logging.Logger:
    """aiohttp's logger, without the tracebacks for clients that do not speak HTTP, or are gone."""
    logger = logging.getLogger("gateways.http")
    if not logger.filters:
        logger.addFilter(lambda record: not _is_clients_fault(record))
    return logger


def _is_clients_fault(record: logging.LogRecord) -> bool:
    error = None if record.exc_info is None else record.exc_info[1]
    # A handler's error about a lost connection of its own has become a problem before it gets here.
    return isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)
