"""The files of a gateway's secrets: a part of it that readiness shows."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from coordinator.http.keys import SERVICE_NAME
from coordinator.http.operations import CHECKS, Check
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.secret_files import SECRET_FILES


def watch_secrets(app: web.Application) -> None:
    """Have the files looked at whose secrets this process has read, for as long as the application runs."""

    async def problem() -> str | None:
        changed = SECRET_FILES.problem
        return None if changed is None else "a secret's file has changed since it was read: see the log"

    async def watching(_app: web.Application) -> AsyncIterator[None]:
        watching = asyncio.create_task(SECRET_FILES.watch(), name=f"secrets of {app[SERVICE_NAME]}")
        yield
        await end_tasks(watching)

    # The secret of before may still count, so readiness only shows it.
    app[CHECKS].append(Check("secrets", problem, required=False, reason=lambda: str(SECRET_FILES.problem)))
    app.cleanup_ctx.append(watching)
