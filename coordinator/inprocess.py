"""`Writes` without a broker: the lanes run in this process, each on a thread. For monoliths and for tests.

The guarantees are those of the lanes; what a broker would add is missing: a command that is under way when the process
dies is either settled or was never there, and whoever issued it must issue it again, with the same id.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog

from coordinator.inbox import Inbox
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Clock, Lane
from coordinator.process import utc_now
from coordinator.stores.port import Store
from coordinator.worker import LaneWorker
from shared.errors import BrokerUnavailable, CommandPending
from shared.lane_tables import OutboxEntry
from shared.messaging.outcome import Outcome
from shared.messaging.wire import CommandMessage
from shared.service import Service
from shared.settings import LaneSettings

log = structlog.get_logger("inprocess")


class InProcessWrites:
    """Implements `Writes` with lanes of this process. Used within one event loop, as an async context manager."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        services: Sequence[Service],
        settings: LaneSettings | None = None,
        clock: Clock = utc_now,
    ) -> None:
        settings = settings or LaneSettings()
        self._lanes = {
            service.name: _LocalLane(self, service, stores[service.name], settings, clock)
            for service in services
            if service.name in stores
        }
        self._settings = settings
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for lane in self._lanes.values():
            lane.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes.values():
            await asyncio.to_thread(lane.stop, self._settings.stop_timeout_s)
        self._loop = None

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        local = self._lanes.get(lane)
        if local is None or self._loop is None:
            raise BrokerUnavailable(f"this process runs no lane {lane!r}")
        number = next(self._numbers)
        waiting: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting[str(number)] = waiting
        local.deliver(Delivery(tag=number, commands=(message,), reply_to="here", correlation_id=str(number)))
        try:
            if wait_s != 0:
                await asyncio.wait({waiting}, timeout=wait_s)
            if not waiting.done():
                raise CommandPending(message.command_id or "")
            return waiting.result()
        finally:
            self._waiting.pop(str(number), None)
            waiting.cancel()

    def deliver_emitted(self, entry: OutboxEntry) -> bool:
        """Hand an emitted command to its lane; False if this process does not run it."""
        local = self._lanes.get(entry.lane)
        if local is not None:
            message = CommandMessage(command_id=entry.command_id, type=entry.type, arguments=entry.arguments)
            local.deliver(Delivery(tag=next(self._numbers), commands=(message,)))
        return local is not None

    def resolve(self, settlement: Settlement) -> None:
        """Give outcomes to those who wait for them. Called by a lane's thread."""
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._resolve, settlement)

    def _resolve(self, settlement: Settlement) -> None:
        for reply in settlement.replies:
            waiting = self._waiting.get(reply.correlation_id or "")
            if waiting is not None and not waiting.done():
                waiting.set_result(reply.outcomes[0])


class _LocalLane:
    """One lane with its thread. Implements `Settler`."""

    def __init__(
        self, writes: InProcessWrites, service: Service, store: Store, settings: LaneSettings, clock: Clock
    ) -> None:
        self._writes = writes
        self._store = store
        self._inbox = Inbox()
        self._generation = self._inbox.begin_generation()
        self._projection = service.projection() if service.projection is not None else None
        lane = Lane(service, store, clock, f"in-process {service.name}", settings, time.monotonic)
        self._worker = LaneWorker(service.name, lane, self._inbox, self, self._projection, settings)
        self._thread = threading.Thread(target=self._worker.run, name=f"lane {service.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._inbox.close()
        self._thread.join(timeout_s)
        if self._projection is not None:
            self._projection.close()
        self._store.close()

    def deliver(self, delivery: Delivery) -> None:
        self._inbox.put(self._inbox.generation, lambda: delivery)

    def settle(self, generation: int, settlement: Settlement) -> None:  # noqa: ARG002  # there is one channel only
        for letter in settlement.dead_letters:
            log.error(
                "command_failed",
                command_id=letter.message.command_id,
                type=letter.message.type,
                code=letter.code,
                reason=letter.reason,
                traceback=letter.traceback,
            )
        self._writes.resolve(settlement)
        self.publish_emitted(settlement.emitted)

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        delivered = [entry for entry in entries if self._writes.deliver_emitted(entry)]
        if delivered:
            self._worker.confirm_emitted(delivered)

    def stand_by(self, generation: int) -> None:
        """Another process has taken the lane over: what is under way here is for its issuers to repeat."""
        if generation == self._generation:
            log.error("lane_lost", reason="another process took the lane over")
            self._inbox.close()
