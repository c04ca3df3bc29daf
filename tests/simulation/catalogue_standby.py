"""Deliberate bugs in what a lane proves of its synchronous standby, and tells others; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.lane.high_water import HighWater
from coordinator.lane.lane import Lane
from coordinator.lane.tenancy import Tenancy
from coordinator.lane.transactions import Transactions
from coordinator.worker.loop import LaneLoop
from tests.simulation import standby
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten
from tests.simulation.standby import ReplicatedDatabase, StandbyStore, StandbyTransaction


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "proof-believed-after-a-roll-back",
        "a batch of repetitions counts as the commit that proves the one before",
        Transactions,
        "_commit",
        "transaction.rollback()",
        "transaction.rollback(); self._tenancy.committed(sequence)",
    )
    yield rewritten(
        "standby-proved-once",
        "that commits wait for a standby is proved with the lease, and not in each transaction",
        StandbyTransaction,
        "prove_standby",
        "self.store.check_standby()",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "commit-that-proves-itself",
        "a lane takes its last commit for told to be safe",
        Tenancy,
        "committed",
        "None if lease.proved is None else lease.sequence",
        "None if lease.proved is None else sequence",
    )
    yield rewritten(
        "fence-that-proves-its-own-commit",
        "readers believe a commit for which no standby was waited yet",
        ReplicatedDatabase,
        "proved_by",
        "return self.sequence",
        "return commit.sequence",
    )
    yield rewritten(
        "idle-lane-that-proves-nothing",
        "nobody wakes an idle lane to prove its last commit",
        LaneLoop,
        "_wait",
        "if self._lane.is_unproved(channel):",
        "if False:",
    )
    yield rewritten(
        "proof-only-with-other-work",
        "an idle lane proves its last commit only if there is something to be swept",
        Lane,
        "sweep",
        "if not has_work and not self._tenancy.is_unproved:",
        "if not has_work:",
    )
    yield rewritten(
        "blocked-lane-that-proves-nothing",
        "what is settled before a command that blocks the lane stays pending for readers",
        Lane,
        "_settle",
        "if self._tenancy.is_unproved:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "cancelled-wait-taken-for-success",
        "the server's warning that the standby may not have a commit is not heard",
        ReplicatedDatabase,
        "check_waited",
        'if wait.end == "cancelled":',
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "wait-ended-by-another-setting",
        "a commit is acknowledged for which the server was told to wait no more",
        ReplicatedDatabase,
        "check_settings",
        "if self.settings_read != settings_read:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "renewal-that-no-standby-has",
        "after an unknown commit the log is believed though nothing says that the standby has it",
        StandbyStore,
        "check_raised",
        "if self.database.received < number or self.database.connections != connections:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "shown-entry-taken-for-an-outcome",
        "a gateway answers with an entry of the log that a failover loses",
        standby,
        "proved_entry",
        "return entry if proved is None or entry.sequence <= proved else None",
        "return entry",
    )
    yield rewritten(
        "shown-commit-taken-for-acknowledged",
        "a standby process blocks the lane for the loss of a commit of which nobody was told",
        HighWater,
        "seen",
        "self.rise(lease.safe_sequence",
        "self.rise(lease.sequence",
        RARE_SEEDS_MAX,
    )
