"""`python -m tests.simulation`: run seeds; a failing one prints the command that replays it with a trace."""

import argparse
import sys
import time

from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--keep-going", action="store_true", help="run all seeds, whatever is found")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds) if given.seed is None else [given.seed]
    started = time.process_time()
    failed = commands = ran = stranded = 0
    for world, found in World.run_many(seeds, print if given.trace else None):
        seed = world.seed
        ran += 1
        stranded += world.stranded
        commands += sum(database.sequence for database in world.databases.values())
        if found:
            failed += 1
            print(f"seed {seed}: {len(found)} violations")
            for text in found[:10]:
                print(f"  {text}")
            print(f"  replay: python -m tests.simulation --seed {seed} --trace")
            if not given.keep_going:
                break
    processor_s = time.process_time() - started
    print(f"{ran} seeds, {commands} commands, {failed} failed, {ran / processor_s:.0f} seeds/s of one core")
    if stranded:
        print(f"{stranded} times an idle lane had to be sent a marker before it published what a dead process left")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
