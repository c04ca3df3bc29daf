"""The port at which a process says how it is: /healthz, /readyz, /metrics; a gateway has only its metrics there."""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from msgspec import Struct

if TYPE_CHECKING:
    from aiohttp import web

from coordinator.runtime.bounded_port import BoundedPort
from coordinator.runtime.build_info import show_build
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.secret_files import SECRET_FILES
from coordinator.runtime.server_tls import ServerTls
from coordinator.runtime.settings import TelemetrySettings
from coordinator.service.errors import ConfigurationError


class Readiness(Struct, frozen=True):
    """Whether a process can do its work now. `reason` says why not, or what somebody else does not do for it."""

    is_ready: bool
    reason: str | None = None
    parts: "dict[str, Readiness] | None" = None
    """Of each lane, where the process runs several."""

    def said(self) -> dict[str, object]:
        """As `/readyz` says it."""
        return {"status": "ready" if self.is_ready else "unready", "reason": self.reason}


class HealthEndpoint:
    """Serves one process's health. `work` says what it does: `("lane", "orders")`, `("lanes", ["orders", "seats"])`.

    Without `readiness` only its metrics: a gateway says the rest at the port of its clients.
    """

    def __init__(
        self,
        work: tuple[str, str | Sequence[str]],
        readiness: Callable[[], Readiness] | None,
        settings: TelemetrySettings,
        port: int | None,
    ) -> None:
        """Raises ConfigurationError if it is to speak TLS, and cannot."""
        self._kind, self._name = work
        self._readiness = readiness
        self._settings = settings
        self._port = port
        self._runner: web.AppRunner | None = None
        self._listening: BoundedPort | None = None
        files = settings.server_files if port is not None else None
        self._tls = None if files is None else ServerTls("metrics", files)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen, if there is a port to listen on. Raises ConfigurationError if the port is not free.

        Files of secrets are looked at in any case: where there is no port, the log says that one has changed.
        """
        if self._readiness is not None:
            self._watching.append(asyncio.create_task(SECRET_FILES.watch(), name="files of secrets"))
        if self._port is None:
            return
        # Nobody needs a web server for a lane that nobody asks.
        from aiohttp import web  # noqa: PLC0415

        show_build()
        app = web.Application()
        if self._readiness is not None:
            app.router.add_get("/healthz", self._healthz)
            app.router.add_get("/readyz", partial(self._readyz, self._readiness))
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host = self._settings.metrics_host
        context = None if self._tls is None else self._tls.context
        name = self._name if isinstance(self._name, str) else ", ".join(self._name)
        self._listening = BoundedPort(cast(web.Server, self._runner.server), context, (self._kind, name))
        try:
            await self._listening.start(host, self._port)
        except (OSError, UnicodeError) as error:
            # The second: a name of a host that has no form in ASCII.
            reason = (isinstance(error, OSError) and error.strerror) or error
            is_of_host = isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL
            setting = "TELEMETRY_METRICS_HOST" if is_of_host else "--metrics-port"
            raise ConfigurationError(
                f"port {self._port} of {host!r} cannot be used for /metrics: {reason}; choose another with {setting}"
            ) from None
        if self._tls is not None:
            self._watching.append(asyncio.create_task(self._tls.watch(), name=f"certificate of {name}"))

    async def stop(self) -> None:
        """Stop listening."""
        await end_tasks(*self._watching)
        if self._listening is not None:
            await self._listening.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: "web.Request") -> "web.Response":
        from aiohttp import web  # noqa: PLC0415

        return web.json_response({"status": "alive", self._kind: self._name})

    async def _readyz(self, readiness: Callable[[], Readiness], _: "web.Request") -> "web.Response":
        from aiohttp import web  # noqa: PLC0415

        state = readiness()
        work = self._name if state.parts is None else {name: part.said() for name, part in state.parts.items()}
        body = state.said() | {self._kind: work}
        if self._tls is not None and self._tls.problem is not None:
            # What was read before still serves.
            body["certificate"] = self._tls.problem
        if SECRET_FILES.problem is not None:
            # The secret of before may still count.
            body["secrets"] = SECRET_FILES.problem
        return web.json_response(body, status=200 if state.is_ready else 503)


async def _metrics(_: "web.Request") -> "web.Response":
    from aiohttp import web  # noqa: PLC0415
    from prometheus_client import CONTENT_TYPE_LATEST  # noqa: PLC0415

    from coordinator.runtime.metrics_text import METRICS_TEXT  # noqa: PLC0415

    return web.Response(body=await METRICS_TEXT.latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
