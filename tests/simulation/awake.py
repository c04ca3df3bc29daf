"""The watch over sleepers: an actor that could act while it sleeps is a violation.

An actor that nobody wakes acts late, and the histories in which it acts early are lost without a trace. The watch asks
every sleeper before each step, which draws on chance, so that watched histories are other ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.patching import Patches
from tests.simulation.world import World

WATCHED_EVERY = 8
"""Not every seed: a watched one costs a third more."""


@contextmanager
def watched() -> Iterator[None]:
    """All worlds that run meanwhile are watched."""
    act = World._act

    def act_awake(world: World) -> bool:
        if world.schedule.overslept(world.now):
            world.violation(f"at {world.now:.3f} an actor sleeps that has something to do")
        return act(world)

    with Patches() as patches:
        patches.replace(World, "_act", act_awake)
        yield


def is_watched(seed: int) -> bool:
    """A seed alone decides, so that it can be replayed."""
    return seed % WATCHED_EVERY == 0
