"""Serving an application through connections that have limits."""

from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from coordinator.http.connections import Connection, Connections
from coordinator.http.keys import SETTINGS

LINE_BYTES_MAX: Final = 8190
FIELD_BYTES_MAX: Final = 8190
FIELDS_MAX: Final = 64
LINGERING_S: Final = 2.0
"""How long the rest of an unwanted body is read away, so that the client reads the response."""


class LimitedServer(web.Server):
    """aiohttp's server, with connections that have limits."""

    def __init__(self, connections: Connections, server: web.Server) -> None:
        super().__init__(
            connections.serve,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,  # noqa: SLF001  # there is no other way to have connections of our own
        )
        self._limits = connections

    def __call__(self) -> RequestHandler:
        return Connection(self, self._limits, loop=self._loop, **self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # it is aiohttp's
        await super().shutdown(timeout)
        self._limits.stop()


class LimitedRunner(web.AppRunner):
    """Serves an application through connections that have limits."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        settings = app[SETTINGS]
        super().__init__(
            app,
            keepalive_timeout=settings.idle_timeout_s,
            lingering_time=min(LINGERING_S, settings.body_timeout_s),
            max_line_size=LINE_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            **options,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        connections = Connections(self.app, server.request_handler)
        connections.start()
        return LimitedServer(connections, server)
