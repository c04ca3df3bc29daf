"""Handshakes of TLS, which count as connections whose clients are in the middle of sending something.

An event loop tells of a connection once its handshake is done. So those of which it never is would count nowhere: a few
hundred a second that say nothing would take all open files of the process, and nobody else came in. Here each counts
from its first moment, and gives way as one does whose head is on its way.

It derives from protocols of asyncio and uvloop that are not public, since with `loop.start_tls` uvloop hands what a
client sends at once to the protocol before it, `pause_reading` or not, and one handshake in twenty then never ends.
"""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from functools import cache
from typing import Any, Final, Protocol, cast

from coordinator.http.since import Since
from coordinator.runtime.settings import GatewaySettings

CLOSING_S: Final = 2.0
"""How long a client may take to end TLS, before its connection is closed all the same."""


class Counting(Protocol):
    """Counts the connections of a port: `Connections`."""

    @property
    def settings(self) -> GatewaySettings:
        """The limits."""

    @property
    def sending(self) -> Since[Any]:
        """Those whose clients are in the middle of sending something."""

    def admit(self, connection: "Handshake") -> bool:
        """Count a new one; False: there is no room for it."""

    def forget(self, connection: "Handshake") -> None:
        """It is closed, or what follows it is counted."""

    def count(self, reason: str) -> None:
        """It was ended, by why."""


class Following(Protocol):
    """What follows a handshake that is done: `Connection`, which then has its `connection_made` called."""

    handshake: "Handshake | None"

    @property
    def limits(self) -> Counting:
        """What counts it."""


class Handshake:
    """One handshake: what is added to an event loop's own protocol for TLS."""

    is_idle = False

    def __init__(self, connection: Following, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._transport_below: asyncio.Transport | None = None
        self.is_surplus = False
        protocol: Any = super()
        protocol.__init__(
            asyncio.get_running_loop(),
            connection,
            context,
            None,
            server_side=True,
            # `check` ends it before.
            ssl_handshake_timeout=2 * self._limits.settings.head_timeout_s,
            ssl_shutdown_timeout=CLOSING_S,
        )
        connection.handshake = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not inherit from asyncio's.
        below = self._transport_below = cast(asyncio.Transport, transport)
        if not self._limits.admit(self):
            below.abort()
            return
        protocol: Any = super()
        protocol.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._limits.forget(self)
        protocol: Any = super()
        protocol.connection_lost(exc)

    def idle_until_s(self) -> float:
        """It is never idle."""
        return 0.0

    def check(self, now: float) -> None:
        """End it if it takes too long."""
        if self._limits.sending.for_s(self, now) > self._limits.settings.head_timeout_s:
            self._limits.count("head_timeout")
            self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._limits.forget(self)
        if self._transport_below is not None:
            self._transport_below.abort()


def handshake_of(connection: Following, context: ssl.SSLContext) -> asyncio.BaseProtocol:
    """What is to be told of a connection to a port with TLS; once its handshake is done, `connection` is."""
    packages = {each.__module__.partition(".")[0] for each in type(asyncio.get_running_loop()).mro()}
    made = _class_for("uvloop" if "uvloop" in packages else "asyncio")(connection, context)
    return cast(asyncio.BaseProtocol, made)


@cache
def _class_for(package: str) -> type[Handshake]:
    """By the package of the event loop: uvloop has a protocol for TLS of its own, which is the faster one."""
    base: Any = SSLProtocol
    if package == "uvloop":
        # It is in no stub, and not there on every platform.
        import uvloop.loop as own  # noqa: PLC0415

        base = vars(own).get("SSLProtocol", base)
    return type("Handshake", (Handshake, base), {})
