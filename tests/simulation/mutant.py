"""A deliberate bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tests.simulation.patching import Patches

SEEDS_MAX = 600
"""Within how many seeds a bug must be caught, most are in the first ten: what takes more is hardly looked for."""
RARE_SEEDS_MAX = 4000
"""The same, where several rare things must come together for it to show."""


class Mutant(Struct, frozen=True):
    """A bug with a name, one line on what is wrong with it, and how it is planted."""

    name: str
    why: str
    plant: Callable[[Patches], None]
    seeds_max: int = SEEDS_MAX


def rewritten(name: str, why: str, owner: Any, function: str, old: str, new: str, seeds_max: int = SEEDS_MAX) -> Mutant:
    """A bug in a piece of a function's source."""
    return Mutant(name, why, lambda patches: patches.rewrite(owner, function, old, new), seeds_max)
