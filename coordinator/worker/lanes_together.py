"""Several lanes in one process. Each has a thread with an event loop of its own, beside the threads that it has alone.

So a lane whose database, broker or handler hangs holds up no other's tasks. What they share is the main thread, with
signals and the health endpoint, the libraries in memory, and the processor.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence

import structlog

from coordinator.runtime.ending import end_tasks
from coordinator.runtime.health import HealthEndpoint, Readiness
from coordinator.runtime.loading import check_all
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings, LaneSettings, TelemetrySettings, load
from coordinator.runtime.stopping import stop_at_signals
from coordinator.runtime.telling import tell
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.worker.process import CoordinatorProcess

log = structlog.get_logger("coordinator")


class NeighbourLane:
    """One of the lanes of a process, on a thread of its own."""

    def __init__(self, service: Service, *, is_watched: bool, on_end: Callable[[], object]) -> None:
        """`on_end` is called once, by any thread, when the lane has ended. Raises ConfigurationError."""
        self.name = service.lane
        self.status: int | None = None
        """Its exit status; None: it runs."""
        self.is_stuck = False
        """It has ended, and threads of it may have not: they hold what its standbys wait for."""
        self._lane = CoordinatorProcess(service, is_watched=is_watched, stop_hard=self._leave)
        self._on_end = on_end
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name=f"coordinator {service.lane}", daemon=True)
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have it end; return at once. Called by another thread."""
        self._is_stopping = True
        if self._stop is not None:
            tell(self._loop, self._stop.set)

    def readiness(self) -> Readiness:
        """As alone; unready once it has ended."""
        return self._lane.readiness() if self.status is None else Readiness(False, self._reason)

    def _run(self) -> None:
        structlog.contextvars.bind_contextvars(lane=self.name)
        try:
            status, reason = asyncio.run(self._serve()), "it has ended: the log says why"
        except ConfigurationError as error:
            self.is_stuck = self._lane.is_stuck
            status, reason = 2, str(error)
        except Exception as error:
            log.exception("lane_failed", lane=self.name)
            # Nobody knows what of it still runs.
            self.is_stuck = True
            status, reason = 1, f"it has ended by a defect: {type(error).__name__}"
        self._end(status, reason)

    async def _serve(self) -> int:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_stopping:
            self._stop.set()
        return await self._lane.serve(self._stop)

    def _leave(self) -> None:
        """Its threads do not end."""
        self.is_stuck = True
        self._end(1, "it has ended, and its threads have not: the log says why")

    def _end(self, status: int, reason: str) -> None:
        if self.status is not None:
            return
        self._reason, self.status = reason, status
        if not self._is_stopping:
            log.error("lane_ended", lane=self.name, status=status, reason=reason)
        self._on_end()


class LanesTogether:
    """The lanes of one process, and what they share."""

    def __init__(self, services: Sequence[Service], metrics_port: int | None) -> None:
        """Raises ConfigurationError for what is wrong before anything runs, of whichever lane: none is started then."""
        own = [(DatabaseSettings, settings_prefix(service.lane)) for service in services]
        check_all(*own, (BrokerSettings, None), (LaneSettings, None), (TelemetrySettings, None))
        self._lanes = [
            NeighbourLane(service, is_watched=metrics_port is not None, on_end=self._note_end) for service in services
        ]
        warn_of_unknown(load(BrokerSettings), load(LaneSettings))
        names = [lane.name for lane in self._lanes]
        self._endpoint = HealthEndpoint(("lanes", names), self.readiness, load(TelemetrySettings), metrics_port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends = 0
        self._have_ended = asyncio.Event()
        self._is_over = asyncio.Event()
        """They have, or one is stuck: only the end of the process lets a standby take that lane over."""

    async def serve(self) -> int:
        """Run until SIGTERM, SIGINT or SIGHUP, until each lane has ended, or one is stuck.

        All of them are stopped at once then. Returns the worst of their exit statuses. Raises ConfigurationError if the
        metrics port is not free.
        """
        self._loop = asyncio.get_running_loop()
        stop = stop_at_signals(lanes=", ".join(lane.name for lane in self._lanes))
        try:
            await self._endpoint.start()
            for lane in self._lanes:
                lane.start()
            stopping, giving_up = asyncio.create_task(stop.wait()), asyncio.create_task(self._is_over.wait())
            await asyncio.wait({stopping, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            await end_tasks(stopping, giving_up)
            for lane in self._lanes:
                lane.stop()
            await self._have_ended.wait()
        finally:
            await self._endpoint.stop()
        status = max(lane.status or 0 for lane in self._lanes)
        if any(lane.is_stuck for lane in self._lanes):
            # Nothing is lost: unacknowledged commands are delivered again, and committed ones are in the log.
            os._exit(status)
        return status

    def readiness(self) -> Readiness:
        """Ready: all of them are. What each says is in the parts."""
        parts = {lane.name: lane.readiness() for lane in self._lanes}
        reason = next((f"lane {name}: {part.reason}" for name, part in parts.items() if not part.is_ready), None)
        return Readiness(reason is None, reason, parts)

    def _note_end(self) -> None:
        """Called once for each lane. The loop counts: it may close as soon as it knows the last of them."""
        tell(self._loop, self._count_end)

    def _count_end(self) -> None:
        self._ends += 1
        if self._ends == len(self._lanes):
            self._have_ended.set()
            self._is_over.set()
        elif any(lane.is_stuck for lane in self._lanes):
            self._is_over.set()


def run(services: Sequence[Service], metrics_port: int | None) -> int:
    """Run the lanes of several services in this process until SIGTERM, SIGINT or SIGHUP; return the exit status.

    Raises ConfigurationError.
    """
    return asyncio.run(LanesTogether(services, metrics_port).serve())
