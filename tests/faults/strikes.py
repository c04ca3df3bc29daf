"""Carries the plan out: strikes, heals, and measures takeovers."""

import asyncio
import os
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from time import monotonic

import aiohttp

from coordinator.dev.servers.server import Server
from coordinator.runtime.clock import utc_now
from tests.faults.broker import paused, strike_broker
from tests.faults.fleet import Fleet, Member, Slot
from tests.faults.nodes import NotWhole, strike_nodes, victims_of
from tests.faults.plan import LANES, OF_NODES, OF_REPLICAS, OF_THE_BROKER, REPLICATED, Fault, Kind
from tests.faults.proxies import Proxies
from tests.faults.proxy import AtCommit
from tests.faults.replicas import strike_replicas
from tests.faults.states import State, Struck, state_of
from tests.faults.tables import LeaseRow

AT_ONCE_MAX = 3
POLL_S = 0.01
TAKEOVER_TIMEOUT_S = 20.0
CLUSTERED_TAKEOVER_TIMEOUT_S = 30.0
"""A node's death has time limits of its own."""
CALM_TIMEOUT_S = 30.0
COMMIT_TIMEOUT_S = 2.0
SLOW_TAKEOVER_S = 1.0
FIND_ATTEMPTS = 5
OF_SERVERS = OF_THE_BROKER | OF_REPLICAS | {Kind.KILL_CACHE, Kind.PAUSE_CACHE, Kind.KILL_DATABASE, Kind.PAUSE_DATABASE}
_AT_COMMIT = {
    Kind.LOSE_COMMIT: AtCommit.LOSE_REQUEST,
    Kind.LOSE_COMMITTED: AtCommit.LOSE_ANSWER,
    Kind.LATE_COMMIT: AtCommit.DELIVER_LATE,
}


class Strikes:
    """Strikes a fleet as planned. `takeovers_s`: from SIGKILL to the next consumer's first commit, where a standby was
    ready and no other fault was in the way; `hindered_s`: where not.
    """

    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession, started_at: float) -> None:
        self._fleet = fleet
        self._session = session
        self._started_at = started_at
        self._takeover_s_max = TAKEOVER_TIMEOUT_S if fleet.clusters is None else CLUSTERED_TAKEOVER_TIMEOUT_S
        self._alone = {lane: asyncio.Lock() for lane in LANES}
        self._servers = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._under_way: Counter[str] = Counter()
        self._disturbances: Counter[str] = Counter()
        self._calm_at: dict[int, int | None] = {}
        self._found: dict[int, list[Struck]] = {}
        self.struck: Counter[Kind] = Counter()
        self.lanes_struck: list[Struck] = []
        self.missed: Counter[Kind] = Counter()
        self.takeovers_s: list[tuple[float, str]] = []
        self.hindered_s: list[tuple[float, str]] = []
        self.violations: list[str] = []

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        """Return when all of them have struck and what they broke is mended."""
        slots = asyncio.Semaphore(AT_ONCE_MAX)
        async with asyncio.TaskGroup() as strikes:
            for fault in faults:
                await asyncio.sleep(fault.after_s)
                await slots.acquire()
                strike = strikes.create_task(self._strike(fault))
                strike.add_done_callback(lambda _: slots.release())

    async def _strike(self, fault: Fault) -> None:
        lanes = LANES if fault.lane is None else (fault.lane,)
        async with AsyncExitStack() as held:
            if fault.is_alone:
                for lane in lanes:
                    await held.enter_async_context(self._alone[lane])
                if fault.kind in (Kind.KILL_ACTIVE, Kind.KILL_STALLED):
                    self._calm_at[fault.number] = await self._calm(lanes[0])
            began = monotonic()
            self._under_way.update(lanes)
            self._disturbances.update(lanes)
            try:
                has_struck = await self._carry_out_one(fault)
            finally:
                self._under_way.subtract(lanes)
                self._disturbances.update(lanes)
            (self.struck if has_struck else self.missed)[fault.kind] += 1
            found = self._found.pop(fault.number, []) if has_struck else []
            self.lanes_struck += found
            where = ", ".join(f"{each.lane} {each.state}" for each in found) or fault.lane or "all lanes"
            print(
                f"{began - self._started_at:7.2f} s  #{fault.number} {fault.kind}, {where}"
                f"{'' if fault.is_alone else ', on top of others'}: {monotonic() - began:.2f} s"
                f"{'' if has_struck else ', but nothing to strike'}",
                flush=True,
            )

    async def _carry_out_one(self, fault: Fault) -> bool:
        if fault.kind in OF_SERVERS:
            return await self._strike_server(fault)
        match fault.kind:
            case Kind.KILL_GATEWAY:
                gateways = self._fleet.gateways[self._lane(fault)]
                await self._note(fault)
                return await self._restart(gateways[fault.pick % len(gateways)], signal.SIGKILL, fault.lasts_s / 4)
            case Kind.ROLLING_RESTART:
                await self._note(fault)
                for slot in self._fleet.slots[self._lane(fault)]:
                    await self._restart(slot.member, signal.SIGTERM, 0)
                    await slot.member.wait_ready(self._session, CALM_TIMEOUT_S)
                return True
        for _ in range(FIND_ATTEMPTS):
            lease = await self._lease(self._lane(fault))
            active = None if lease is None else self._fleet.by_holder(self._lane(fault), lease.holder)
            if lease is None or active is None or not active.member.process.alive:
                await asyncio.sleep(COMMIT_TIMEOUT_S)
            elif await self._strike_active(fault, lease, active):
                return True
        return False

    async def _strike_server(self, fault: Fault) -> bool:
        if fault.kind in OF_NODES:
            await self._strike_nodes(fault)
        elif fault.kind in OF_THE_BROKER:
            async with self._servers["broker"]:
                await self._note(fault)
                return await strike_broker(self._fleet, fault)
        elif fault.kind in OF_REPLICAS:
            await self._strike_replicas(fault)
        elif fault.kind in (Kind.KILL_CACHE, Kind.PAUSE_CACHE):
            await self._strike_one("cache", self._fleet.servers.redis, fault)
        else:
            await self._strike_one(self._lane(fault), self._fleet.databases[self._lane(fault)], fault)
        return True

    async def _strike_active(self, fault: Fault, lease: LeaseRow, active: Slot) -> bool:
        lane = self._lane(fault)
        await self._note(fault)
        match fault.kind:
            case Kind.KILL_ACTIVE:
                await self._kill_active(fault, lease, active.member)
            case Kind.KILL_STALLED:
                # What it sends meanwhile is lost with it.
                active.broker.stall()
                await asyncio.sleep(fault.lasts_s / 4)
                await self._kill_active(fault, lease, active.member, active.broker)
            case Kind.TERM_ACTIVE:
                return await self._restart(active.member, signal.SIGTERM, fault.lasts_s / 4)
            case Kind.KILL_STANDBY:
                standby = next(slot for slot in self._fleet.slots[lane] if slot is not active)
                return await self._restart(standby.member, signal.SIGKILL, fault.lasts_s / 4)
            case Kind.STOP_ACTIVE:
                await asyncio.to_thread(active.member.process.pause)
                await self._await_successor(fault, lease)
                await asyncio.sleep(fault.lasts_s / 2)
                await asyncio.to_thread(active.member.process.resume)
            case Kind.CUT_DATABASE:
                active.database.cut()
            case Kind.STALL_DATABASE | Kind.STALL_CACHE:
                stalled = active.database if fault.kind is Kind.STALL_DATABASE else active.cache
                assert stalled is not None
                stalled.stall()
                await asyncio.sleep(fault.lasts_s)
                self._end_stall(stalled, fault)
            case Kind.CUT_BROKER:
                (active.broker if fault.pick % 2 else self._fleet.clients_broker).cut()
            case Kind.STALL_BROKER:
                active.broker.stall()
                await self._await_successor(fault, lease)
                await asyncio.sleep(fault.lasts_s / 4)
                self._end_stall(active.broker, fault)
            case _:
                what = _AT_COMMIT[fault.kind]
                has_struck = await active.database.strike_at_commit(what, COMMIT_TIMEOUT_S, late_s=fault.lasts_s)
                await asyncio.sleep(fault.lasts_s if has_struck and what is AtCommit.DELIVER_LATE else 0.5)
                return has_struck
        return True

    async def _kill_active(self, fault: Fault, lease: LeaseRow, member: Member, stalled: Proxies | None = None) -> None:
        lane = self._lane(fault)
        calm_at = self._calm_at.get(fault.number)
        async with member.lock:
            killed_at, at = monotonic(), utc_now()
            os.kill(member.process.pid, signal.SIGKILL)
            if stalled is not None:
                stalled.cut()
                stalled.resume()
            if fault.pick % 2:
                await asyncio.to_thread(member.process.wait, 10)
                member.start()
            took_s = await self._taken_over(lane, lease, killed_at) or self._takeover_s_max
            member.start()
        is_fair = stalled is None and calm_at is not None and self._disturbances[lane] == calm_at + 1  # this very fault
        of = lane if took_s < SLOW_TAKEOVER_S else f"{lane}{await self._parts_of_takeover(lane, at)}"
        (self.takeovers_s if is_fair else self.hindered_s).append((took_s, of))

    async def _restart(self, member: Member, how: signal.Signals, pause_s: float) -> bool:
        async with member.lock:
            if not member.process.alive:
                return False
            if how is signal.SIGKILL:
                await asyncio.to_thread(member.process.kill)
            else:
                await asyncio.to_thread(member.process.stop, how, 30)
            await asyncio.sleep(pause_s)
            member.start()
        return True

    async def _strike_nodes(self, fault: Fault) -> None:
        assert self._fleet.clusters is not None
        cluster = self._fleet.clusters.broker
        async with self._servers["broker"]:
            try:
                victims = await victims_of(cluster, fault)
                await self._note(fault)
                await strike_nodes(cluster, fault, victims, partial(self._carry_on, fault))
            except NotWhole as error:
                print(f"  {error}", flush=True)
                self.violations.append(f"{error}: #{fault.number} {fault.kind}")

    async def _carry_on(self, fault: Fault) -> None:
        """One node of three is away: within the limit each gateway is ready, and each lane writes."""
        gateways = [gateway for each in self._fleet.gateways.values() for gateway in each]
        ready = await asyncio.gather(*(each.wait_ready(self._session, self._takeover_s_max) for each in gateways))
        idle = [each.name for each, is_ready in zip(gateways, ready, strict=True) if not is_ready]
        if not idle:
            moved = await asyncio.gather(*(self._moves(lane) for lane in LANES))
            idle = [lane for lane, has_moved in zip(LANES, moved, strict=True) if not has_moved]
        if idle:
            away = f"{', '.join(idle)} did not carry on within {self._takeover_s_max:g} s without a node"
            self.violations.append(f"{away}: #{fault.number} {fault.kind}")

    async def _moves(self, lane: str) -> bool:
        deadline, before = monotonic() + self._takeover_s_max, None
        while monotonic() < deadline:
            now = await self._lease(lane)
            before = before or now
            if now is not None and before is not None and now.sequence > before.sequence:
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def _strike_replicas(self, fault: Fault) -> None:
        assert self._fleet.clusters is not None
        async with self._servers[REPLICATED]:
            await self._note(fault)
            try:
                await strike_replicas(self._fleet.clusters.database, fault)
            except TimeoutError as error:
                self.violations.append(f"{error}: #{fault.number} {fault.kind}")

    async def _strike_one(self, name: str, server: Server, fault: Fault) -> None:
        async with self._servers[name]:
            await self._note(fault)
            if fault.kind in (Kind.PAUSE_DATABASE, Kind.PAUSE_CACHE):
                await paused(server, fault.lasts_s)
                return
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(server.start)

    async def _await_successor(self, fault: Fault, lease: LeaseRow) -> None:
        """A consumer that is silent, not dead, must not hold the lane for long."""
        if await self._taken_over(self._lane(fault), lease) is None:
            self.violations.append(f"nobody took over within {self._takeover_s_max:g} s: #{fault.number} {fault.kind}")

    async def _taken_over(self, lane: str, lease: LeaseRow, since: float = 0.0) -> float | None:
        """Seconds until somebody else has committed under a higher epoch; None: not in time."""
        deadline = monotonic() + self._takeover_s_max
        sequence = lease.sequence
        while monotonic() < deadline:
            now = await self._lease(lane)
            if now is not None and now.epoch == lease.epoch:
                sequence = now.sequence
            elif now is not None and now.sequence > sequence:
                return monotonic() - since
            await asyncio.sleep(POLL_S)
        return None

    async def _parts_of_takeover(self, lane: str, killed_at: datetime) -> str:
        """Which part of it took long, in words."""
        lease = await self._lease(lane)
        began = None
        with suppress(Exception):
            began = None if lease is None else await asyncio.to_thread(self._fleet.tables[lane].began, lease.epoch)
        if began is None:
            return ""
        taken_s, batch_s = ((at - killed_at).total_seconds() for at in began)
        return f" (taken after {taken_s:.2f} s, its first batch began after {batch_s:.2f} s)"

    async def _calm(self, lane: str) -> int | None:
        """Wait until the lane flows, its standby is ready and nothing strikes: how many disturbances there were then.

        None: that took too long. The fault strikes in any case.
        """
        deadline = monotonic() + CALM_TIMEOUT_S
        while monotonic() < deadline:
            before = await self._lease(lane)
            await asyncio.sleep(0.3)
            now = await self._lease(lane)
            is_moving = before is not None and now is not None and now.sequence > before.sequence
            disturbances = self._disturbances[lane]
            ready = [await slot.member.wait_ready(self._session, 5) for slot in self._fleet.slots[lane]]
            is_alone = not self._under_way[lane] and self._disturbances[lane] == disturbances
            if is_moving and is_alone and all(ready):
                return disturbances
        return None

    async def _note(self, fault: Fault) -> None:
        """The state of the lanes that the fault strikes now."""
        lanes = LANES if fault.lane is None else (fault.lane,)
        if fault.kind in _AT_COMMIT:
            states = [State.AT_COMMIT for _ in lanes]
        else:
            states = await asyncio.gather(*(state_of(self._fleet.slots[lane], self._session) for lane in lanes))
        self._found[fault.number] = [
            Struck(fault.kind, lane, state, is_on_top=self._under_way[lane] > 1)
            for lane, state in zip(lanes, states, strict=True)
        ]

    async def _lease(self, lane: str) -> LeaseRow | None:
        try:
            return await asyncio.to_thread(self._fleet.tables[lane].lease)
        except Exception:  # noqa: BLE001 - whatever a driver says while its server is down
            return None

    @staticmethod
    def _end_stall(proxy: Proxies, fault: Fault) -> None:
        """What was stalled is lost, or comes late."""
        if fault.pick % 2:
            proxy.cut()
        proxy.resume()

    @staticmethod
    def _lane(fault: Fault) -> str:
        assert fault.lane is not None
        return fault.lane


@asynccontextmanager
async def striking(fleet: Fleet, started_at: float) -> AsyncIterator[Strikes]:
    """With a connection of its own to the health endpoints."""
    async with aiohttp.ClientSession() as session:
        yield Strikes(fleet, session, started_at)
