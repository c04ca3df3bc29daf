"""The first seeds of `make simulate`, and that a seed decides everything."""

import pytest

from tests.simulation.__main__ import report_of
from tests.simulation.schedule import Schedule
from tests.simulation.world import World

EVENTS = {
    "lands late",
    "is lost",
    "answer to COMMIT is lost",
    "crashes after its commit",
    "stalls at",
    "freezes until",
    "is deposed",
    "drops the publisher",
    "the broker restarts",
    "is cut off from its database",
    "its database cannot be reached at",
    "is cut off from the broker",
    "are forgotten",
    "the log of ledger forgets",
    "comes long afterwards",
    "the provider charges",
    "the provider is away",
    "a charge is given up",
    "worker-1 crashes",
    "worker-1 loses its deliveries",
    "worker-1 puts",
    "is rejected, the queue is full",
    "gives client",
    "asks again",
    "has stopped in order",
    "the operator pauses",
    "the operator cancels",
    "which blocks",
    "has lost its last",
    "at its newest copy",
    "the operator accepts what",
    "the cache is away",
    "the cache is flushed",
    "the cache is server",
    "expires in queue",
    "finds dead letters: marker",
    "a stranger says",
    "the operator orders lane.replay",
    "the operator orders lane.discard",
    "the operator orders lane.withdraw",
    "the operator orders lane.release",
    "the operator orders lane.dead_effect",
    "by one of the newer release",
    "which a newer release has announced",
    "waits with its COMMIT for the standby",
    "is over: received",
    "is over: cancelled",
    "is over: released",
    "is promoted: [] are lost",
    "is promoted: ['",
    "waits for no standby",
    "has read its settings meanwhile",
    "Conflict",
    "'expired'",
    "'failed'",
    "'rejected'",
}
"""Pieces of what a trace says."""
STATUSES = {"applied", "rejected", "failed", "expired"}
LETTERS = {
    "forbidden_command_type",
    "unknown_lane",
    "unknown_command_type",
    "handler_error",
    "database_refused",
    "reserved_command_id",
    "missing_command_id",
    "pack_too_large",
    "message_too_large",
    "malformed_json",
    "dead_lettered",
    "priority_not_taken",
    "idempotency_mismatch",
    "unknown_effect_type",
}
OLD_LETTER = "of an older release"
REACHED_WITHIN_SEEDS = 600


def test_the_promises_hold_under_every_fault() -> None:
    report = report_of(range(1, 101))
    assert report.seeds == 100
    assert report.failed == {}, "replay: python -m tests.simulation --seed … --trace"


def test_an_actor_that_nobody_wakes_is_found_in_the_seeds_that_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Schedule, "wake", lambda schedule, actor: None)
    failed = report_of(range(1, 17)).failed
    asleep = {seed for seed, found in failed.items() if any("an actor sleeps" in text for text in found)}
    assert asleep == {8, 16}


def test_the_same_seed_runs_the_same() -> None:
    for seed in range(1, 21):
        traces: list[list[str]] = [[], []]
        for trace in traces:
            World(seed, trace.append).run()
        assert traces[0] == traces[1]
        assert traces[0]


def reached(world: World, lines: list[str]) -> set[str]:
    """The events, outcomes of clients and letters of one run."""
    text = "\n".join(lines)
    letters = [letter for database in world.databases.values() for letter in database.book.ever.values()]
    return (
        {event for event in EVENTS if event in text}
        | {record.outcome.status for client in world.clients for record in client.records[:1] if record.outcome}
        | {letter.code for letter in letters}
        | {OLD_LETTER for letter in letters if letter.reason == OLD_LETTER}
    )


def test_the_seeds_reach_every_fault_and_every_outcome() -> None:
    """A simulation in which nothing happens proves nothing."""
    missing = EVENTS | STATUSES | LETTERS | {OLD_LETTER}
    for seed in range(1, REACHED_WITHIN_SEEDS + 1):
        lines: list[str] = []
        world = World(seed, lines.append)
        world.run()
        missing -= reached(world, lines)
        if not missing:
            return
    pytest.fail(f"not reached within {REACHED_WITHIN_SEEDS} seeds: {missing}")
