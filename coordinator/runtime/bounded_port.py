"""A port for few clients: so many connections at once, and beyond them the oldest gives way.

An event loop's own server takes whoever comes. Connections that say nothing, or never end a handshake of TLS, would
take all open files of the process, which then could not reach its database either, and asyncio would log each
connection that it cannot take: megabytes a second.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from coordinator.runtime.ending import end_tasks
from coordinator.runtime.repeated_line import RepeatedLine

CONNECTIONS_MAX: Final = 64
"""Of monitoring, which is fewer; and no more open files than a process can spare."""
BACKLOG: Final = 16
"""Connections that the kernel holds until there is room."""
HANDSHAKE_S: Final = 10.0
CANNOT_ACCEPT_PAUSE_S: Final = 1.0

log = structlog.get_logger("metrics")


class BoundedPort:
    """Makes a protocol, such as that of a web server, of each connection to a port."""

    def __init__(
        self, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None, what: tuple[str, str]
    ) -> None:
        """`what` says in the log whose port it is: `("lane", "orders")`."""
        self._factory = factory
        self._context = context
        self._what = dict([what])
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._beginning: set[asyncio.Task[None]] = set()
        self._open: list[socket.socket] = []
        """The oldest first. Those that are closed by now are found when another one comes."""
        self._line = RepeatedLine()

    async def start(self, host: str, port: int) -> None:
        """Listen, on each address of the host. Raises OSError, and UnicodeError for what can be no host."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                listening = socket.socket(family, kind, protocol)
                self._listening.append(listening)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # The other addresses have sockets of their own.
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.setblocking(False)
                listening.bind(address)
                listening.listen(BACKLOG)
        except OSError:
            self._close()
            raise
        self._accepting = [
            asyncio.create_task(self._accept(each), name=f"connections to port {port}") for each in self._listening
        ]

    async def stop(self) -> None:
        """Take no more connections. Those that are there are their protocols' to end."""
        await end_tasks(*self._accepting, *self._beginning)
        self._close()

    def _close(self) -> None:
        for each in self._listening:
            each.close()
        self._listening.clear()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                # The process has no open file left, or the client is gone already.
                if self._line.is_due("accept", time.monotonic()):
                    log.warning("connections_not_taken", **self._what, reason=error.strerror or str(error))
                await asyncio.sleep(CANNOT_ACCEPT_PAUSE_S)
                continue
            self._make_room()
            self._open.append(connection)
            task = asyncio.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    def _make_room(self) -> None:
        self._open = [each for each in self._open if each.fileno() != -1]
        while len(self._open) >= CONNECTIONS_MAX:
            # Its transport, or its handshake, then meets the end of the connection.
            with suppress(OSError):
                self._open.pop(0).shutdown(socket.SHUT_RDWR)
            if self._line.is_due("gave way", time.monotonic()):
                log.warning(
                    "connections_not_taken",
                    **self._what,
                    reason=f"there are more than {CONNECTIONS_MAX} connections: the oldest is ended for each new one",
                )

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else HANDSHAKE_S,
            )
        except OSError:
            # Of a client that does not speak TLS, or is gone.
            connection.close()
