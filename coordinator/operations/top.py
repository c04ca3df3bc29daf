"""`coordinator top`: the lanes on a terminal, live, as the operations gateway's pages show them."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import click
from aiohttp import web

from coordinator.operate.open import check_addresses
from coordinator.operate.output import print_json, print_table, quiet
from coordinator.operate.processes import checked_addresses
from coordinator.operate.repeating import Screen, numbered, until_interrupted
from coordinator.operations.collector import LaneCollector
from coordinator.operations.settings import OperationsSettings
from coordinator.operations.views import KindOfCommand, LaneView, RecentCommand
from coordinator.runtime.settings import load
from coordinator.service.errors import ConfigurationError
from coordinator.service.text import printable

_KINDS_MAX: Final = 15
_FAILURES_MAX: Final = 5
_CALM: Final = frozenset({"running", "idle"})


def top(lanes: Sequence[str], coordinators: Sequence[str], every_s: float, rounds: int | None, *, as_json: bool) -> int:
    """Show the lanes until Ctrl-C, or so often; return the exit status. Raises ConfigurationError."""
    quiet()
    try:
        urls = checked_addresses((*load(OperationsSettings).coordinators.split(), *coordinators))
    except ValueError as error:
        raise ConfigurationError(f"--coordinator, OPERATIONS_COORDINATORS: {error}") from None
    check_addresses(lanes)
    with until_interrupted():
        asyncio.run(_show(LaneCollector(lanes, urls, every_s), every_s, rounds, as_json=as_json))
    return 0


async def _show(collector: LaneCollector, every_s: float, rounds: int | None, *, as_json: bool) -> None:
    screen = Screen(is_plain=as_json)
    failed: dict[str, deque[RecentCommand]] = {lane: deque(maxlen=_FAILURES_MAX) for lane in collector.lanes}
    collector.watching += 1
    async with asynccontextmanager(collector.running)(web.Application()):
        # Whether a lane settles anything shows between two looks.
        await collector.next(0)
        for _ in numbered(rounds):
            await collector.next(collector.number)
            for lane, view in collector.views.items():
                failed[lane].extend(each for each in view.recent if each.status in ("failed", "expired"))
            shown = dict(collector.views)
            draw = partial(print_json, shown) if as_json else partial(_print, shown, failed)
            screen.show(f"every {every_s:g} s; Ctrl-C ends it", draw)


def _print(lanes: dict[str, LaneView], failed: dict[str, deque[RecentCommand]]) -> None:
    print_table(
        (
            *("LANE", "STATE", "BACKLOG", "OLDEST S", "RATE/S", "P50 MS", "P95 MS", "P99 MS"),
            *("DEAD", "PARKED", "OUTBOX", "TIMERS", "SEQUENCE", "HOLDER"),
        ),
        [lane_row(lane, view) for lane, view in lanes.items()],
    )
    for lane, view in lanes.items():
        if view.state not in _CALM and view.why:
            click.echo(f"{lane}: {view.state}: {printable(view.why)}")
        elif view.move:
            click.echo(f"{lane}: {printable(view.move)}")
        for error in view.status.errors:
            if view.state in _CALM or error != view.why:
                click.echo(f"{lane}: not looked at: {printable(error)}")
        if view.full:
            click.echo(f"{lane}: {printable(view.full)}")
        if view.effects is not None and view.effects.why:
            click.echo(f"{lane}: calls to the outside: {printable(view.effects.why)}")
    if any(view.kinds for view in lanes.values()):
        click.echo()
        print_table(
            ("TYPE", "STATUS", "RATE/S", "P50 MS", "P95 MS"),
            [(each.type, each.status, rate, each.p50_ms, each.p95_ms) for rate, each in rated(lanes)[:_KINDS_MAX]],
        )
    if any(failed.values()):
        click.echo()
        last = sorted(
            (
                (each.settled_at, lane, each.sequence, each.type, each.command_id)
                for lane in failed
                for each in failed[lane]
            ),
            reverse=True,
        )
        print_table(("LAST FAILED", "LANE", "SEQUENCE", "TYPE", "COMMAND"), last[:_FAILURES_MAX])


def rated(lanes: dict[str, LaneView]) -> list[tuple[float | None, KindOfCommand]]:
    """The kinds of all lanes, each with its share of its lane's rate, the most frequent first."""
    found: list[tuple[float | None, KindOfCommand]] = []
    for view in lanes.values():
        commands, rate = sum(each.commands for each in view.kinds), view.status.rate
        found += [(None if rate is None else round(rate * each.commands / commands, 1), each) for each in view.kinds]
    return sorted(found, key=lambda pair: (-(pair[0] or 0.0), -pair[1].commands, pair[1].type))


def lane_row(lane: str, view: LaneView) -> tuple[object, ...]:
    """A lane's line of the table. A `+` says that it is more, perhaps."""
    status, latency = view.status, view.latency
    waits: str | int | None = view.backlog
    if view.is_least and status.is_paused:
        # Of none in the queue nobody knows whether more wait.
        waits = f"{view.backlog}+" if view.backlog else None
    return (
        lane,
        view.state,
        waits,
        # Known from when the lane was first looked at.
        None if view.oldest_s is None else f"{view.oldest_s:g}+",
        status.rate,
        None if latency is None else latency.p50_ms,
        None if latency is None else latency.p95_ms,
        None if latency is None else latency.p99_ms,
        status.dead_letters,
        status.parked,
        None if status.outbox is None else sum(each.entries for each in status.outbox),
        status.timers,
        status.sequence,
        status.holder,
    )
