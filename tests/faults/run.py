"""One run: the system, its clients, the faults, and the verdict."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import aiohttp
from msgspec import Struct

from coordinator.lane.control import Marker
from coordinator.transports.brokered_writes import CONNECT_TIMEOUT_S
from tests.faults.cached_reads import CachedReads, SeenItem, check_reads
from tests.faults.clients import Client, DirectPublisher, HttpClient, TrustingPublisher, keep_issuing
from tests.faults.emitted import check_effects
from tests.faults.expected_rows import check_rows
from tests.faults.fleet import Fleet, running_fleet
from tests.faults.plan import ANYTHING, CACHED, LANES, OF_CLUSTERS, OF_RABBITMQ, OF_THE_FILESYSTEM, Choice, Kind, plan
from tests.faults.states import Struck, table_of
from tests.faults.strangers import Stranger, check_letters, check_strangers, logged, said_to
from tests.faults.strikes import Strikes, striking
from tests.faults.workload import ItemsWorkload, workloads
from tests.support.callers import HEADERS
from tests.support.checker import ClientRecord, check

HTTP_CLIENTS = 5
DIRECT_PUBLISHERS = 2
TRUSTING = 1
WARM_UP_S = 4.0
"""RabbitMQ 3.10 loses a quorum queue that it is killed with within a second of its declaration."""
PATIENCE_S = 60.0
"""How long clients wait for their answers at the end, and then the tables for what was confirmed."""
TAKEOVER_P99_S = 2.0
WITH_EFFECT = 0.5
READS_WITH_HITS = 500
"""Of so many reads of items the cache has answered some, or it is not there."""


class Report(Struct):
    """What a run has shown."""

    faults: dict[str, int]
    lanes_struck: list[Struck]
    missed: dict[str, int]
    left_out: list[str]
    commands: dict[str, int]
    strangers: dict[str, int]
    outcomes: dict[str, int]
    takeovers_s: list[float]
    hindered_s: list[float]
    violations: list[str]
    seconds: float
    reads: dict[str, int] = {}
    logs: Path | None = None
    """What the processes wrote, if anything was violated."""

    @property
    def takeover_p99_s(self) -> float:
        return percentile(self.takeovers_s, 0.99)


def percentile(values: Sequence[float], share: float) -> float:
    """By the nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def run_chaos(
    faults: int,
    seed: int,
    choice: Choice = ANYTHING,
    patience_s: float = PATIENCE_S,
    *,
    is_on_redis: bool = False,
    is_clustered: bool = False,
) -> Report:
    """Bounded in time; nothing is left behind. On Redis there are no strangers: whoever may add there is trusted."""
    began = monotonic()
    async with (
        running_fleet(is_on_redis=is_on_redis, is_clustered=is_clustered) as fleet,
        striking(fleet, monotonic()) as strikes,
        AsyncExitStack() as stack,
    ):
        clients = await clients_of(fleet, seed, stack, trusting=TRUSTING)
        strangers = [
            Stranger(lane, fleet.client_broker_url, random.Random(f"{seed} stranger {lane}")) for lane in LANES
        ]
        strangers = [] if is_on_redis else strangers
        items = ItemsWorkload()
        loads = workloads(items, WITH_EFFECT)
        reading = await stack.enter_async_context(aiohttp.ClientSession(headers=HEADERS))
        urls = [member.url for member in fleet.gateways[CACHED]]
        reads = CachedReads(reading, urls, items, random.Random(f"{seed} reads"))
        stop = asyncio.Event()
        issuing = [
            asyncio.create_task(
                keep_issuing(client, loads[lane], random.Random(f"{seed} {lane} {number} {place}"), stop)
            )
            for lane, each in clients.items()
            for number, client in enumerate(each)
            for place in range(client.window)
        ]
        issuing += [asyncio.create_task(stranger.keep_saying(stop)) for stranger in strangers]
        issuing.append(asyncio.create_task(reads.keep_reading(stop)))
        try:
            await asyncio.sleep(WARM_UP_S)
            without = OF_THE_FILESYSTEM if fleet.disk is None else frozenset[Kind]()
            without |= OF_RABBITMQ if is_on_redis else frozenset()
            elsewhere = frozenset() if is_clustered else OF_CLUSTERS
            await strikes.carry_out(plan(seed, faults, without | elsewhere, choice))
            await asyncio.to_thread(fleet.heal)
            stop.set()
            done, late = await asyncio.wait(issuing, timeout=patience_s)
        finally:
            stop.set()
            for task in issuing:
                task.cancel()
            await asyncio.gather(*issuing, return_exceptions=True)
        violations = [f"a client broke: {task.exception()!r}" for task in done if task.exception() is not None]
        violations += [f"{len(late)} clients had no answer in {patience_s:g} s"] if late else []
        hits = await reads.hits()
        if not hits and len(reads.seen) >= READS_WITH_HITS:
            violations.append(f"none of {len(reads.seen)} reads of an item was answered by the cache")
        violations += strikes.violations + await _verdict(fleet, clients, strangers, reads.seen, patience_s)
        report = _report(strikes, clients, strangers, violations, sorted(without), monotonic() - began)
        report.reads = {"items": len(reads.seen), "by the cache, since the gateways' last start": hits}
        if report.violations:
            report.logs = await asyncio.to_thread(fleet.keep_logs)
        return report


async def clients_of(fleet: Fleet, seed: int, stack: AsyncExitStack, *, trusting: int = 0) -> dict[str, list[Client]]:
    """Of each lane, ready to issue; closed with the stack. `trusting`: how many of them believe a confirm."""
    clients: dict[str, list[Client]] = {}
    session = await stack.enter_async_context(aiohttp.ClientSession(headers=HEADERS))
    for lane in LANES:
        urls = [member.url for member in fleet.gateways[lane]]
        broker_url = fleet.client_broker_url
        publishers = [
            DirectPublisher(f"publisher-{lane}-{n}", broker_url, random.Random(f"{seed} ids {lane} {n}"))
            for n in range(DIRECT_PUBLISHERS)
        ]
        believers = [
            TrustingPublisher(
                f"trusting-{lane}-{n}", fleet.client_broker_url, random.Random(f"{seed} trusts {lane} {n}")
            )
            for n in range(trusting)
        ]
        for writes in [*(each.writes for each in publishers), *(each.writes for each in believers)]:
            await writes.start()
            stack.push_async_callback(writes.close)
            await writes.wait_connected(CONNECT_TIMEOUT_S)
        clients[lane] = [
            *(
                HttpClient(f"{lane}-{n}", session, urls, fleet.secrets[lane], random.Random(f"{seed} {n}"))
                for n in range(HTTP_CLIENTS)
            ),
            *publishers,
            *believers,
        ]
    return clients


async def _verdict(
    fleet: Fleet,
    clients: dict[str, list[Client]],
    strangers: Sequence[Stranger],
    seen: Sequence[SeenItem],
    patience_s: float,
) -> list[str]:
    """Stop the system, then read its tables."""
    violations = [oddity for each in clients.values() for client in each for oddity in client.oddities]
    async with aiohttp.ClientSession() as session:
        violations += await fleet.unready(session)
    for lane, tables in fleet.tables.items():
        records = _records(clients[lane])
        said = said_to(lane, strangers)
        confirmed = {command_id for command_id, each in said.items() if each.is_confirmed}
        confirmed |= {record.command_id for record in records if record.confirmed_at is not None}
        log = await asyncio.to_thread(logged, tables, confirmed, patience_s)
        violations += [f"{lane}: {violation}" for violation in check_strangers(log, said)]
        violations += [
            f"{lane}: {violation}" for violation in await asyncio.to_thread(list, check_letters(log, tables))
        ]
        violations += [f"{lane}: {violation}" for violation in check(records, log)]
        violations += [
            f"{lane}: {record.type} {record.command_id} was never answered"
            for client in clients[lane]
            if client.is_told
            for record in client.records
            if record.outcome is None
        ]
        own = [entry for entry in log if entry.command_id not in said and entry.type != Marker.type]
        violations += await asyncio.to_thread(check_rows, lane, records, own, tables)
        violations += [f"{lane}: {each}" for each in check_reads(seen, records, own)] if lane == CACHED else []
    violations += await asyncio.to_thread(list, check_effects(fleet.tables["payments"], fleet.broker_server.url))
    return violations + await asyncio.to_thread(fleet.stop)


def _records(clients: Sequence[Client]) -> list[ClientRecord]:
    return [record for client in clients for record in client.records]


def _report(
    strikes: Strikes,
    clients: dict[str, list[Client]],
    strangers: Sequence[Stranger],
    violations: list[str],
    left_out: list[Kind],
    seconds: float,
) -> Report:
    records = {lane: _records(each) for lane, each in clients.items()}
    outcomes: Counter[str] = Counter()
    for record in (record for each in records.values() for record in each):
        unknown = "unknown" if record.confirmed_at is None else "confirmed"
        outcomes[record.outcome.status if record.outcome is not None else unknown] += 1
        outcomes["replayed"] += record.outcome is not None and record.outcome.replayed
    report = Report(
        faults={str(kind): count for kind, count in sorted(strikes.struck.items())},
        lanes_struck=strikes.lanes_struck,
        missed={str(kind): count for kind, count in sorted(strikes.missed.items())},
        left_out=[str(kind) for kind in left_out],
        commands={lane: len({record.command_id for record in each}) for lane, each in records.items()},
        strangers={lane: len(said_to(lane, strangers)) for lane in LANES},
        outcomes=dict(outcomes),
        takeovers_s=[took_s for took_s, _ in strikes.takeovers_s],
        hindered_s=[took_s for took_s, _ in strikes.hindered_s],
        violations=violations,
        seconds=seconds,
    )
    if report.takeover_p99_s > TAKEOVER_P99_S:
        slow = [f"{took_s:.2f} s of {lane}" for took_s, lane in strikes.takeovers_s if took_s > TAKEOVER_P99_S]
        report.violations.append(f"takeover p99 is above {TAKEOVER_P99_S:g} s: {', '.join(slow)}")
    return report


def shown(report: Report, seed: int, again: str) -> str:
    """For people. `again` is the command that repeats the run."""
    struck = sum(report.faults.values())
    lines = [
        f"{struck} faults in {report.seconds:.0f} s, and the states in which they found the lanes that they struck:"
    ]
    lines += table_of(report.faults, report.lanes_struck)
    lines += [f"  {count:4}  had nothing to strike: {kind}" for kind, count in report.missed.items()]
    lines += [f"  left out, since it cannot be done here: {kind}" for kind in report.left_out]
    lines += ["commands: " + ", ".join(f"{lane} {count}" for lane, count in report.commands.items())]
    lines += ["of strangers: " + ", ".join(f"{lane} {count}" for lane, count in report.strangers.items())]
    lines += ["reads: " + ", ".join(f"{name} {count}" for name, count in report.reads.items())]
    lines += ["outcomes: " + ", ".join(f"{status} {count}" for status, count in report.outcomes.items())]
    for name, values in (("takeover after SIGKILL", report.takeovers_s), ("with other faults", report.hindered_s)):
        if values:
            p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
            lines.append(f"{name}: {len(values)}, p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(values):.2f} s")
    if report.violations:
        lines += [f"VIOLATIONS: {len(report.violations)}", *(f"  {line}" for line in report.violations[:40])]
        lines += [f"logs: {report.logs}", f"again: {again}"]
    else:
        lines += [f"no violation (seed {seed})"]
    return "\n".join(lines)
