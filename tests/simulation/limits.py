"""The product's limits on what it reads at once and remembers: a world may have them so small that they matter.

They are constants of the product, since nobody would change them. Within a run they are this world's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from coordinator.lane import knowledge, outbox, publisher_order

Limits = list[tuple[Any, str, Any]]
"""Modules, names of their constants, and the values in a world."""
_CHOICES = (
    (knowledge, "PAGE_ROWS", (1, 2)),
    (publisher_order, "KNOWN_MAX", (1, 2)),
    (outbox, "PAGES_AT_ONCE", (1, 2)),
)
SMALL_SHARE = 0.3
"""Of the seeds, in which each limit is small."""


def limits(chance: Callable[[], float]) -> Limits:
    """Those of one world; the others are the product's own."""
    return [
        (module, name, values[int(chance() * len(values))])
        for module, name, values in _CHOICES
        if chance() < SMALL_SHARE
    ]


@contextmanager
def in_force(chosen: Limits) -> Iterator[None]:
    """Give the constants these values within the block."""
    before = [(module, name, getattr(module, name)) for module, name, _ in chosen]
    for module, name, value in chosen:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
