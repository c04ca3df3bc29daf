"""Serving an application through connections that have limits."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web

from coordinator.http.connections import Connection, Connections, Serve
from coordinator.http.handshakes import handshake_of
from coordinator.http.keys import SETTINGS

LINE_BYTES_MAX: Final = 8190
FIELD_BYTES_MAX: Final = 8190
FIELDS_MAX: Final = 64
LINGERING_S: Final = 2.0
"""How long the rest of an unwanted body is read away, so that the client reads the response."""
DISPATCH: Final[web.AppKey[Callable[[Serve], Serve]]] = web.AppKey("DISPATCH")
"""What gives some requests to other applications, and the rest to what it is called with: the application's own."""


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

    def __call__(self) -> Connection:
        return Connection(self, self._limits, loop=self._loop, **self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # it is aiohttp's
        self._limits.end_handshakes()
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
        serve: Serve = server.request_handler
        if DISPATCH in self.app:
            serve = self.app[DISPATCH](serve)
        connections = Connections(self.app, serve)
        connections.start()
        return LimitedServer(connections, server)


class LimitedSite(web.TCPSite):
    """A port. With TLS the handshakes count as connections, too."""

    def __init__(
        self, runner: LimitedRunner, host: str, port: int, ssl_context: ssl.SSLContext | None, *, backlog: int
    ) -> None:
        super().__init__(runner, host, port, ssl_context=ssl_context, backlog=backlog)

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server, context = cast(LimitedServer, self._runner.server), self._ssl_context
        factory: Callable[[], asyncio.BaseProtocol] = server
        if context is not None:
            factory = lambda: handshake_of(server(), context)  # noqa: E731  # one of two
        loop = asyncio.get_running_loop()
        # Without TLS, which begins in each handshake.
        self._server = listening = await loop.create_server(factory, self._host, self._port, backlog=self._backlog)
        self._bound_port = listening.sockets[0].getsockname()[1]
