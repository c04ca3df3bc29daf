"""`Writes` without a broker: the lanes run in this process, each on a thread. For monoliths and for tests.

An accepted command is on disk: it has its outcome, or is in its lane's journal (coordinator/transports/inprocess).
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self
from uuid import uuid4

import structlog

from coordinator.effects.worker import EffectWorker
from coordinator.lane.delivery import Settlement
from coordinator.lane.high_water import Mark
from coordinator.lane.outbox import message_of
from coordinator.lane.tenancy import Clock
from coordinator.protocol.issuing import issuable
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import targets_of
from coordinator.runtime.addresses import WITHOUT_SERVER, parse_address
from coordinator.runtime.clock import utc_now
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import EffectSettings, LaneSettings
from coordinator.runtime.telling import tell
from coordinator.service.effect_defects import opened_effects
from coordinator.service.errors import BrokerUnavailable, CommandPending, OutcomeUnknown
from coordinator.service.outcome import Outcome
from coordinator.service.outside_calls import Effects, effects_key
from coordinator.service.service import Service
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.open import open_admin
from coordinator.stores.port import Store
from coordinator.transports.inprocess.at_hand import AtHand, CallsAtHand
from coordinator.transports.inprocess.effects import LocalEffects
from coordinator.transports.inprocess.queue import QUEUE_BYTES_MAX
from coordinator.transports.port import Transport
from coordinator.worker.bridge import LaneBridge, is_outside
from coordinator.worker.database_watch import DatabaseWatch
from coordinator.worker.declaration_check import check_services
from coordinator.worker.local_lane import LocalLane
from coordinator.worker.retention import retentions_of
from coordinator.worker.waiting_issuer import WaitingIssuer

WAIT_S = 30.0
"""How long `issue` waits for an outcome by default."""

log = structlog.get_logger("inprocess")


class InProcessWrites:
    """Implements `CommandTransport` with lanes of this process. Used within one event loop."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        services: Sequence[Service],
        settings: LaneSettings | None = None,
        clock: Clock = utc_now,
        effect_settings: EffectSettings | None = None,
        targets: Collection[str] | None = None,
        *,
        directory: Path | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        addresses: Mapping[str, str] | None = None,
        broker: Transport | None = None,
    ) -> None:
        """`targets` are all lanes and effects of the system; None: they are those of this process where one is a
        tenant's, and else they are not known here.

        `directory` holds a file for each lane, with the accepted commands that are not settled. None: the file is
        beside the lane's database if that is an SQLite file, and other lanes have none. Without a file a command is
        safe only once it has its outcome, and `issue` raises OutcomeUnknown instead of CommandPending.

        `addresses` of the lanes' databases: each lane removes what is too old on a connection of its own, and compares
        the clock of a server's with its own. Raises ConfigurationError if one is missing where a setting asks for
        retention, or a service is declared wrongly.

        By `broker` these lanes reach those that run elsewhere, and are reached by them; None: there are no others.
        """
        check_services(*services)
        if targets is None and any(service.tenant is not None for service in services):
            targets = targets_of(services)
        self._targets: Collection[str] = targets or ()
        self._settings = settings or LaneSettings()
        self._services = services
        self._effect_settings = effect_settings or EffectSettings()
        self._effects: dict[str, LocalEffects] = {}
        self._workers: dict[str, EffectWorker] = {}
        self._lasting: list[asyncio.Task[Any]] = []
        """Tasks that end only by a defect: workers of effects, and retention."""
        self._telling: list[asyncio.Task[None]] = []
        self._opened: list[Effects] = []
        self._on_settled: dict[tuple[str, int], Callable[[], object]] = {}
        self._under_way: set[tuple[str, int]] = set()
        """Outbox entries that are in another lane's queue already: a lane whose lease was in doubt emits them again."""
        self._lanes = {
            service.lane: LocalLane(
                self, service, stores[service.lane], self._settings, clock, targets, directory, queue_bytes_max
            )
            for service in services
            if service.lane in stores
        }
        self._bridges = {
            name: LaneBridge(lane, broker, self._settings) for name, lane in self._lanes.items() if broker is not None
        }
        leases = {lane.name: lane.lease for lane in self._lanes.values()}
        self._retentions = retentions_of(leases, addresses or {}, self._settings, clock)
        self._watches = [
            DatabaseWatch(name, partial(open_admin, url, name), counts=False, clock=clock)
            for name, url in (addresses or {}).items()
            if name in self._lanes and parse_address(url).scheme not in WITHOUT_SERVER
        ]
        self._waiting: dict[str, WaitingIssuer] = {}
        # A lane writes down to whom it owes the outcome of a command that waits: the next process is somebody else.
        self._name = uuid4().hex
        self._issued = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        return not self.unready_reason

    @property
    def problem(self) -> str | None:
        return self.problem_of(self._lanes)

    def problem_of(self, lanes: Iterable[str]) -> str | None:
        """`problem`, as far as these lanes go."""
        if self._loop is None:
            return "it is not started"
        return next((problem for name in lanes if (problem := self._lanes[name].problem) is not None), None)

    @property
    def account(self) -> None:
        """Nobody's: these lanes believe whoever issues commands here."""

    @property
    def unready_reason(self) -> str:
        return self.unready_reason_of(self._lanes)

    def unready_reason_of(self, lanes: Iterable[str]) -> str:
        """`unready_reason`, as far as these lanes go."""
        if self._loop is None:
            return "it is not started"
        return next((reason for name in lanes if (reason := self._lanes[name].unready_reason) is not None), "")

    @property
    def bridge_problem(self) -> str | None:
        """Why these lanes do not reach others, or are not reached by them; None: they do, or there are no others."""
        return next((why for bridge in self._bridges.values() if (why := bridge.unready_reason) is not None), None)

    def pending(self, command_id: str) -> bool:
        return self.pending_in(self._lanes, command_id)

    def pending_in(self, lanes: Iterable[str], command_id: str) -> bool:
        """`pending`, as far as these lanes go."""
        return any(self._lanes[name].pending(command_id) for name in lanes)

    def settled_place(self, command_id: str) -> None:
        """These lanes' databases are read where they are written: none lags behind an outcome."""

    async def waiting(self, lane: str) -> int | None:
        return self._lanes[lane].queue.waiting if lane in self._lanes else None

    def at_hand(self, lane: str) -> AtHand:
        """What this process knows of a lane. Raises BrokerUnavailable where it does not run it."""
        if lane not in self._lanes:
            raise BrokerUnavailable(f"this process runs no lane {lane!r}")
        local = self._lanes[lane]
        mark = local.queue.mark
        acknowledged, lineage, last = (None, None, None) if mark is None else (mark.sequence, mark.lineage, mark.last)
        reason = local.queue.unready_reason
        return AtHand(
            local.queue.waiting,
            local.suspended_reason,
            reason,
            acknowledged,
            local.holder,
            self._calls_at_hand(lane),
            local.suspended_cause,
            lineage,
            last,
        )

    def _calls_at_hand(self, lane: str) -> CallsAtHand | None:
        if lane not in self._workers:
            return None
        worker = self._workers[lane]
        return CallsAtHand(
            under_way=worker.under_way,
            waiting=worker.in_turn + self._effects[effects_key(lane)].waiting,
            oldest_s=worker.oldest_s,
            is_provider_away=worker.is_provider_away,
            trouble=worker.trouble,
        )

    async def start(self) -> None:
        """Run the lanes. Raises ConfigurationError if another process has a journal, or a database is unfit."""
        try:
            for lane in self._lanes.values():
                self._telling.append(asyncio.create_task(lane.late.run(), name=f"late answers of {lane.name}"))
                self._telling.append(asyncio.create_task(lane.lock_watch.run(), name=f"lock watch of {lane.name}"))
                await lane.check()
                lane.open()
            self._loop = asyncio.get_running_loop()
            for service in self._services:
                if service.lane in self._lanes and service.effects is not None:
                    self._work(service, opened_effects(service))
            # A lane emits to others as soon as it runs: what they have accepted before must be in their queues by then.
            for lane in self._lanes.values():
                lane.deliver()
            for lane in self._lanes.values():
                lane.start()
            for bridge in self._bridges.values():
                bridge.start()
                self._lasting.append(asyncio.create_task(bridge.failed(), name="bridge"))
            self._lasting += [asyncio.create_task(each.run(), name="retention") for each in self._retentions]
            self._telling += [asyncio.create_task(each.run(), name="database watch") for each in self._watches]
        except BaseException:
            await self.close()
            raise

    async def wait_connected(self, timeout_s: float) -> None:  # noqa: ARG002
        """Return at once: its lanes take commands once it is started, also while a database is away, or are lost for
        good."""
        if self._loop is None:
            raise BrokerUnavailable(self.unready_reason)
        for lane in self._lanes.values():
            if (reason := lane.untaken_reason) is not None:
                raise BrokerUnavailable(reason)

    async def failed(self) -> NoReturn:
        """Raise the defect of an effect worker or of a retention. A lane that is lost ends no other (`connected`)."""
        if self._lasting:
            done, _ = await asyncio.wait(self._lasting, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                await ended
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def close(self) -> None:
        """Calls under way are left: the next process makes them again, with the same keys."""
        await end_tasks(*self._lasting, *self._telling)
        for bridge in self._bridges.values():
            bridge.end_intake()
        for effects in self._opened:
            await effects.close()
        for lane in self._lanes.values():
            await asyncio.to_thread(lane.stop, self._settings.stop_timeout_s)
        for bridge in self._bridges.values():
            await asyncio.to_thread(bridge.stop, self._settings.stop_timeout_s)
        for lane in self._lanes.values():
            await lane.close()
        self._loop = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        message = issuable(message)
        local = self._lanes.get(lane)
        if local is None or self._loop is None:
            raise BrokerUnavailable(f"this process runs no lane {lane!r}")
        if local.lost_reason is not None:
            raise BrokerUnavailable(local.lost_reason)
        self._issued += 1
        correlation_id = f"{self._name}.{self._issued}"
        issuer = self._waiting[correlation_id] = WaitingIssuer(lane, message.command_id or "", self._loop)
        try:
            number = local.queue.put(message, correlation_id)
            if wait_s != 0 and (outcome := await issuer.wait(WAIT_S if wait_s is None else wait_s)) is not None:
                return outcome
            late = issuer.outcome
            await local.queue.accept_unless(late, number, message)
            is_lost = late.done() and late.exception() is not None
            if not late.done() or (wait_s == 0 and not is_lost):
                raise CommandPending(message.command_id or "")
            return late.result()
        finally:
            del self._waiting[correlation_id]
            issuer.outcome.cancel()

    def takes_at_once(self, target: str) -> bool:
        return target in self._lanes or target in self._effects

    def deliver_emitted(self, origin: LocalLane, entry: OutboxEntry, *, is_inherited: bool) -> None:
        """Hand an emitted command to its lane, or an effect to its worker, if this process has them.

        It leaves the outbox once it is settled there: until then a crash would lose it.
        """
        is_done = partial(origin.queue.confirm_emitted, [entry])
        effects, local = self._effects.get(entry.lane), self._lanes.get(entry.lane)
        if effects is not None and self._loop is not None:
            put = partial(effects.put, origin.name, entry, is_done, is_inherited=is_inherited)
            tell(self._loop, put)
        elif local is not None and (key := (origin.name, entry.id)) not in self._under_way:
            self._under_way.add(key)
            self._put(local, message_of(entry), partial(self._emitted_is_settled, key, is_done))
        elif effects is None and local is None and (bridge := self._bridges.get(origin.name)) is not None:
            bridge.publish_emitted([entry])

    def _emitted_is_settled(self, key: tuple[str, int], is_done: Callable[[], None]) -> None:
        # First: once its lane knows, it may hand out what it reads again. Nobody would, if it were taken for under way.
        self._under_way.discard(key)
        is_done()

    def _put(self, local: LocalLane, message: CommandMessage, on_settled: Callable[[], object]) -> None:
        """Hand a command of the system's to a lane, whose thread calls `on_settled`."""
        with local.numbering:
            number = local.queue.put(message, is_bounded=False)
            self._on_settled[local.name, number] = on_settled

    def _work(self, service: Service, effects: Effects) -> None:
        """Carry out the effects of a service."""
        name, settings = service.lane, self._effect_settings
        transport = self._effects[effects_key(name)] = LocalEffects(name, settings.held_max, self._bring)
        upgrades, lanes = service.declared_upgrades, self._targets
        worker = EffectWorker(name, effects, transport, settings, upgrades=upgrades, lanes=lanes)
        self._workers[name] = worker
        self._opened.append(effects)
        self._lasting.append(asyncio.create_task(worker.run(asyncio.Event()), name=f"effects of {name}"))

    async def _bring(self, lane: str, message: CommandMessage) -> None:
        """Bring the result of an effect to its lane. Return once it is settled there."""
        settled = asyncio.Event()
        local = self._lanes.get(lane)
        if local is None:
            log.warning("result_not_taken", target=lane, command_id=message.command_id, type=message.type)
        else:
            self._put(local, message, lambda: tell(self._loop, settled.set))
        await settled.wait()

    def reply(self, lane: LocalLane, settlement: Settlement) -> None:
        """Give outcomes to the issuers that wait for them. Called by a lane's thread."""
        with lane.numbering:
            # Only what was emitted has somebody who waits for its settlement itself.
            tags = settlement.tags if self._on_settled else ()
            settled = [self._on_settled.pop((lane.name, tag), None) for tag in tags]
        for on_settled in filter(None, settled):
            on_settled()
        bridge = self._bridges.get(lane.name)
        if bridge is not None:
            bridge.settle(settlement)
        # Where that loop is closed nobody waits: a program that ends may leave lanes behind.
        tell(self._loop, self._set_outcomes, settlement)

    def has_come(self, lane: LocalLane, mark: Mark) -> None:
        bridge = self._bridges.get(lane.name)
        if bridge is not None:
            bridge.keep(mark)

    def _set_outcomes(self, settlement: Settlement) -> None:
        for reply in settlement.replies:
            if is_outside(reply):
                continue
            waiting = self._waiting.get(reply.correlation_id or "")
            if waiting is not None and not waiting.outcome.done():
                waiting.outcome.set_result(reply.outcomes[0])

    def lost(self, lane: str, reason: str) -> None:
        """Fail every issuer that waits for a lane that this process has lost. Called by the lane's thread."""
        if lane in self._bridges:
            self._bridges[lane].leave()
        tell(self._loop, self._fail_waiting, lane, reason)

    def _fail_waiting(self, lost: str, reason: str) -> None:
        for waiting in self._waiting.values():
            if waiting.lane == lost and not waiting.outcome.done():
                text = f"command {waiting.command_id} may be applied: {reason}"
                waiting.outcome.set_exception(OutcomeUnknown(text))
