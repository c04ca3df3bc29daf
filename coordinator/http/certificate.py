"""A gateway's certificate: a part of it that readiness shows."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from coordinator.http.keys import SERVICE_NAME
from coordinator.http.operations import CHECKS, Check
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.server_tls import ServerTls

TLS: Final = web.AppKey("TLS", ServerTls)


def serve_certificate(app: web.Application, tls: ServerTls) -> None:
    """Have the application served with TLS, and its files looked at while it runs."""

    async def problem() -> str | None:
        return None if tls.problem is None else "the certificate has expired, or its files cannot be used: see the log"

    async def watching(_app: web.Application) -> AsyncIterator[None]:
        watching = asyncio.create_task(tls.watch(), name=f"certificate of {app[SERVICE_NAME]}")
        yield
        await end_tasks(watching)

    app[TLS] = tls
    # What was read before still serves, so readiness only shows it.
    app[CHECKS].append(Check("certificate", problem, required=False, reason=lambda: str(tls.problem)))
    app.cleanup_ctx.append(watching)


def context_of(app: web.Application) -> ssl.SSLContext | None:
    """What its port speaks TLS with; None: it speaks HTTP."""
    return app[TLS].context if TLS in app else None
