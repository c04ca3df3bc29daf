"""Deliberate bugs in what keeps a lane above the commits that its database has lost; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.lane.high_water import HighWater
from coordinator.lane.knowledge import Knowledge
from coordinator.lane.pauses import Pauses
from coordinator.lane.transactions import Transactions
from coordinator.worker.loop import LaneLoop
from tests.simulation import chaos
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "mark-not-read-at-takeover",
        "a successor goes on where the copy ends, and gives sequences out again",
        LaneLoop,
        "run",
        "if taken.mark is not None:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "loss-goes-unnoticed",
        "the lane goes on though commits are lost, and nobody has accepted it",
        HighWater,
        "check",
        "if self.sequence > (accepted or found):",
        "if False:",
    )
    yield rewritten(
        "another-database-goes-unnoticed",
        "the lane goes on in another database, since that has come further than its own",
        HighWater,
        "check",
        "if lease is not None and self.sequence and lease.is_other(self.lineage):",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "copy-that-went-on-goes-unnoticed",
        "the lane goes on in a copy of its database that has gone on by itself, since that has come further",
        HighWater,
        "compare",
        "if not LastCommand(sequence, command_id).is_belied_by(found):",
        "if True:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "loss-accepted-in-a-copy-counts",
        "the lane goes on in a copy of its database, since a loss of less was accepted there",
        HighWater,
        "_check_given_up",
        "self._ids_known_to <= up_to",
        "True",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "last-command-not-kept",
        "the mark does not name the last command, so a successor cannot tell a copy that has gone on by itself",
        HighWater,
        "settled",
        "self._last = sequence, command_id",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "what-was-seen-in-such-a-copy-is-kept",
        "the mark says how far such a copy has come, and the lane's own database is taken for one that lags",
        HighWater,
        "compare",
        "self.sequence = self._ids_known_to",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "another-database-keeps-the-lane",
        "whoever has the wrong database stays the active consumer, and one with the right one gets no turn",
        Pauses,
        "_unfit",
        "stands_back = left_s <= _OPERATOR_DELAY_S",
        "stands_back = isinstance(error, Outdated)",
    )
    yield rewritten(
        "mark-of-another-history-is-added",
        "a mark of another history counts for this one, so it is not known which of them the lane has",
        HighWater,
        "learn",
        "self.lineage, self._supersedes = mark.lineage,",
        "self.lineage, self._supersedes = self.lineage or mark.lineage,",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "acceptance-asks-for-no-loss",
        "an operator who types a wrong number makes a hole in a lane that has lost less, or nothing",
        chaos,
        "why_not_accepted",
        "if not mark.sequence <= up_to <= mark.sequence + BEHIND_MAX:",
        "if False:",
    )
    yield rewritten(
        "accepted-loss-not-asked-about",
        "whoever was stalled while another was blocked takes the lane over below the ids that were given out",
        HighWater,
        "check_accepted",
        "if self._wondered_at != up_to:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "any-loss-is-accepted",
        "whoever has accepted one loss has accepted the next",
        HighWater,
        "check",
        "self.sequence > (accepted or found)",
        "accepted is None and self.sequence > found",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "acceptance-is-never-over",
        "an operator's acceptance is in force for whoever restores a copy that has it",
        HighWater,
        "check",
        "(lease.sequence, lease.lost_up_to)",
        "(lease.sequence, None if lease.loss_accepted is None else self.sequence)",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "ids-of-before-not-learnt",
        "a mark that began later than the ids lets them be given out again after a loss",
        Knowledge,
        "_learn_series",
        "self._high_water.found(found, are_all=are_all)",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "sequences-go-back",
        "what was lost and accepted gives its sequences to others",
        Transactions,
        "go_above",
        "lease, high_water.sequence, self._notes.added(changes, lease)",
        "lease, lease.sequence, changes",
    )
    yield rewritten(
        "series-go-back",
        "what was lost and accepted gives its ids to others",
        HighWater,
        "series_above",
        "for name, value in self._series.items()",
        "for name, value in ()",
    )
    yield rewritten(
        "conflict-on-the-way-above",
        "a conflict on the way above a loss leaves the lane below it",
        Transactions,
        "go_above",
        "self._tenancy.block()",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "count-taken-for-a-series",
        "letters without an id that are gone take the place of others after a loss",
        HighWater,
        "_count",
        "if name in COUNTS:",
        "if False:",
        RARE_SEEDS_MAX,
    )
