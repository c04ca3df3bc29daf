"""pika's connections on the event loop's own transports.

pika's asyncio adapter watches a socket for readiness: each message that is sent takes a turn of the loop, two changes
of what is watched and a call to the system per frame, each message received a second read that finds nothing. The
loop's transports (uvloop's above all) send at once, and all frames of a turn together.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter
from pika.adapters.utils.nbio_interface import AbstractIOReference, AbstractStreamProtocol, AbstractStreamTransport

FEED_BYTES_MAX = 4096
"""How many bytes pika is given at a time, as by its own transport: it copies unparsed bytes once per frame."""

_OnDone = Callable[[Any], None]
_Linked = tuple[AbstractStreamTransport, AbstractStreamProtocol]


class LoopStreams(_AsyncioIOServicesAdapter):  # type: ignore[misc]  # pika has no types
    """pika's I/O services on the running loop, with another transport. To be given as `custom_ioloop`.

    There is one for each connection. Once it is given up, all of it stops: a step that pika cancels may be done already
    and about to call back, and pika would then go on to connect for nobody. Where a name has several addresses, each
    but the last has its part of the time in which all is to be done: pika goes on to the next one then.
    """

    _is_given_up = False

    def __init__(self, loop: asyncio.AbstractEventLoop, within_s: float | None = None) -> None:
        super().__init__(loop)
        self._within_s = within_s
        self._addresses = 1
        self._tried = 0

    def give_up(self) -> None:
        """Stop all callbacks from here on."""
        self._is_given_up = True

    def getaddrinfo(self, *arguments: Any, on_done: _OnDone, **options: Any) -> AbstractIOReference:
        """Resolve a name."""

        def resolved(result: Any) -> None:
            if not isinstance(result, BaseException):
                # pika does not take it well that there is no socket for an address, and not the next one either.
                result = [each for each in result if _is_usable(each[0])] or result
                self._addresses = len(result)
            on_done(result)

        return super().getaddrinfo(*arguments, on_done=self._unless_given_up(resolved), **options)

    def connect_socket(self, sock: socket.socket, resolved_addr: Any, on_done: _OnDone) -> AbstractIOReference:
        """Connect a socket, which its owner closes."""
        self._tried += 1
        call = self._unless_given_up(on_done)
        if self._within_s is None or self._tried >= self._addresses:
            return super().connect_socket(sock, resolved_addr, call)

        def connected(result: Any) -> None:
            limit.cancel()
            call(result)

        def is_silent() -> None:
            if connecting.cancel():
                call(TimeoutError("it is silent"))

        limit = asyncio.get_running_loop().call_later(self._within_s / self._addresses, is_silent)
        connecting = super().connect_socket(sock, resolved_addr, connected)
        return connecting

    def _unless_given_up(self, on_done: _OnDone) -> _OnDone:
        def call(result: Any) -> None:
            if not self._is_given_up:
                on_done(result)

        return call

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], AbstractStreamProtocol],
        sock: socket.socket,
        on_done: Callable[[_Linked | BaseException], None],
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> AbstractIOReference:
        """Put a transport, with TLS if there is a context, on a connected socket, which it owns from now on."""
        host = server_hostname if ssl_context is not None else None
        return _Linking(_link(protocol_factory(), sock, ssl_context, host), sock, on_done)


def _is_usable(family: int) -> bool:
    """Whether this machine makes sockets for such addresses: IPv6 may be off."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


async def _link(
    protocol: AbstractStreamProtocol,
    sock: socket.socket,
    ssl_context: ssl.SSLContext | None,
    server_hostname: str | None,
) -> _Linked:
    stream = _Stream(protocol)
    await asyncio.get_running_loop().create_connection(
        lambda: stream, sock=sock, ssl=ssl_context, server_hostname=server_hostname
    )
    # Begin only now, so that the first answer finds a caller that knows the stream.
    try:
        stream.begin()
    except BaseException:
        stream.abort()
        raise
    return stream, protocol


class _Stream(asyncio.Protocol, AbstractStreamTransport):  # type: ignore[misc]
    """The loop's transport as pika sees it, and pika's protocol as the loop sees it."""

    def __init__(self, protocol: AbstractStreamProtocol) -> None:
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._has_begun = False
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Have pika speak first, as AMQP's clients do. Raises OSError if the connection is gone already."""
        if self._transport is None:
            raise ConnectionResetError("the connection was lost at once") from self._error
        self._has_begun = True
        self._protocol.connection_made(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), FEED_BYTES_MAX):
                if self._transport is None or self._transport.is_closing():
                    return
                self._protocol.data_received(data[start : start + FEED_BYTES_MAX])
        except Exception as error:  # noqa: BLE001  # it ends the connection, and pika says which error did
            self._error = error
            self.abort()

    def eof_received(self) -> None:
        if self._has_begun:
            self._protocol.eof_received()
        # Close the socket ourselves: the loop would first send its buffer.
        self.abort()

    def connection_lost(self, error: BaseException | None) -> None:
        self._transport = None
        self._error = self._error or error
        if self._has_begun:
            self._protocol.connection_lost(self._error)

    def abort(self) -> None:
        """Drop the socket silently; pika learns of it in a later turn of the loop."""
        if self._transport is not None:
            self._transport.abort()

    def get_protocol(self) -> AbstractStreamProtocol:
        return self._protocol

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()


class _Linking(AbstractIOReference):  # type: ignore[misc]
    """A stream that is being set up."""

    def __init__(
        self,
        linking: Coroutine[Any, Any, _Linked],
        sock: socket.socket,
        on_done: Callable[[_Linked | BaseException], None],
    ) -> None:
        self._sock = sock
        self._on_done = on_done
        self._is_over = False
        self._task = asyncio.ensure_future(linking)
        self._task.add_done_callback(self._finish)

    def cancel(self) -> bool:
        """Cancel the setup; False: it is too late for that."""
        if self._is_over:
            return False
        self._is_over = True
        self._task.cancel()
        return True

    def _finish(self, task: "asyncio.Task[_Linked]") -> None:
        error = None if task.cancelled() else task.exception()
        is_linked = error is None and not task.cancelled()
        if not is_linked:
            # No transport has it yet to close it, for example when the task was cancelled before its first step.
            self._sock.close()
        if self._is_over:
            if is_linked:
                task.result()[0].abort()
            return
        self._is_over = True
        self._on_done(task.result() if is_linked else error or ConnectionAbortedError("the loop is ending"))
