"""Deliberate bugs in what keeps readers from the cache's stale entries; part of tests/simulation/catalogue.py."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.cache.lease import CacheLease
from coordinator.worker.loop import LaneLoop
from tests.simulation.cache import Redis
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "outcome-before-the-cache",
        "an outcome is sent while readers may still believe what was before",
        LaneLoop,
        "_announced",
        "while (wait_s := self._wait_s(projection, settlement)) > 0:",
        "while (wait_s := self._wait_s(projection, settlement)) > 1e9:",
    )
    yield rewritten(
        "lease-of-the-lane-before",
        "a successor does not wait for the lease of the lane before",
        CacheLease,
        "begin",
        "self._trusted_until_s = max(self._trusted_until_s, now_s + self._lease_s)",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "lost-server-forgotten",
        "after a failover the readers of the old server are not waited for",
        CacheLease,
        "claimed",
        "if elsewhere_ms > 0:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "fill-without-its-token",
        "a reader fills an entry with what it read before a change",
        Redis,
        "_fill",
        'if self._alive() != generation or (found.get("generation"), found.get("token")) != (generation, token):',
        "if self._alive() != generation:",
        3 * RARE_SEEDS_MAX,
    )
    yield rewritten(
        "entries-outlive-their-generation",
        "an entry of a generation that is over is believed",
        Redis,
        "_read",
        'if found.get("generation") == generation:',
        "if True:",
        RARE_SEEDS_MAX,
    )
