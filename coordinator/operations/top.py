"""`coordinator top`: the lanes on a terminal, live, as the operations gateway's pages show them."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import ceil
from typing import Final

import click
from aiohttp import web
from msgspec import Struct

from coordinator.operate.open import check_addresses
from coordinator.operate.output import print_json, print_table, printable, quiet
from coordinator.operate.repeating import Screen, numbered, until_interrupted
from coordinator.operations.collector import Collector
from coordinator.operations.settings import OperationsSettings, checked_addresses
from coordinator.operations.views import LaneView, RecentCommand
from coordinator.runtime.settings import load
from coordinator.service.errors import ConfigurationError

RECENT_MAX: Final = 2000
"""Of how many of a lane's last commands the table of types is made."""
TYPES_MAX: Final = 15
FAILURES_MAX: Final = 5
_CALM: Final = frozenset({"running", "idle"})


class TypeActivity(Struct, frozen=True, kw_only=True):
    """The commands of one type among the last of a lane. `rate` is its share of the lane's."""

    lane: str
    type: str
    rate: float | None
    applied: int
    rejected: int
    failed: int
    expired: int
    p95_ms: float | None


class TopFrame(Struct, frozen=True, kw_only=True):
    """What is shown at one time."""

    lanes: dict[str, LaneView]
    types: list[TypeActivity]


def top(lanes: Sequence[str], coordinators: Sequence[str], every_s: float, rounds: int | None, *, as_json: bool) -> int:
    """Show the lanes until Ctrl-C, or so often; return the exit status. Raises ConfigurationError."""
    quiet()
    try:
        urls = checked_addresses((*load(OperationsSettings).coordinators.split(), *coordinators))
    except ValueError as error:
        raise ConfigurationError(f"--coordinator, OPERATIONS_COORDINATORS: {error}") from None
    check_addresses(lanes)
    with until_interrupted():
        asyncio.run(_show(Collector(lanes, urls, every_s), every_s, rounds, as_json=as_json))
    return 0


async def _show(collector: Collector, every_s: float, rounds: int | None, *, as_json: bool) -> None:
    screen = Screen(is_plain=as_json)
    last: dict[str, deque[RecentCommand]] = {lane: deque(maxlen=RECENT_MAX) for lane in collector.lanes}
    collector.watching += 1
    async with asynccontextmanager(collector.running)(web.Application()):
        for _ in numbered(rounds):
            await collector.next(collector.number)
            for lane, view in collector.views.items():
                last[lane].extend(view.recent)
            frame = TopFrame(lanes=dict(collector.views), types=activity(collector.views, last))
            screen.show(
                f"every {every_s:g} s; Ctrl-C ends it", partial(print_json if as_json else partial(_print, last), frame)
            )


def activity(views: dict[str, LaneView], last: dict[str, deque[RecentCommand]]) -> list[TypeActivity]:
    """The types of the lanes' last commands, the most frequent first."""
    found: list[tuple[int, TypeActivity]] = []
    for lane, view in views.items():
        recent, rate = last[lane], view.status.rate
        for kind, count in Counter(each.type for each in recent).items():
            of_type = [each for each in recent if each.type == kind]
            ended = Counter(each.status for each in of_type)
            known = TypeActivity(
                lane=lane,
                type=kind,
                rate=None if rate is None else round(rate * count / len(recent), 1),
                applied=ended["applied"],
                rejected=ended["rejected"],
                failed=ended["failed"],
                expired=ended["expired"],
                p95_ms=_p95_ms([each.latency_ms for each in of_type if each.latency_ms is not None]),
            )
            found.append((count, known))
    return [known for _, known in sorted(found, key=lambda each: (-(each[1].rate or 0), -each[0], each[1].type))]


def _p95_ms(latencies: list[float]) -> float | None:
    return sorted(latencies)[ceil(len(latencies) * 0.95) - 1] if latencies else None


def _print(last: dict[str, deque[RecentCommand]], frame: TopFrame) -> None:
    print_table(
        (
            *("LANE", "STATE", "BACKLOG", "OLDEST S", "RATE/S", "P50 MS", "P95 MS", "P99 MS"),
            *("DEAD", "PARKED", "OUTBOX", "TIMERS", "SEQUENCE", "HOLDER"),
        ),
        [_row(lane, view) for lane, view in frame.lanes.items()],
    )
    for lane, view in frame.lanes.items():
        if view.state not in _CALM and view.why:
            click.echo(f"{lane}: {view.state}: {printable(view.why)}")
    if frame.types:
        click.echo()
        print_table(
            ("TYPE", "RATE/S", "APPLIED", "REJECTED", "FAILED", "EXPIRED", "P95 MS"),
            [
                (each.type, each.rate, each.applied, each.rejected, each.failed, each.expired, each.p95_ms)
                for each in frame.types[:TYPES_MAX]
            ],
        )
    failed = [(lane, each) for lane, recent in last.items() for each in recent if each.status in ("failed", "expired")]
    if failed:
        click.echo()
        print_table(
            ("LAST FAILED", "LANE", "SEQUENCE", "TYPE", "COMMAND"),
            [
                (each.settled_at, lane, each.sequence, each.type, each.command_id)
                for lane, each in sorted(failed, key=lambda pair: pair[1].settled_at, reverse=True)[:FAILURES_MAX]
            ],
        )


def _row(lane: str, view: LaneView) -> tuple[object, ...]:
    status, latency = view.status, view.latency
    waits = f"{view.backlog}+" if view.backlog is not None and view.is_least and status.is_paused else view.backlog
    return (
        lane,
        view.state,
        waits,
        view.oldest_s,
        status.rate,
        None if latency is None else latency.p50_ms,
        None if latency is None else latency.p95_ms,
        None if latency is None else latency.p99_ms,
        status.dead_letters,
        view.parked,
        None if status.outbox is None else sum(each.entries for each in status.outbox),
        status.timers,
        status.sequence,
        status.holder,
    )
