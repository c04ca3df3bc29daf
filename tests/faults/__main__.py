"""`python -m tests.faults --faults N --seed S`: exit status 1 on any violation."""

import asyncio
import logging
import secrets
import signal
import sys

import click
import structlog

from tests.faults.run import Report, run_chaos, shown


@click.command()
@click.option("--faults", default=60, show_default=True, help="How many faults strike.")
@click.option("--seed", type=int, default=None, help="Decides which, where and when; by default a new one.")
def main(faults: int, seed: int | None) -> None:
    """Break the system in every way there is, and check that it keeps its promises."""
    number = secrets.randbelow(10**6) if seed is None else seed
    # What the clients' connections say of every fault; the processes' own logs are theirs.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(f"{faults} faults, seed {number}", flush=True)
    try:
        report = asyncio.run(_run(faults, number))
    except asyncio.CancelledError:
        sys.exit("stopped")
    print(shown(report, number))
    sys.exit(1 if report.violations else 0)


async def _run(faults: int, seed: int) -> Report:
    """SIGTERM ends it as Ctrl-C does: nothing is left behind."""
    running = asyncio.ensure_future(run_chaos(faults, seed))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


main()
