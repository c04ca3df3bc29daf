"""`python -m tests.simulation.mutants`: plant each bug, run seeds until it is caught, and print a table."""

import argparse
import sys
from functools import cache

from tests.simulation.catalogue import MUTANTS
from tests.simulation.mutant import Mutant
from tests.simulation.patching import Patches
from tests.simulation.world import World

SEEDS_MAX = 6000


def caught_by(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> tuple[int, str] | None:
    """The first seed that catches a mutant, and what it says; None: it survives."""
    for seed in range(1, seeds_max + 1):
        with Patches() as patches:
            mutant.plant(patches)
            try:
                found = World(seed).run()
            except Exception as error:  # noqa: BLE001  # a mutant that breaks the code is caught as well
                found = [f"{type(error).__name__}: {error}"]
        if found and is_sound(seed):
            return seed, found[0]
    return None


@cache
def is_sound(seed: int) -> bool:
    """Whether this seed finds nothing without a mutant: else it proves nothing."""
    return not World(seed).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="how many seeds a mutant may survive")
    parser.add_argument("names", nargs="*", help="only these")
    given = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if not given.names or mutant.name in given.names]
    survivors = 0
    for mutant in mutants:
        caught = caught_by(mutant, given.seeds)
        survivors += caught is None
        seed, text = caught or ("-", "SURVIVES")
        print(f"{mutant.name:36} {seed:>5}  {mutant.why}\n{'':43} {text[:150]}", flush=True)
    print(f"{len(mutants) - survivors}/{len(mutants)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
