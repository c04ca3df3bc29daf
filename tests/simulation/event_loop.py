"""An event loop on the world's time, whose turns an actor takes: for the product's code that is asynchronous."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.world import World


class SimulatedLoop(asyncio.BaseEventLoop):
    """Callbacks, timers and tasks; no sockets and no threads."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.failed: list[str] = []

    def time(self) -> float:
        return self._world.now

    def turn(self) -> bool:
        """Call back what is due; False: nothing is."""
        loop: Any = self
        scheduled, ready = loop._scheduled, loop._ready
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= self._world.now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                ready.append(handle)
        if not ready:
            return False
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            asyncio._set_running_loop(None)
        return True

    def due_at(self) -> float:
        """When there is something to call back."""
        loop: Any = self
        if loop._ready:
            return self._world.now
        return min((handle._when for handle in loop._scheduled if not handle._cancelled), default=NEVER)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failed.append(f"{context.get('message')}: {context.get('exception')!r}")

    def end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """As if the process were killed: nothing of it goes on."""
        loop: Any = self
        for task in tasks:
            pending: Any = task
            pending._log_destroy_pending = False
            coroutine: Any = task.get_coro()
            coroutine.close()
        loop._ready.clear()
        loop._scheduled.clear()
        self.close()


class WorldClock:
    """In place of the module `time`."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.time = wall
