"""`python -m tests.simulation.mutants`: plant each bug, run seeds until it is caught, and print a table."""

import argparse
import os
import sys
from typing import Final

from tests.simulation.catalogue import MUTANTS
from tests.simulation.mutant import Mutant
from tests.simulation.patching import Patches
from tests.simulation.spreading import spread
from tests.simulation.world import World

_sound: Final[dict[type[World], dict[int, bool]]] = {}
Caught = tuple[int, str]
"""The seed that catches a mutant, and what it says."""


def caught_by(mutant: Mutant, kind: type[World] = World) -> Caught | None:
    """The first seed that catches a mutant in such a world; None: it survives as many as it may."""
    first = 1
    while (caught := _found_by(mutant, range(first, mutant.seeds_max + 1), kind)) is not None:
        if is_sound(caught[0], kind):
            return caught
        first = caught[0] + 1
    return None


def _found_by(mutant: Mutant, seeds: range, kind: type[World]) -> Caught | None:
    seed = seeds.start
    with Patches() as patches:
        mutant.plant(patches)
        try:
            for world, found in kind.run_many(seeds):
                if found:
                    return world.seed, found[0]
                seed = world.seed + 1
        except Exception as error:  # noqa: BLE001  # a mutant that breaks the code is caught as well
            return seed, f"{type(error).__name__}: {error}"
    return None


def is_sound(seed: int, kind: type[World]) -> bool:
    """Whether this seed finds nothing without a mutant: else it proves nothing."""
    known = _sound.setdefault(kind, {})
    if seed not in known:
        known[seed] = not kind(seed).run()
    return known[seed]


def _caught_by_number(number: int) -> Caught | None:
    # A mutant holds functions that cannot be sent to another process.
    return caught_by(MUTANTS[number])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="among which to divide them")
    parser.add_argument("names", nargs="*", help="only these")
    given = parser.parse_args()
    numbers = [n for n, mutant in enumerate(MUTANTS) if not given.names or mutant.name in given.names]
    survivors = 0
    for number, caught in zip(numbers, spread(_caught_by_number, numbers, given.processes), strict=True):
        mutant = MUTANTS[number]
        survivors += caught is None
        seed, text = caught or ("-", f"SURVIVES {mutant.seeds_max} seeds")
        print(f"{mutant.name:36} {seed:>5}  {mutant.why}\n{'':43} {text[:150]}", flush=True)
    print(f"{len(numbers) - survivors}/{len(numbers)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
