"""A few thousand seeds, and that a seed decides everything."""

import pytest

from tests.simulation.world import World

SEEDS = 1000
BLOCK = 250


@pytest.mark.parametrize("first", range(1, SEEDS + 1, BLOCK))
def test_the_promises_hold_under_every_fault(first: int) -> None:
    for world, violations in World.run_many(range(first, first + BLOCK)):
        assert not violations, f"replay: python -m tests.simulation --seed {world.seed} --trace"


def test_the_same_seed_runs_the_same() -> None:
    for seed in range(1, 21):
        traces: list[list[str]] = [[], []]
        for trace in traces:
            World(seed, trace.append).run()
        assert traces[0] == traces[1]
        assert traces[0]


@pytest.mark.parametrize("first", range(SEEDS + 1, 2 * SEEDS + 1, BLOCK))
def test_nobody_sleeps_while_there_is_something_for_him_to_do(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """An actor that nobody wakes acts late, and the histories in which it acts early are lost without a trace.

    The promises hold in these histories too.
    """
    act = World._act

    def act_awake(world: World) -> bool:
        assert not world.schedule.overslept(world.now), f"seed {world.seed}, at {world.now}"
        return act(world)

    monkeypatch.setattr(World, "_act", act_awake)
    for world, violations in World.run_many(range(first, first + BLOCK)):
        assert not violations, f"replay: python -m tests.simulation --seed {world.seed} --trace"


def test_the_seeds_reach_every_fault_and_every_outcome() -> None:
    """A simulation in which nothing happens proves nothing."""
    lines: list[str] = []
    worlds = [World(seed, lines.append) for seed in range(1, 401)]
    for world in worlds:
        world.run()
    text = "\n".join(lines)
    for event in (
        "lands late",
        "is lost",
        "answer to COMMIT is lost",
        "crashes after its commit",
        "stalls at",
        "freezes until",
        "is deposed",
        "drops the publisher",
        "the broker restarts",
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
        "Conflict",
        "'expired'",
        "'failed'",
        "'rejected'",
    ):
        assert event in text, event
    statuses = {
        client.records[0].outcome.status for world in worlds for client in world.clients if client.records[0].outcome
    }
    assert {"applied", "rejected", "failed", "expired"} <= statuses
    letters = [
        letter for world in worlds for database in world.databases.values() for letter in database.book.ever.values()
    ]
    assert {
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
    } <= {letter.code for letter in letters}
    assert any(letter.reason == "of an older release" for letter in letters)
