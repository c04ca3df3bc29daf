"""A deliberate bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tests.simulation.patching import Patches


class Mutant(Struct, frozen=True):
    """A bug with a name, one line on what is wrong with it, and how it is planted."""

    name: str
    why: str
    plant: Callable[[Patches], None]


def rewritten(name: str, why: str, owner: Any, function: str, old: str, new: str) -> Mutant:
    """A bug in a piece of a function's source."""
    return Mutant(name, why, lambda patches: patches.rewrite(owner, function, old, new))
