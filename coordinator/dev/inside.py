"""The helpers of a run in one process: each is served in a thread of its own, on its own port."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from coordinator.dev.plan import PlannedHelper
from coordinator.dev.servers.addresses import HOST
from coordinator.runtime.telling import tell
from coordinator.service.errors import ConfigurationError

_STOP_TIMEOUT_S = 0.5
"""A stand-in's answers that are under way are worth no wait."""


@asynccontextmanager
async def served_inside(planned: PlannedHelper) -> AsyncIterator[None]:
    """Serve it while the block runs. What blocks in it blocks nothing else of the process.

    Raises ConfigurationError if it cannot be started.
    """
    serving = _ServedThread(planned)
    try:
        await asyncio.to_thread(serving.start)
        yield
    finally:
        await asyncio.to_thread(serving.stop)


class _ServedThread:
    def __init__(self, planned: PlannedHelper) -> None:
        self._planned = planned
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_to_stop: asyncio.Event | None = None
        self._problem: Exception | None = None
        # No end of the process waits for it.
        self._thread = threading.Thread(target=self._run, name=planned.helper.name, daemon=True)

    def start(self) -> None:
        """Return once it listens. Raises ConfigurationError."""
        self._thread.start()
        self._begun.wait()
        if self._problem is not None:
            raise ConfigurationError(f"{self._planned.helper.title} cannot be started: {self._problem}")

    def stop(self) -> None:
        """Return once it has ended."""
        if self._is_to_stop is not None:
            tell(self._loop, self._is_to_stop.set)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  # whoever starts it says so
            self._problem = error
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        make = self._planned.helper.application
        assert make is not None, "it is planned for one process"
        self._loop, self._is_to_stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(make(self._planned.place), access_log=None, shutdown_timeout=_STOP_TIMEOUT_S)
        try:
            await runner.setup()
            await web.TCPSite(runner, HOST, self._planned.place.port).start()
            self._begun.set()
            await self._is_to_stop.wait()
        finally:
            # Nobody stops it any more: its loop is about to be closed.
            self._loop = None
            await runner.cleanup()
