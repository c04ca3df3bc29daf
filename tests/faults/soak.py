"""`python -m tests.faults.soak --minutes N`: the system under steady load, with a fault now and then.

Nothing may grow: exit status 1 if a figure at the end is beyond its bound (growth.py), or if a process of ours ended.
"""

import asyncio
import logging
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import chain
from time import monotonic

import aiohttp
import click
import structlog
from msgspec import Struct, structs

from tests.faults.clients import Client, keep_issuing
from tests.faults.fleet import Fleet, running_fleet
from tests.faults.growth import Measure, Sample, grown, table_of
from tests.faults.plan import LANES, Kind, plan
from tests.faults.run import clients_of, percentile
from tests.faults.strikes import Strikes, striking
from tests.faults.vitals import vitals_of
from tests.faults.workload import workloads
from tests.support.brief import BRIEF

SPARING = frozenset(
    {
        Kind.STOP_ACTIVE,
        Kind.CUT_DATABASE,
        Kind.STALL_DATABASE,
        Kind.PAUSE_DATABASE,
        Kind.LOSE_COMMIT,
        Kind.LOSE_COMMITTED,
        Kind.LATE_COMMIT,
        Kind.CUT_BROKER,
        Kind.STALL_BROKER,
        Kind.PAUSE_BROKER,
        Kind.ALARM,
    }
)
"""Faults that leave every process alive, servers too: one that starts anew hides what it had piled up."""
PAUSE_S = (5.0, 15.0)
"""Between two faults."""
FAULT_S_MAX = 30.0
"""No fault begins with less time than this before a calm."""
CALM_SHARE, CALM_S = 0.1, (15.0, 120.0)
WARM_UP_SHARE = 0.1
ANSWERS_TIMEOUT_S = 60.0
TIMES = (Measure.LATENCY_P50, Measure.LATENCY_P99)
DRAIN_EVERY_S = 0.5


class Heard(Struct, frozen=True):
    """One command that has its outcome."""

    lane: str
    issued_at: float
    took_s: float


class Ear:
    """Takes the records of the clients away: half an hour has a million, and this process is not what is measured."""

    def __init__(self, clients: dict[str, list[Client]]) -> None:
        self._clients = clients
        self.latencies: list[Heard] = []
        self.ids: dict[str, set[str]] = {lane: set() for lane in LANES}
        self.outcomes: Counter[str] = Counter()

    async def keep_listening(self) -> None:
        while True:
            await asyncio.sleep(DRAIN_EVERY_S)
            self.drain()

    def drain(self) -> None:
        """Hear what has an outcome."""
        for lane, each in self._clients.items():
            for client in each:
                known = [record for record in client.records if record.outcome_at is not None]
                client.records = [record for record in client.records if record.outcome_at is None]
                for record in known:
                    assert record.outcome is not None
                    assert record.outcome_at is not None
                    self.outcomes[record.outcome.status] += 1
                    self.ids[lane].add(record.command_id)
                    self.latencies.append(Heard(lane, record.issued_at, record.outcome_at - record.issued_at))

    def latencies_ms(self, since: float) -> Sample:
        """Of what was issued since then; what was issued before is forgotten."""
        self.drain()
        heard, self.latencies = self.latencies, []
        fresh = [each for each in heard if each.issued_at >= since]
        by_lane = {lane: [each.took_s * 1000 for each in fresh if each.lane == lane] for lane in LANES}
        return {
            Measure.LATENCY_P50: {lane: percentile(values, 0.5) for lane, values in by_lane.items()},
            Measure.LATENCY_P99: {lane: percentile(values, 0.99) for lane, values in by_lane.items()},
        }


class Soak:
    """One run over a fleet that is under load."""

    def __init__(self, fleet: Fleet, strikes: Strikes, ear: Ear, seconds: float, seed: int) -> None:
        self._fleet = fleet
        self._strikes = strikes
        self._ear = ear
        self._warm_up_s = seconds * WARM_UP_SHARE
        self._calm_s = min(max(seconds * CALM_SHARE, CALM_S[0]), CALM_S[1])
        self._faults_s = (seconds - self._warm_up_s - 3 * self._calm_s) / 2
        self._chance = random.Random(f"{seed} soak")
        self._seed = seed
        self._pids = self._pids_now()
        self.samples: list[Sample] = []
        self.violations: list[str] = []

    async def run(self) -> None:
        """Calm, faults, calm, faults, calm: the calms are what is measured."""
        await asyncio.sleep(self._warm_up_s)
        await self._calm()
        for half in range(2):
            await self._faults(half)
            await self._calm()

    async def _calm(self) -> None:
        async with aiohttp.ClientSession() as session:
            self.violations += await self._fleet.unready(session)
        began = monotonic()
        await asyncio.sleep(self._calm_s)
        latencies = self._ear.latencies_ms(began)
        commands = {lane: len(ids) for lane, ids in self._ear.ids.items()}
        self.samples.append(latencies | await vitals_of(self._fleet, commands))
        for name, pid in self._pids_now().items():
            if pid != self._pids[name]:
                self.violations.append(f"{name} ended, and another began")
        memory = ", ".join(f"{name} {value:.0f}" for name, value in self.samples[-1][Measure.MEMORY].items())
        print(f"calm: {sum(commands.values())} commands so far; MiB: {memory}", flush=True)

    async def _faults(self, half: int) -> None:
        until = monotonic() + self._faults_s - FAULT_S_MAX
        planned = plan(self._seed + half, int(self._faults_s / PAUSE_S[0]) + 1, set(Kind) - SPARING)
        for fault in planned:
            after_s = self._chance.uniform(*PAUSE_S)
            if monotonic() + after_s > until:
                break
            await self._strikes.carry_out([structs.replace(fault, after_s=after_s, is_alone=True)])
        await asyncio.sleep(max(0.0, until + FAULT_S_MAX - monotonic()))

    def _pids_now(self) -> dict[str, int]:
        return {member.name: member.process.pid for member in self._fleet.members}


async def run_soak(seconds: float, seed: int) -> Sequence[str]:
    """Print the table; what is wrong, in words. Nothing is left behind."""
    began = monotonic()
    async with running_fleet() as fleet, striking(fleet, began) as strikes, AsyncExitStack() as stack:
        clients = await clients_of(fleet, seed, stack)
        ear = Ear(clients)
        soak = Soak(fleet, strikes, ear, seconds, seed)
        loads = workloads()
        stop = asyncio.Event()
        issuing = [
            asyncio.create_task(keep_issuing(client, loads[lane], random.Random(f"{seed} {lane} {n} {place}"), stop))
            for lane, each in clients.items()
            for n, client in enumerate(each)
            for place in range(client.window)
        ]
        listening = asyncio.create_task(ear.keep_listening())
        try:
            await soak.run()
            stop.set()
            done, late = await asyncio.wait(issuing, timeout=ANSWERS_TIMEOUT_S)
        finally:
            for task in (*issuing, listening):
                task.cancel()
            await asyncio.gather(*issuing, listening, return_exceptions=True)
        ear.drain()
        wrong = [f"a client broke: {task.exception()!r}" for task in done if task.exception() is not None]
        wrong += [f"{len(late)} clients had no answer in {ANSWERS_TIMEOUT_S:g} s"] if late else []
        wrong += [oddity for client in chain(*clients.values()) for oddity in client.oddities]
        wrong += [*strikes.violations, *soak.violations, *grown(soak.samples, TIMES if BRIEF else ())]
        print(*table_of(soak.samples), sep="\n")
        struck = ", ".join(f"{count} {kind}" for kind, count in strikes.struck.items())
        print(f"faults: {struck}")
        print("outcomes: " + ", ".join(f"{status} {count}" for status, count in ear.outcomes.items()))
        wrong += await asyncio.to_thread(fleet.stop)
        return wrong


@click.command()
@click.option("--minutes", type=click.FloatRange(min=4), default=30, show_default=True, help="How long it runs.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides which faults strike, and when.")
def main(minutes: float, seed: int) -> None:
    """Load and faults for long, and what they leave behind."""
    # What the clients' connections say of every fault; the processes' own logs are theirs.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(f"{minutes:g} minutes, seed {seed}", flush=True)
    try:
        wrong = asyncio.run(_run(minutes * 60, seed))
    except asyncio.CancelledError:
        sys.exit("stopped")
    print(*(wrong or ["nothing grew"]), sep="\n")
    sys.exit(1 if wrong else 0)


async def _run(seconds: float, seed: int) -> Sequence[str]:
    """SIGTERM ends it as Ctrl-C does: nothing is left behind."""
    running = asyncio.ensure_future(run_soak(seconds, seed))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


if __name__ == "__main__":
    main()
