"""`python -m tests.faults --faults N --seed S`: exit status 1 on any violation."""

import asyncio
import logging
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Sequence

import click
import structlog

from coordinator.registry import APP_SETTING
from tests.faults.plan import ANYTHING, LANES, Choice, Kind, kind_named, name_of
from tests.faults.run import PATIENCE_S, Report, run_chaos, shown


@click.command()
@click.option("--faults", default=60, show_default=True, help="How many faults strike.")
@click.option("--seed", type=int, default=None, help="Decides which, where and when; by default a new one.")
@click.option("--only", multiple=True, type=click.Choice([name_of(kind) for kind in Kind]), help="These kinds alone.")
@click.option("--lane", type=click.Choice(LANES), default=None, help="Those that strike one lane strike this one.")
@click.option("--piled-up", type=click.FloatRange(0, 1), default=ANYTHING.piled_up, show_default=True)
@click.option("--patience", type=float, default=PATIENCE_S, show_default=True, help="Seconds to wait at the end.")
@click.option("--clusters", is_flag=True, help="Nodes of RabbitMQ, and a standby of PostgreSQL.")
@click.option("--transport", type=click.Choice(["rabbitmq", "redis"]), default="rabbitmq", show_default=True)
def main(
    faults: int,
    seed: int | None,
    only: tuple[str, ...],
    lane: str | None,
    piled_up: float,
    patience: float,
    clusters: bool,
    transport: str,
) -> None:
    """Break the system in every way there is, and check that it keeps its promises."""
    choice = Choice(only=frozenset(map(kind_named, only)), lane=lane, piled_up=piled_up)
    if clusters and transport == "redis":
        raise click.UsageError("--clusters is about RabbitMQ")
    number = secrets.randbelow(10**6) if seed is None else seed
    # What the clients' connections say of every fault; the processes' own logs are theirs.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(f"{faults} faults, seed {number}", flush=True)
    try:
        report = asyncio.run(_run(faults, number, choice, patience, transport, is_clustered=clusters))
    except asyncio.CancelledError:
        sys.exit("stopped")
    print(shown(report, number, repeating(sys.argv[1:], number, os.environ.get(APP_SETTING, ""))))
    sys.exit(1 if report.violations else 0)


def repeating(arguments: Sequence[str], seed: int, app: str) -> str:
    """The command that repeats a run that had these arguments, and drew its seed if they name none."""
    drawn = [] if any(each.partition("=")[0] == "--seed" for each in arguments) else ["--seed", str(seed)]
    return f"{APP_SETTING}={app} " + shlex.join([".venv/bin/python", "-m", "tests.faults", *arguments, *drawn])


async def _run(
    faults: int, seed: int, choice: Choice, patience_s: float, transport: str, *, is_clustered: bool
) -> Report:
    """SIGTERM ends it as Ctrl-C does: nothing is left behind."""
    running = asyncio.ensure_future(
        run_chaos(faults, seed, choice, patience_s, is_on_redis=transport == "redis", is_clustered=is_clustered)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


if __name__ == "__main__":
    main()
