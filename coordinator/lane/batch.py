"""One batch: what its transactions have done, and what of it is told to whom."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from coordinator.lane.delivery import Delivery, Reply, Settlement
from coordinator.lane.letters import source_of_nameless
from coordinator.lane.named_rows import reads
from coordinator.lane.request import Request
from coordinator.lane.settle import Settled
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.rows import Ref, Row, by_key, by_unique
from coordinator.stores.lane_tables import LANE_MODELS, Counter, DeadLetter, LogEntry, OutboxEntry
from coordinator.stores.port import Changes, Read
from coordinator.stores.row_checks import RowChecks


class Committed(Struct):
    """What the transactions of a batch have done so far. `released` are commands that no delivery of it brought."""

    settled: list[Settled] = []
    released: list[tuple[Request, Settled]] = []
    emitted: list[OutboxEntry] = []
    withdrawn: list[int] = []
    saved: list[Row] = []
    removed: list[Ref[Row]] = []


def letter_refs(requests: Iterable[Request], lane: str) -> list[Ref[Row]]:
    """The dead letters that requests without an id may be copies of."""
    return [
        by_unique(DeadLetter, "source", source_of_nameless(request.message, request.problem, lane))
        for request in requests
        if request.message.command_id is None and request.letter is None
    ]


def known_entries(work: BatchWork, requests: Sequence[Request], refs: Iterable[Ref[Row]]) -> dict[str, LogEntry]:
    """What the log says about the ids of a batch; the rows that it names are read in the same round trip."""
    ids = list({request.message.command_id: None for request in requests if request.message.command_id is not None})
    log = [Read(LogEntry, LogEntry.key, ids)] if ids else []
    return {entry.command_id: entry for entries in work.prefetch(refs, *log) for entry in entries}


def told_again(
    work: BatchWork, requests: Sequence[Request], known: Mapping[str, LogEntry], checks: RowChecks
) -> tuple[list[Row], list[Ref[Row]]]:
    """The rows that commands name which are settled already, as they are now, and those that are gone.

    Whoever settled them may have died, or lost its database, between the commit and telling the projections.
    """
    saved: list[Row] = []
    removed: list[Ref[Row]] = []
    if not known:
        return saved, removed
    refs, _ = reads([request for request in requests if request.message.command_id in known], checks)
    work.prefetch(refs)
    for ref in refs:
        row = work.find(ref.model, ref.column, ref.value)
        if row is not None:
            saved.append(row)
        elif ref.column == ref.model.key:
            removed.append(ref)
    return saved, removed


def record(committed: Committed, requests: Sequence[Request], settled: list[Settled], changes: Changes) -> list[int]:
    """Note what a transaction has done, once it is committed; return which emitted commands it has withdrawn."""
    withdrawn: list[int] = []
    for request, done in zip(requests, settled, strict=False):
        if request.parked_key is not None:
            committed.released.append((request, done))
        else:
            committed.settled.append(done)
    for rows in (*changes.updates, *changes.inserts):
        if not isinstance(rows[0], LANE_MODELS):
            committed.saved += rows
    for rows in changes.deletes:
        withdrawn += [row.id for row in rows if isinstance(row, OutboxEntry)]
        if not isinstance(rows[0], LANE_MODELS):
            committed.removed += [by_key(type(row), getattr(row, row.key)) for row in rows]
    committed.withdrawn += withdrawn
    return withdrawn


def counters_in(changes: Changes) -> dict[str, Counter]:
    """The counters that a transaction has written: the lane is their only writer, and need not read them again."""
    written = [rows for rows in (*changes.updates, *changes.inserts) if isinstance(rows[0], Counter)]
    return {row.name: row for rows in written for row in rows if isinstance(row, Counter)}


def emitted_by(changes: Changes) -> list[OutboxEntry]:
    """The commands that a transaction has put into the outbox, in the order of their ids."""
    found = [row for rows in changes.inserts for row in rows if isinstance(row, OutboxEntry)]
    return sorted(found, key=lambda entry: entry.id)


def whole_deliveries(batch: deque[Delivery], commands: int) -> list[Delivery]:
    """Take out of a batch the deliveries that so many settled commands complete."""
    complete = 0
    for delivery in batch:
        commands -= len(delivery.commands)
        if commands < 0:
            break
        complete += 1
    return [batch.popleft() for at in range(complete)]


def settlement_of(
    deliveries: Sequence[Delivery], settled: list[Settled], carried: Committed, tags: list[int]
) -> Settlement:
    """Put the outcomes back together by delivery; `tags` are those to acknowledge."""
    replies: list[Reply] = []
    position = 0
    for delivery in deliveries:
        after = position + len(delivery.commands)
        if delivery.reply_to is not None:
            outcomes = [done.outcome for done in settled[position:after] if done.outcome is not None]
            if outcomes:
                replies.append(Reply(delivery.reply_to, delivery.correlation_id, delivery.reply_packs, outcomes))
        position = after
    for request, done in carried.released:
        if request.reply_to is not None and done.outcome is not None:
            replies.append(Reply(request.reply_to, request.correlation_id, packed=False, outcomes=[done.outcome]))
    everything = [*settled[:position], *(done for _, done in carried.released)]
    # Their page of the outbox may have been read by the very transaction that removed them.
    withdrawn = set(carried.withdrawn)
    return Settlement(
        tags=tags,
        outcomes=[done.outcome for done in everything if done.outcome is not None],
        replies=replies,
        dead_letters=[done.letter for done in everything if done.letter is not None],
        dropped=sum(done.is_dropped for done in everything),
        emitted=[entry for entry in carried.emitted if entry.id not in withdrawn] if withdrawn else carried.emitted,
        withdrawn=carried.withdrawn,
        saved=carried.saved,
        removed=carried.removed,
    )
