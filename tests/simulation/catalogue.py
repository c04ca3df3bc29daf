"""Deliberate bugs. The simulation must catch each of them: a checker that catches nothing proves nothing.

Some are planted in the product's code, and those that the edges or a store could have in what stands for them here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from msgspec import structs

from coordinator.lane import batch as batch_module
from coordinator.lane import handler_work as work_module
from coordinator.lane import settle as settle_module
from coordinator.lane import tenancy as tenancy_module
from coordinator.lane import transactions as transactions_module
from coordinator.lane import trying as trying_module
from coordinator.lane.acknowledger import Acknowledgement, Acknowledger
from coordinator.lane.basis import Fate
from coordinator.lane.delivery import Settlement
from coordinator.lane.identity_map import IdentityMap
from coordinator.lane.lane import Lane
from coordinator.lane.parking import ALONE
from coordinator.lane.pieces import Pieces
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.publisher_progress import PublisherProgress
from coordinator.lane.runs import Runs
from coordinator.lane.transactions import Transactions
from coordinator.lane.trying import tried
from coordinator.lane.untried import untried
from coordinator.lane.window import Window
from coordinator.protocol import decoding
from coordinator.protocol.fingerprints import Fingerprints
from coordinator.stores.lane_tables import LogEntry, OutboxEntry
from coordinator.stores.outcomes import from_log
from coordinator.stores.port import Changes, Fenced, Lease
from coordinator.transports.emitting import Target
from coordinator.transports.inbox import Inbox
from coordinator.worker.loop import LaneLoop
from tests.simulation import (
    catalogue_audit,
    catalogue_borders,
    catalogue_cache,
    catalogue_effects,
    catalogue_forgets,
    catalogue_losses,
    catalogue_memory,
    catalogue_outages,
    catalogue_parking,
    catalogue_rules,
    catalogue_standby,
    catalogue_timers,
)
from tests.simulation.database import Database, Pending
from tests.simulation.mutant import RARE_SEEDS_MAX, SEEDS_MAX, Mutant, rewritten
from tests.simulation.patching import Patches
from tests.simulation.process import Process, TracedLane
from tests.simulation.store import SimulatedStore, SimulatedTransaction

MUTANTS: list[Mutant] = []


def _mutant(why: str, seeds_max: int = SEEDS_MAX) -> Callable[[Callable[[Patches], None]], Callable[[Patches], None]]:
    def add(plant: Callable[[Patches], None]) -> Callable[[Patches], None]:
        MUTANTS.append(Mutant(plant.__name__.replace("_", "-"), why, plant, seeds_max))
        return plant

    return add


def _rewritten(name: str, why: str, owner: Any, function: str, old: str, new: str, seeds_max: int = SEEDS_MAX) -> None:
    MUTANTS.append(rewritten(name, why, owner, function, old, new, seeds_max))


_NOT_OFFERED_AGAIN = "self._suspended(channel, decision)):", "self._suspended(channel, decision)) or True:"

# The edges: acknowledging, nacking, settling.


@_mutant("a crash loses what was acknowledged and not yet committed")
def ack_before_commit(patches: Patches) -> None:
    def apply(original: Any, self: TracedLane, deliveries: Any, channel_number: int) -> Any:
        self.process.acknowledge(channel_number, [delivery.tag for delivery in deliveries])
        return original(self, deliveries, channel_number)

    patches.wrap(TracedLane, "apply", apply)


@_mutant("acknowledges all that was delivered, not what is settled")
def acknowledge_everything(patches: Patches) -> None:
    def acknowledge(_: Any, self: Acknowledger, tags: Any) -> list[Acknowledgement]:
        last = max(self._is_settled, default=0)
        self._is_settled.clear()
        return [Acknowledgement(last, multiple=True)] if last else []

    patches.wrap(Acknowledger, "acknowledge", acknowledge)


@_mutant("acknowledges up to the last settled delivery, over the early ones")
def acknowledge_over_the_early(patches: Patches) -> None:
    def acknowledge(_: Any, self: Acknowledger, tags: Any) -> list[Acknowledgement]:
        known = [tag for tag in tags if tag in self._is_settled]
        for tag in [tag for tag in self._is_settled if known and tag <= max(known)]:
            del self._is_settled[tag]
        return [Acknowledgement(max(known), multiple=True)] if known else []

    patches.wrap(Acknowledger, "acknowledge", acknowledge)


@_mutant("deliveries that wait for their predecessor are acknowledged with the batch")
def held_deliveries_acknowledged(patches: Patches) -> None:
    def apply(original: Any, self: TracedLane, deliveries: Any, channel_number: int) -> Any:
        decision = original(self, deliveries, channel_number)
        if isinstance(decision, Settlement):
            tags = {*decision.tags, *(delivery.tag for delivery in deliveries)}
            return structs.replace(decision, tags=sorted(tags))
        return decision

    patches.wrap(TracedLane, "apply", apply)


@_mutant("a nack puts messages back in another order")
def requeue_by_nack_on_suspension(patches: Patches) -> None:
    def suspended(original: Any, self: LaneLoop, number: int, suspension: Any) -> Any:
        process: Any = self._carrier
        channel = process.channel
        if channel is not None and number == process.channel_number:
            channel.inbound.clear()
            process.inbox._deliveries.clear()
            process.inbox._undecoded.clear()
            if process.lane._batch is not None:
                process.lane._batch.deliveries.clear()
            process.acknowledger = Acknowledger()
            process.world.broker.requeue_out_of_order(channel)
        return (yield from original(self, number, suspension))

    patches.wrap(LaneLoop, "_suspended", suspended)
    patches.rewrite(LaneLoop, "_apply", *_NOT_OFFERED_AGAIN)


@_mutant("what is not acknowledged comes back in another order")
def cancel_before_close(patches: Patches) -> None:
    def finish(original: Any, self: Process, channel: Any) -> bool:
        if channel is not None and channel.is_open and not channel.outbound:
            self.world.broker.requeue_out_of_order(channel)
        return bool(original(self, channel))

    patches.wrap(Process, "finish", finish)


@_mutant("acknowledges other messages that have the same tags on the new channel")
def zombie_settles_on_the_new_channel(patches: Patches) -> None:
    patches.rewrite(Process, "acknowledge", "channel is not None and channel_number == self.channel_number", "channel")


@_mutant("an emitted command that the broker refuses once is forgotten")
def refused_emission_dropped(patches: Patches) -> None:
    patches.replace(Target, "put_back", lambda self, entries: None)


@_mutant("the outbox is emptied before the broker has the commands")
def outbox_confirmed_at_once(patches: Patches) -> None:
    def publish(original: Any, self: Process, entries: Any) -> None:
        self.confirmed.extend(entries)
        self.inbox.nudge()
        original(self, entries)

    patches.wrap(Process, "emit", publish)


@_mutant("who has lost the lane keeps its connection, and the messages with it")
def no_stand_by(patches: Patches) -> None:
    patches.replace(Process, "stand_by", lambda self, channel_number: None)


@_mutant("the batch that had to wait is never settled")
def suspension_drops_the_batch(patches: Patches) -> None:
    def suspended(original: Any, self: LaneLoop, number: int, suspension: Any) -> Any:
        if self._lane._batch is not None:
            self._lane._batch.deliveries.clear()
        return (yield from original(self, number, suspension))

    patches.wrap(LaneLoop, "_suspended", suspended)
    patches.rewrite(LaneLoop, "_apply", *_NOT_OFFERED_AGAIN)


@_mutant("the cache keeps an older version than the one a client was told")
def projection_not_announced(patches: Patches) -> None:
    patches.rewrite(LaneLoop, "_announced", "if projection is None:", "if True:")


@_mutant("deliveries of a lost channel are applied with the tags of the next one")
def old_channel_kept(patches: Patches) -> None:
    patches.rewrite(Inbox, "begin_channel", "self._deliveries.clear()", "pass")


# The fence and the lease.


@_mutant("a stale consumer commits")
def no_fence(patches: Patches) -> None:
    patches.replace(Database, "fence", lambda self, lease: None)


@_mutant("a plain read sees the epoch as it was when the transaction began")
def fence_by_plain_read(patches: Patches) -> None:
    def begin(original: Any, self: SimulatedStore) -> Any:
        transaction = original(self)
        database = self.database
        transaction.seen = (database.epoch, database.sequence, database.revision)
        return transaction

    def check_fence(self: Any, lease: Lease) -> None:
        if self.seen != (lease.epoch, lease.sequence, lease.revision):
            raise Fenced("seen at begin")

    patches.wrap(SimulatedStore, "begin", begin)
    patches.replace(SimulatedTransaction, "check_fence", check_fence)


@_mutant("a write that changes nothing conflicts with nobody: a takeover in between goes unseen")
def no_op_fence(patches: Patches) -> None:
    def load(original: Any, self: Any, *arguments: Any) -> Any:
        if not hasattr(self, "seen"):
            self.seen = self.database.epoch
        return original(self, *arguments)

    def check_fence(self: Any, lease: Lease) -> None:
        if getattr(self, "seen", lease.epoch) != lease.epoch:
            raise Fenced("seen in the snapshot")

    patches.wrap(SimulatedTransaction, "load", load)
    patches.replace(SimulatedTransaction, "check_fence", check_fence)


def _fence_without(patches: Patches, *ignored: str) -> None:
    names = [name for name in ("epoch", "sequence", "revision") if name not in ignored]

    def fence(self: Database, lease: Lease) -> None:
        if any(getattr(self, name) != getattr(lease, name) for name in names):
            raise Fenced(f"by {names}")

    patches.replace(Database, "fence", fence)


@_mutant("an operator's pause or cancellation is overlooked by a batch under way")
def fence_ignores_revision(patches: Patches) -> None:
    _fence_without(patches, "revision")


@_mutant("a stale consumer commits if its successor has not committed yet")
def fence_ignores_epoch(patches: Patches) -> None:
    _fence_without(patches, "epoch")


@_mutant("the old holder's commits go on passing the fence")
def epoch_not_raised(patches: Patches) -> None:
    patches.rewrite(SimulatedStore, "_raise_epoch", "max(database.epoch, above) + 1", "database.epoch")


@_mutant("a commit in flight lands after the successor has read the log")
def takeover_does_not_wait(patches: Patches) -> None:
    patches.rewrite(SimulatedStore, "take_over", "self.database.wait_for_commit()", "pass")


@_mutant("its own commit in flight lands after the log was read again")
def renewal_does_not_wait(patches: Patches) -> None:
    patches.rewrite(SimulatedStore, "renew", "self.database.wait_for_commit()", "pass")


@_mutant("after a commit of unknown fate the log is read before the lease is renewed, under a fence by epoch")
def renewal_skipped(patches: Patches) -> None:
    _fence_without(patches, "sequence")
    patches.rewrite(Lane, "_suspended", "not isinstance(error, Conflict | Refusal)", "False")


@_mutant("numbering starts again with every batch")
def sequence_not_continued(patches: Patches) -> None:
    for way in ("_assume_new", "_ask_and_apply"):
        patches.rewrite(
            Transactions,
            way,
            "settle_in_order(basis, requests, lease.sequence, culprits)",
            "settle_in_order(basis, requests, 0, culprits)",
        )


_rewritten(
    "pause-ignored",
    "a paused lane goes on",
    tenancy_module,
    "_check_paused",
    "lease.paused is not None",
    "False",
)

# The log.


@_mutant("what another process has settled is applied again")
def dedupe_by_memory_only(patches: Patches) -> None:
    def known(original: Any, work: Any, requests: Any, refs: Any) -> dict[str, LogEntry]:
        original(work, requests, refs)
        memory = work._transaction.store.__dict__.setdefault("memory", {})
        names = {request.message.command_id for request in requests}
        return {name: entry for name, entry in memory.items() if name in names}

    def commit(original: Any, self: Any, lease: Lease, sequence: int, changes: Changes) -> None:
        original(self, lease, sequence, changes)
        entries = [row for rows in changes.inserts for row in rows if type(row) is LogEntry]
        self.store.__dict__.setdefault("memory", {}).update((entry.command_id, entry) for entry in entries)

    patches.wrap(transactions_module, "known_entries", known)
    patches.wrap(SimulatedTransaction, "commit", commit)


@_mutant("a crash between two transactions leaves an effect without its log entry")
def log_in_another_transaction(patches: Patches) -> None:
    def commit(original: Any, self: Any, lease: Lease, sequence: int, changes: Changes) -> None:
        entries = [rows for rows in changes.inserts if type(rows[0]) is LogEntry]
        others = [rows for rows in changes.inserts if type(rows[0]) is not LogEntry]
        original(self, lease, lease.sequence, Changes(changes.deletes, changes.updates, others))
        self.store.call("second commit")
        self.database.fence(lease)
        process = self.store.process
        self.database.land(
            Pending(process, lease, sequence, Changes([], [], entries), process.waiting, *process.seen.at_commit())
        )

    patches.wrap(SimulatedTransaction, "commit", commit)


@_mutant("a replay answers with what would happen now")
def outcome_recomputed(patches: Patches) -> None:
    def settle(original: Any, basis: Any, request: Any, *others: Any) -> Any:
        entry = basis.known.get(request.message.command_id)
        if entry is None or entry.fingerprint != request.fingerprint or request.command is None:
            return original(basis, request, *others)
        verdict = untried(basis, request, ALONE, None, None) or tried(basis, request)
        basis.work.undo()
        recomputed = structs.replace(
            entry,
            status=verdict.status,
            result=verdict.result.decode() if verdict.result else None,
            error_code=verdict.code,
            error_message=verdict.text,
        )
        return Fate(from_log(recomputed, replayed=True))

    patches.wrap(settle_module, "settle", settle)


_rewritten(
    "mismatch-not-detected",
    "an id with other content gets the outcome of the first",
    settle_module,
    "repeated",
    "not is_known",
    "False",
)
_rewritten(
    "fingerprint-without-arguments",
    "an id with other arguments passes for the same command",
    Fingerprints,
    "_made",
    "digest.update(content)",
    "pass",
)
_rewritten(
    "fingerprint-by-former-key",
    "once the lane has another key, a repetition of what it logged before is taken for another command",
    Fingerprints,
    "is_same",
    "name not in self._begun",
    "name != self._used",
)
_rewritten(
    "emitted-id-by-newest-key",
    "once the lane has another key, what is applied once more emits another command",
    Fingerprints,
    "__init__",
    '(keys or {}).get(FIRST_KEY, "")',
    '(keys or {0: ""})[max(keys or {0: ""})]',
)
_rewritten(
    "lease-not-proved-for-an-unknown-key",
    "whoever was taken over calls a command another's, which his successor has logged with a key that came later",
    Transactions,
    "_ask_and_apply",
    "proves_lease=is_in_doubt",
    "proves_lease=False",
)
_rewritten(
    "deadline-ignored",
    "a late command is applied",
    settle_module,
    "untried",
    "if is_over(basis, message)",
    "if False",
)
_rewritten(
    "deadline-lost-in-packs",
    "a late command of a pack is applied",
    decoding,
    "_of_packed",
    "astuple(packed)",
    "astuple(msgspec.structs.replace(packed, deadline=None))",
)
_rewritten(
    "version-not-checked",
    "a stale expected version overwrites",
    trying_module,
    "_has_version",
    "row.version != expected",
    "False",
)
_rewritten(
    "cancellation-ignored",
    "a cancelled command is applied",
    settle_module,
    "untried",
    "if cancellation is not None:",
    "if False:",
)

# The unit of work and the batch.


@_mutant("what a rejected command changed is kept")
def undo_skipped(patches: Patches) -> None:
    patches.replace(IdentityMap, "undo", lambda self: None)


_rewritten(
    "next-id-not-undone",
    "a rejected command uses a number up",
    IdentityMap,
    "undo",
    "if previous is ABSENT:",
    "if type(slots.get(key)).__name__ == 'Series':\n            pass\n        elif previous is ABSENT:",
)
_rewritten(
    "piece-drops-a-command",
    "a neighbour of a refused command vanishes",
    Pieces,
    "committed",
    "self._left -= size",
    "self._left -= size + 1 if self._suspected > 1 and self._left > size else size",
)
_rewritten(
    "piece-settles-a-command-again",
    "the last command of a piece is settled again with the next",
    Pieces,
    "committed",
    "self._left -= size",
    "self._left -= size - 1 if self._suspected and size > 1 else size",
)
_rewritten(
    "piece-skips-its-first-half",
    "what comes after a culprit is applied before what comes before it",
    Window,
    "piece",
    "return self.pending[: self._pieces.carried + size], self._culprits",
    "pending = self.pending; return (pending[: self._pieces.carried + size] if self.is_whole or self._culprits "
    "else pending[-size:]), self._culprits",
)
_rewritten(
    "fault-fails-the-batch",
    "the neighbours of a refused command are refused with it",
    Pieces,
    "refused",
    "if size > 1:",
    "if size > 2:",
    RARE_SEEDS_MAX,
)
_rewritten(
    "prefix-of-a-blocked-batch-kept",
    "what came before a blocking command is settled again and again",
    batch_module,
    "whole_deliveries",
    "batch.popleft()",
    "batch[at]",
)

# Publisher sessions.

_rewritten(
    "publisher-order-ignored",
    "a command overtakes one that was refused by a full queue",
    PublisherOrder,
    "admit",
    "if span.first <= self._next[span.publisher]:",
    "if True:",
)
_rewritten(
    "position-not-stored",
    "a successor waits for predecessors that are long settled",
    PublisherProgress,
    "save",
    "return list(self._moved.values())",
    "return []",
)
_rewritten(
    "gap-given-up-at-once",
    "a predecessor that is on its way is overtaken",
    PublisherOrder,
    "admit",
    ">= self._gap_timeout_s",
    ">= 0",
)
_rewritten(
    "pack-not-taken-apart",
    "a pack with numbers in another order, or left out, is applied as it stands",
    Runs,
    "of",
    "if len(runs) <= 1:",
    "if True:",
)
_rewritten(
    "part-acknowledges-its-pack",
    "a pack is acknowledged while a part of it is early: a crash loses that part",
    Runs,
    "completed",
    "if left:",
    "if False:",
)


@_mutant("a predecessor that never comes stops its publisher for ever", RARE_SEEDS_MAX)
def gap_never_given_up(patches: Patches) -> None:
    patches.replace(PublisherOrder, "due_in_s", lambda self, now_s: None)
    patches.rewrite(PublisherOrder, "admit", ">= self._gap_timeout_s", ">= 1e9")


# The outbox.


@_mutant("a crash after the commit loses what was emitted")
def outbox_row_not_stored(patches: Patches) -> None:
    def commit(original: Any, self: Any, lease: Lease, sequence: int, changes: Changes) -> None:
        kept = [rows for rows in changes.inserts if type(rows[0]) is not OutboxEntry]
        original(self, lease, sequence, Changes(changes.deletes, changes.updates, kept))

    patches.wrap(SimulatedTransaction, "commit", commit)


@_mutant("what a dead process had emitted is never published")
def outbox_not_republished(patches: Patches) -> None:
    def scan(original: Any, self: Any, model: Any, *arguments: Any) -> Any:
        return [] if model is OutboxEntry else original(self, model, *arguments)

    patches.wrap(SimulatedTransaction, "scan", scan)


@_mutant("the outbox grows for ever")
def outbox_never_emptied(patches: Patches) -> None:
    patches.replace(Lane, "confirm", lambda self, entries: None)


@_mutant("a repeated emission is another command")
def emitted_ids_random(patches: Patches) -> None:
    numbers = itertools.count(1)
    patches.replace(work_module, "derived_command_id", lambda *named: f"{next(numbers):08x}-0000-4000-8000-{0:012d}")


@_mutant("what a rejected command emitted is published all the same")
def emission_not_undone(patches: Patches) -> None:
    patches.rewrite(
        IdentityMap,
        "undo",
        "if previous is ABSENT:",
        "kind = type(slots.get(key)).__name__\n        if kind == 'OutboxEntry' or kind == 'Series' "
        "and key == 'outbox':\n            pass\n        elif previous is ABSENT:",
    )


MUTANTS += catalogue_parking.mutants()
MUTANTS += catalogue_borders.mutants()
MUTANTS += catalogue_losses.mutants()
MUTANTS += catalogue_memory.mutants()
MUTANTS += catalogue_cache.mutants()
MUTANTS += catalogue_outages.mutants()
MUTANTS += catalogue_effects.mutants()
MUTANTS += catalogue_forgets.mutants()
MUTANTS += catalogue_timers.mutants()
MUTANTS += catalogue_audit.mutants()
MUTANTS += catalogue_rules.mutants()
MUTANTS += catalogue_standby.mutants()
