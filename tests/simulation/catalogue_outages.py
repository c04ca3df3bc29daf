"""Deliberate bugs in what a lane does while one of its ways is cut off, and after rows were removed beside it; part of
the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.lane.knowledge import Knowledge
from coordinator.lane.publisher_progress import PublisherProgress
from coordinator.worker.loop import LaneLoop
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten
from tests.simulation.publisher import Publisher


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "suspension-outlives-its-channel",
        "a lane that could not reach its database goes on with deliveries that another consumer has by then",
        LaneLoop,
        "_suspended",
        "return is_void",
        "return False",
    )
    yield rewritten(
        "unconfirmed-not-repeated",
        "what was under way when the broker was out of reach is never sent again",
        Publisher,
        "step",
        "link.outbound.append((number, target, payload))",
        "pass",
    )
    yield rewritten(
        "number-forgotten-with-its-entry",
        "a copy that comes after the log has forgotten its command is applied, though its number was settled",
        PublisherProgress,
        "is_counted",
        "return not any(first <= number <= last for first, last in _gaps(row))",
        "return False",
    )
    yield rewritten(
        "counts-outlive-a-removal",
        "a lane counts letters on from before others were removed beside it",
        Knowledge,
        "read",
        "self._series = {}",
        "pass",
        RARE_SEEDS_MAX,
    )
