"""Connections to a gateway: how many there may be, and how long each may stay in a state.

aiohttp by itself bounds neither. A connection is always in one of these states, and each ends in time:

| state | limit |
| --- | --- |
| its handshake of TLS is on its way | GATEWAY_HEAD_TIMEOUT_S (http/handshakes.py) |
| its request's head is on its way, or the first is awaited | GATEWAY_HEAD_TIMEOUT_S, GATEWAY_HEAD_BYTES_MAX; 408, 431 |
| its request's body is on its way | GATEWAY_BODY_TIMEOUT_S (coordinator/http/requests.py); 408 |
| it waits for the keys of an issuer of tokens | FETCH_TIMEOUT_S (access/key_sets.py) |
| its body waits to be read | a limited number of each client waits (http/body_turns.py) |
| it is being served | its route waits for a limited time, and a limited number waits (http/waiting_requests.py) |
| its response is not read by the client | GATEWAY_SEND_TIMEOUT_S |
| it is answered, and the rest of its request's body is read away | LINGERING_S |
| it is idle, kept for the next request | GATEWAY_IDLE_TIMEOUT_S (aiohttp) |
| it is being closed, and the client does not read the rest | GATEWAY_SEND_TIMEOUT_S |

At GATEWAY_CONNECTIONS_MAX a new connection takes the place of the one whose client has been sending for longest, or has
waited until it is known who asks, or that has been idle for longest, or that has not read its response for longest. For
the first three no command was handed over, and the fourth is answered. If there is none, all are being served. Then a
few more are taken for the health endpoints; any other request of theirs is answered 503.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, cast

import structlog
from aiohttp import StreamReader, web
from prometheus_client import Counter, Gauge

from coordinator.http.behind_requests import PlainlyEndedHandler
from coordinator.http.expecting import put_off
from coordinator.http.handshakes import Handshake
from coordinator.http.keys import SERVICE_NAME, SETTINGS
from coordinator.http.problems import RequestRefused, problem_response
from coordinator.http.since import Since
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import Overloaded

SURPLUS: Final = 8
"""How many connections beyond the limit are taken for the health endpoints."""
HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
GRACE_S: Final = 0.002
"""A client that has been sending for less than this does not make room for another: it has just begun."""
READING_S: Final = 1.0
"""A client that has not read for this long makes room for another: its network may only be slow until then."""
SEND_BUFFER_BYTES: Final = 128 << 10
"""The kernel's send buffer for each connection; it takes twice as much. By default it buffers up to 4 MB."""
IDLE_ORDER_S: Final = 0.1
"""How often the idle connections are put in order, when room is needed."""
QUIET_S: Final = 60.0
"""At most one log line in this time for each kind of connection that was ended."""

ENDED: Final = Counter(
    "coordinator_gateway_connections_ended_total",
    "Connections that this gateway ended or refused, by why.",
    ("service", "reason"),
)
OPEN: Final = Gauge("coordinator_gateway_connections", "Open connections.", ("service",))

log = structlog.get_logger("gateway")

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connections:
    """The open connections of one gateway."""

    def __init__(self, app: web.Application, serve: Serve) -> None:
        self.settings: GatewaySettings = app[SETTINGS]
        self._app = app
        self._serve = serve
        self._service = app[SERVICE_NAME]
        self._open: dict[Connection | Handshake, None] = {}
        self.sending: Since[Connection | Handshake] = Since()
        """The connections whose clients are in the middle of sending something."""
        self.unread: Since[Connection | Handshake] = Since()
        """The connections whose clients do not read their responses."""
        self._surplus = 0
        self._idle: deque[Connection | Handshake] = deque()
        self._idle_since_s = 0.0
        self._quiet_until_s: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._handle_others: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._gauge = OPEN.labels(self._service)
        limits = (self.settings.head_timeout_s, self.settings.send_timeout_s)
        self._watch_s = min(1.0, *(limit / 4 for limit in limits))

    def start(self) -> None:
        """Watch the connections until `stop`."""
        loop = asyncio.get_running_loop()
        self._handle_others = loop.get_exception_handler()
        loop.set_exception_handler(self._on_loop_error)
        self._timer = loop.call_later(self._watch_s, self._watch)

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            asyncio.get_running_loop().set_exception_handler(self._handle_others)

    def end_handshakes(self) -> None:
        """Nobody comes in any more."""
        for connection in [each for each in self._open if isinstance(each, Handshake)]:
            connection.abort()

    def admit(self, connection: "Connection | Handshake") -> bool:
        """Count a new connection; False: there is no room for it."""
        if len(self._open) - self._surplus >= self.settings.connections_max:
            spared = self._make_room()
            if spared is None:
                self.count("refused")
                if self._surplus >= SURPLUS:
                    return False
            # A surplus connection that gives way frees a surplus place.
            connection.is_surplus = spared is None or spared.is_surplus
            self._surplus += connection.is_surplus
        self._open[connection] = None
        self._gauge.set(len(self._open))
        self.sending.begin(connection)
        return True

    def forget(self, connection: "Connection | Handshake") -> None:
        """The connection is closed, or as good as closed."""
        self.sending.end(connection)
        self.unread.end(connection)
        if connection in self._open:
            del self._open[connection]
            self._surplus -= connection.is_surplus
            self._gauge.set(len(self._open))

    def count(self, reason: str, *, error: str | None = None) -> None:
        """A connection was ended, or refused: counted always, and logged at most once a minute."""
        ENDED.labels(self._service, reason).inc()
        self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
        now = monotonic()
        if now >= self._quiet_until_s.get(reason, 0.0):
            self._quiet_until_s[reason] = now + QUIET_S
            times = self._unlogged.pop(reason)
            log.warning("connections_ended", reason=reason, times=times, open=len(self._open), error=error)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request. Errors that aiohttp raises before the middlewares are answered as problems too."""
        try:
            put_off(request)
            return await self._serve(request)
        except RequestRefused as refused:
            return self._problem(request, refused)
        except ConnectionError:
            # The client is gone; any error of a handler has become a problem by now.
            raise
        except Exception as error:  # the boundary, as in the middleware
            log.exception("internal_error", personal={"url.path": request.rel_url.raw_path})
            return self._problem(request, error)

    async def serve_surplus(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a connection beyond the limit."""
        if request.path in HEALTH_PATHS:
            response = await self.serve(request)
        else:
            text = f"this gateway serves {self.settings.connections_max} connections already"
            response = self._problem(request, Overloaded(f"{text} (GATEWAY_CONNECTIONS_MAX)"))
        response.force_close()
        return response

    def _problem(self, request: web.BaseRequest, error: Exception) -> web.Response:
        """The problem of a request that issued nothing."""
        return problem_response(
            cast(web.Request, request),  # the application makes them
            error,
            command_id=None,
            trace_id=None,
            is_repeatable=True,
            retry_after_s=self.settings.retry_after_s,
        )

    def _make_room(self) -> "Connection | Handshake | None":
        """End the connection that is most easily spared; None: none can be spared."""
        now = monotonic()
        first = self.sending.longest(now, GRACE_S) or self._longest_idle(now) or self.unread.longest(now, READING_S)
        if first is not None:
            self.count("gave_way")
            first.abort()
        return first

    def _longest_idle(self, now: float) -> "Connection | Handshake | None":
        if not self._idle and now - self._idle_since_s >= IDLE_ORDER_S:
            self._idle_since_s = now
            idle = (each for each in self._open if each.is_idle)
            self._idle.extend(sorted(idle, key=lambda each: each.idle_until_s()))
        while self._idle:
            first = self._idle.popleft()
            if first in self._open and first.is_idle:
                return first
        return None

    def _watch(self) -> None:
        try:
            now = monotonic()
            for connection in list(self._open):
                connection.check(now)
            self._check_descriptors()
        finally:
            self._timer = asyncio.get_running_loop().call_later(self._watch_s, self._watch)

    def _check_descriptors(self) -> None:
        """Without descriptors, uvloop closes new connections and reports nothing; so check here."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            self._cannot_accept(error)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio reports here that it has no descriptors, and accepts again after a second."""
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
            self._cannot_accept(error)
        elif self._handle_others is not None:
            self._handle_others(loop, context)
        else:
            loop.default_exception_handler(context)

    def _cannot_accept(self, error: OSError) -> None:
        self.count("cannot_accept", error=f"{error.strerror}: raise the limit of open files (ulimit -n)")


_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Connection(PlainlyEndedHandler):
    """One connection, with the limits of its states."""

    __slots__ = (
        *("_closing_since_s", "_head_bytes", "_open", "_is_in_head", "_lost", "_unwanted"),
        *("handshake", "is_surplus", "limits"),
    )

    def __init__(self, manager: web.Server, connections: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self.limits = connections
        # aiohttp forgets the transport when it begins to close it, and that may take as long as the client likes.
        self._open: asyncio.Transport | None = None
        self._lost: asyncio.Future[None] | None = None
        self._is_in_head = True
        self._head_bytes = 0
        self._closing_since_s: float | None = None
        self._unwanted: StreamReader | None = None
        self.is_surplus = False
        self.handshake: Handshake | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way in or out."""
        return self._waiter is not None and not self._waiter.done() and not self._is_in_head

    @property
    def lost(self) -> "asyncio.Future[None]":
        """Done once its client is gone."""
        if self._lost is None:
            self._lost = asyncio.get_running_loop().create_future()
            if self._open is None:
                self._lost.set_result(None)
        return self._lost

    def idle_until_s(self) -> float:
        """When aiohttp would close the idle connection."""
        return self._next_keepalive_close_time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.handshake is not None:
            # It is done. Its place is this connection's now.
            self.limits.forget(self.handshake)
            self.handshake = None
        # uvloop's transport does not inherit from asyncio's.
        opened = self._open = cast(asyncio.Transport, transport)
        opened.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if not self.limits.admit(self):
            self._force_close = True
            opened.write(_head_of(503, self.limits.settings.retry_after_s))
            opened.close()
            return
        super().connection_made(transport)
        if self.is_surplus:
            self._request_handler = self.limits.serve_surplus

    def connection_lost(self, exc: BaseException | None) -> None:
        self.limits.forget(self)
        self._open = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            if self._is_in_head:
                self._is_in_head = False
                self.limits.sending.end(self)
        elif data and (self._is_in_head or (self._waiter is not None and not self._waiter.done())):
            # The first bytes may come before the task that waits for them has started.
            if not self._is_in_head:
                self._is_in_head = True
                self._head_bytes = 0
                self.limits.sending.begin(self)
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.settings.head_bytes_max:
                self._end("head_too_large", 431)

        if self._unwanted is not None and self._unwanted.is_eof():
            self._unwanted = None
            self.limits.sending.end(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if self._open is not None and not request.content.is_eof():
            # The rest of its body is not needed: it may give way. One that is lost was forgotten before.
            self._unwanted = request.content
            self.limits.sending.begin(self)
        return finished

    def pause_writing(self) -> None:
        super().pause_writing()
        self.limits.unread.begin(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.limits.unread.end(self)

    def check(self, now: float) -> None:
        """End the connection if it has been in its state for too long."""
        settings = self.limits.settings
        if self._open is None:
            return
        if self._open.is_closing():
            self._closing_since_s = self._closing_since_s or now
            if now - self._closing_since_s > settings.send_timeout_s:
                self.limits.count("send_timeout")
                self.abort()
        elif self.limits.unread.for_s(self, now) > settings.send_timeout_s:
            self.limits.count("send_timeout")
            self.abort()
        elif self._is_in_head and self.limits.sending.for_s(self, now) > settings.head_timeout_s:
            self._end("head_timeout", 408 if self._head_bytes else None)

    def abort(self) -> None:
        """Close the connection at once, even in the middle of a request."""
        self.limits.forget(self)
        opened = self._open
        self.force_close()
        if opened is not None:
            opened.abort()

    def _end(self, reason: str, status: int | None) -> None:
        self.limits.count(reason)
        if status is not None and self._open is not None:
            self._open.write(_head_of(status))
        self.force_close()


@contextmanager
def giving_way(request: web.BaseRequest) -> Iterator[None]:
    """While the body of a request is on its way, or it is still to be found out who asks: nothing of it is done yet."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        yield
        return
    connection.limits.sending.begin(connection)
    try:
        yield
    finally:
        connection.limits.sending.end(connection)


def lost_of(request: web.Request) -> "asyncio.Future[None]":
    """Done once the client of a request is gone."""
    connection = request.protocol
    return connection.lost if isinstance(connection, Connection) else asyncio.get_running_loop().create_future()


def _head_of(status: int, retry_after_s: int | None = None) -> bytes:
    """A response without a body."""
    phrase = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}[status]
    retry = "" if retry_after_s is None else f"Retry-After: {retry_after_s}\r\n"
    return f"HTTP/1.1 {status} {phrase}\r\n{retry}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
