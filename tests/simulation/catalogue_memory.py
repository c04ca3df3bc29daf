"""Deliberate bugs in what a lane remembers, and must forget or take back; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.lane import knowledge as knowledge_module
from coordinator.lane import transactions as transactions_module
from coordinator.lane.admission import Admission
from coordinator.lane.identity_map import IdentityMap
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import Outbox
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.transactions import Transactions
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten
from tests.simulation.patching import Patches

_COUNTED = "if request.message.publisher_seq is not None and basis.spared < BARE:"


def _confirmed_handed_out_again(patches: Patches) -> None:
    patches.rewrite(Outbox, "begin_again", "self._confirmed.clear()", "pass")
    read = "for page, found in written.pages:"
    patches.rewrite(Transactions, "_note", read, f"self.outbox.deleted(written.confirmed)\n    {read}")


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "undo-keeps-the-unique-index",
        "what a rejected command was called is taken, or free, for its neighbours",
        IdentityMap,
        "undo",
        "if previous is ABSENT:",
        "if any(slots is index for kind in self.kinds.values() for index in kind.unique.values()):\n            pass\n"
        "        elif previous is ABSENT:",
    )
    yield rewritten(
        "waiting-command-not-counted",
        "the successor of a command that waits for its key is taken to be early",
        transactions_module,
        "settle_in_order",
        _COUNTED,
        _COUNTED.replace(":", " and (fate.outcome is not None or fate.entry is not None):"),
    )
    yield rewritten(
        "repetition-not-counted",
        "the successor of a command that was sent under two numbers is taken to be early",
        transactions_module,
        "settle_in_order",
        _COUNTED,
        _COUNTED.replace(":", " and not (fate.outcome is not None and fate.outcome.replayed):"),
    )
    yield rewritten(
        "runs-kept-over-channels",
        "a message is not acknowledged, since one with its tag on the channel before was not done",
        Admission,
        "forget",
        "self._runs.forget()",
        "pass",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "early-kept-over-channels",
        "early commands of a channel that is gone are settled with its tags",
        Admission,
        "forget",
        "self._order.forget()",
        "pass",
    )
    yield rewritten(
        "batch-kept-over-channels",
        "the batch of a channel that is gone is settled with its tags",
        Lane,
        "_forget",
        "self._batch = None",
        "pass",
    )
    yield rewritten(
        "mismatch-not-counted",
        "the successor of a command whose id was another party's is taken to be early",
        transactions_module,
        "settle_in_order",
        _COUNTED,
        _COUNTED.replace(":", " and not (fate.outcome is not None and fate.outcome.sequence is None):"),
    )
    yield rewritten(
        "only-the-first-page-read",
        "of many rows that a successor must know it knows some",
        knowledge_module,
        "_all",
        "if len(page) < PAGE_ROWS:",
        "if True:",
    )
    yield rewritten(
        "forgotten-publisher-looked-for",
        "a commit ends the process, since the lane has forgotten one of the publishers meanwhile",
        PublisherOrder,
        "advanced",
        "if row.name in self._next:",
        "if True:",
    )
    yield rewritten(
        "targets-left-out-in-silence",
        "of the outbox of many targets, what is not read at once is never read",
        Outbox,
        "pages",
        "return pages[:PAGES_AT_ONCE]",
        "for page in pages[PAGES_AT_ONCE:]:\n        self._windows[page.target].is_behind = False\n"
        "    return pages[:PAGES_AT_ONCE]",
    )
    yield Mutant(
        "confirmed-handed-out-again",
        "what a transaction deletes from the outbox, and has read there before, is published once more",
        _confirmed_handed_out_again,
    )
