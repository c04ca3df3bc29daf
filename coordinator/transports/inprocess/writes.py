"""`Writes` without a broker: the lanes run in this process, each on a thread. For monoliths and for tests.

The guarantees are those of the lanes; what a broker would add is missing: a command that is under way when the process
dies is either settled or was never there, and whoever issued it must issue it again, with the same id.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import structlog

from coordinator.client.writes import check_id
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import message_of
from coordinator.lane.tenancy import Clock
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import EffectSettings, LaneSettings
from coordinator.service.commands import Command
from coordinator.service.errors import BrokerUnavailable, CommandPending, OutcomeUnknown
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome
from coordinator.service.service import Service
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.port import Store
from coordinator.transports.inprocess.effects import LocalEffects
from coordinator.worker.inbox import Inbox
from coordinator.worker.outbox_watch import left_in_outbox, marker_of
from coordinator.worker.process import utc_now
from coordinator.worker.worker import LaneWorker

log = structlog.get_logger("inprocess")


class InProcessWrites:
    """Implements `Writes` with lanes of this process. Used within one event loop, as an async context manager."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        services: Sequence[Service],
        settings: LaneSettings | None = None,
        clock: Clock = utc_now,
        effect_settings: EffectSettings | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """`targets` are the lanes and effects that there are anywhere; None: nobody here knows them all."""
        settings = settings or LaneSettings()
        self._services = services
        self._effect_settings = effect_settings or EffectSettings()
        self._effects: LocalEffects | None = None
        self._emitted: dict[int, tuple[_LocalLane, OutboxEntry]] = {}
        self._origins: dict[str, _LocalLane] = {}
        self._lanes = {
            service.name: _LocalLane(self, service, stores[service.name], settings, clock, targets)
            for service in services
            if service.name in stores
        }
        self._settings = settings
        self.numbers = itertools.count(1)
        self._waiting: dict[str, _Waiting] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        here = [service for service in self._services if service.name in self._lanes]
        self._effects = LocalEffects(here, self._effect_settings, self._tell_lane)
        for lane in self._lanes.values():
            lane.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._effects is not None:
            await self._effects.close()
        for lane in self._lanes.values():
            await asyncio.to_thread(lane.stop, self._settings.stop_timeout_s)
        self._loop = None

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        local = self._lanes.get(lane)
        if local is None or self._loop is None:
            raise BrokerUnavailable(f"this process runs no lane {lane!r}")
        if local.lost_reason is not None:
            raise BrokerUnavailable(local.lost_reason)
        check_id(message)
        number = next(self.numbers)
        waiting: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting[str(number)] = _Waiting(lane, message.command_id or "", waiting)
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

    def deliver_emitted(self, origin: "_LocalLane", entry: OutboxEntry, *, is_inherited: bool) -> None:
        """Hand an emitted command to its lane, or an effect to those who carry it out, if this process has them.

        It leaves the outbox once it is settled there: until then a crash would lose it.
        """
        if self._effects is not None and self._loop is not None and self._effects.has(entry.lane):
            self._origins[entry.command_id] = origin
            self._loop.call_soon_threadsafe(self._effects.begin, entry, is_inherited)
            return
        self._deliver(origin, entry, entry.lane, message_of(entry))

    def _tell_lane(self, entry: OutboxEntry, lane: str, command_id: str, told: Command) -> None:
        """Bring what came of an effect to its lane."""
        message = CommandMessage(command_id=command_id, type=told.type, arguments=told.arguments(), origin="system")
        self._deliver(self._origins.pop(entry.command_id), entry, lane, message)

    def _deliver(self, origin: "_LocalLane", entry: OutboxEntry, lane: str, message: CommandMessage) -> None:
        local = self._lanes.get(lane)
        if local is not None:
            tag = next(self.numbers)
            self._emitted[tag] = origin, entry
            local.deliver(Delivery(tag=tag, commands=(message,)))

    def resolve(self, settlement: Settlement) -> None:
        """Give outcomes to those who wait for them. Called by a lane's thread."""
        for tag in settlement.tags:
            origin, entry = self._emitted.pop(tag, (None, None))
            if origin is not None and entry is not None:
                origin.confirm_emitted(entry)
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._resolve, settlement)

    def _resolve(self, settlement: Settlement) -> None:
        for reply in settlement.replies:
            waiting = self._waiting.get(reply.correlation_id or "")
            if waiting is not None and not waiting.outcome.done():
                waiting.outcome.set_result(reply.outcomes[0])

    def lost(self, lane: str, reason: str) -> None:
        """A lane is run here no more: whoever waits for it learns nothing else. Called by its thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._fail_waiting, lane, reason)

    def _fail_waiting(self, lost: str, reason: str) -> None:
        for waiting in self._waiting.values():
            if waiting.lane == lost and not waiting.outcome.done():
                text = f"command {waiting.command_id} may be applied: {reason}"
                waiting.outcome.set_exception(OutcomeUnknown(text))


class _Waiting(NamedTuple):
    """Somebody who waits for the outcome of a command that was handed to a lane."""

    lane: str
    command_id: str
    outcome: asyncio.Future[Outcome]


class _LocalLane:
    """One lane with its thread. Implements `Settler`."""

    def __init__(
        self,
        writes: InProcessWrites,
        service: Service,
        store: Store,
        settings: LaneSettings,
        clock: Clock,
        targets: Collection[str] | None,
    ) -> None:
        self.name = service.name
        self.lost_reason: str | None = None
        """Why this process runs the lane no more; None: it does."""
        self._writes = writes
        self._store = store
        self._inbox = Inbox()
        self._generation = self._inbox.begin_generation()
        self._projection = service.projection() if service.projection is not None else None
        self._lane = Lane(service, store, clock, f"in-process {service.name}", settings, time.monotonic, targets)
        self._worker = LaneWorker(service.name, self._lane, self._inbox, self, self._projection, settings)
        self._thread = threading.Thread(target=self._run, name=f"lane {service.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            left = left_in_outbox(self._store)
            oldest_id = new_command_id() if left is None else left.oldest_id
            if oldest_id is not None:
                # With a delivery the lane takes over, and so publishes what the process before it left. If the database
                # is away there may be something: the lane waits for it.
                self.deliver(Delivery(tag=next(self._writes.numbers), commands=(marker_of(oldest_id),)))
            self._worker.run()
        except Exception as error:
            log.exception("lane_failed", lane=self.name)
            self._lose(
                f"lane {self.name} has ended by a defect, {type(error).__name__}: {error}; once the process has been "
                "restarted, issue the command again with the same id"
            )

    def stop(self, timeout_s: float) -> None:
        self._inbox.close()
        self._thread.join(timeout_s)
        if self._projection is not None:
            self._projection.close()
        self._store.close()

    def deliver(self, delivery: Delivery) -> None:
        self._inbox.put(self._inbox.generation, lambda: delivery)

    def settle(self, generation: int, settlement: Settlement) -> None:  # noqa: ARG002  # there is one channel only
        self._writes.resolve(settlement)
        self.publish_emitted(settlement.emitted)

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        for entry in entries:
            self._writes.deliver_emitted(self, entry, is_inherited=self._lane.is_inherited(entry))

    def confirm_emitted(self, entry: OutboxEntry) -> None:
        self._worker.confirm_emitted([entry])

    def stand_by(self, generation: int) -> None:
        """Another process has taken the lane over: what is under way here is for its issuers to repeat."""
        if generation == self._generation:
            log.error("lane_lost", lane=self.name, reason="another process took the lane over")
            self._lose(
                f"another process took lane {self.name} over: issue commands there, those that were issued here with "
                "the same id"
            )

    def _lose(self, reason: str) -> None:
        self.lost_reason = reason
        self._inbox.close()
        self._writes.lost(self.name, reason)
