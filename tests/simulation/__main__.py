"""`python -m tests.simulation`: run seeds; a failing one prints the command that replays it with a trace."""

import argparse
import os
import sys
import time
from contextlib import nullcontext
from functools import partial
from typing import Final

from msgspec import Struct

from tests.simulation.awake import is_watched, watched
from tests.simulation.spreading import spread
from tests.simulation.stream import StreamWorld
from tests.simulation.world import World

KINDS: Final[dict[str, type[World]]] = {"rabbitmq": World, "redis": StreamWorld}
BLOCK = 100
"""Seeds that one process runs before it reports."""


class Report(Struct):
    """What became of some seeds."""

    seeds: int = 0
    commands: int = 0
    stranded: int = 0
    failed: dict[int, list[str]] = {}
    """The violations by seed."""


def report_of(seeds: range, kind: type[World] = World) -> Report:
    """Run these seeds in worlds of this kind."""
    return _run(seeds, kind, is_traced=False)


def _run(seeds: range, kind: type[World], *, is_traced: bool) -> Report:
    report = Report()
    for is_under_watch in (False, True):
        with watched() if is_under_watch else nullcontext():
            these = [seed for seed in seeds if is_watched(seed) is is_under_watch]
            for world, found in kind.run_many(these, print if is_traced else None):
                report.seeds += 1
                report.stranded += world.stranded
                report.commands += sum(database.sequence for database in world.databases.values())
                if found:
                    report.failed[world.seed] = found
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--broker", choices=KINDS, default="rabbitmq", help="whose rules the lanes' queues follow")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--keep-going", action="store_true", help="run all seeds, whatever is found")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="among which to divide them")
    given = parser.parse_args()
    first, seeds = (given.first_seed, given.seeds) if given.seed is None else (given.seed, 1)
    blocks = [range(at, min(at + BLOCK, first + seeds)) for at in range(first, first + seeds, BLOCK)]
    began_at_s = time.monotonic()
    run = partial(_traced if given.trace else report_of, kind=KINDS[given.broker])
    reports = map(run, blocks) if given.trace else spread(run, blocks, given.processes)
    total = Report()
    for report in reports:
        total.seeds += report.seeds
        total.commands += report.commands
        total.stranded += report.stranded
        total.failed |= report.failed
        for seed, found in report.failed.items():
            print(f"seed {seed}: {len(found)} violations")
            for text in found[:10]:
                print(f"  {text}")
            print(f"  replay: python -m tests.simulation --broker {given.broker} --seed {seed} --trace")
        if total.failed and not given.keep_going:
            break
    rate = total.seeds / (time.monotonic() - began_at_s)
    print(f"{total.seeds} seeds, {total.commands} commands, {len(total.failed)} failed, {rate:.0f} seeds/s")
    if total.stranded:
        print(
            f"{total.stranded} times an idle lane had to be sent a marker before it published what a dead process left"
        )
    return 1 if total.failed else 0


def _traced(seeds: range, kind: type[World]) -> Report:
    return _run(seeds, kind, is_traced=True)


if __name__ == "__main__":
    sys.exit(main())
