"""One batch: what its transactions have done, and what of it is told to whom."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from coordinator.lane.delivery import Delivery, Reply, Settlement
from coordinator.lane.request import Request
from coordinator.lane.settle import Settled, reads
from coordinator.lane.unit_of_work import BatchWork
from coordinator.stores.port import Changes, Transaction
from shared.lane_tables import LANE_MODELS, LogEntry, OutboxEntry
from shared.rows import Ref, Row, by_key


class Committed(Struct):
    """What the transactions of a batch have done so far."""

    settled: list[Settled]
    emitted: list[OutboxEntry]
    saved: list[Row]
    removed: list[Ref[Row]]


def blocks(request: Request, entry: LogEntry) -> bool:
    """Whether the lane must stop at this command instead of recording that it failed."""
    return entry.status == "failed" and request.handler is not None and request.handler.on_failure == "block"


def known_entries(transaction: Transaction, requests: Sequence[Request]) -> dict[str, LogEntry]:
    """What the log says about the ids of a batch."""
    ids = list({request.message.command_id: None for request in requests if request.message.command_id is not None})
    if not ids:
        return {}
    return {entry.command_id: entry for entry in transaction.load(LogEntry, LogEntry.key, ids)}


def rows_again(
    work: BatchWork, requests: Sequence[Request], known: Mapping[str, LogEntry]
) -> tuple[list[Row], list[Ref[Row]]]:
    """The rows that commands name which are settled already, as they are now, and those that are no more.

    Whoever settled them may have died, or lost its database, between the commit and telling the projections.
    """
    if not known:
        return [], []
    refs = reads([request for request in requests if request.message.command_id in known])
    work.prefetch(refs)
    rows: list[Row] = []
    gone: list[Ref[Row]] = []
    for ref in refs:
        row = work.find(ref.model, ref.column, ref.value)
        if row is not None:
            rows.append(row)
        elif ref.column == ref.model.key:
            gone.append(ref)
    return rows, gone


def record(committed: Committed, settled: list[Settled], changes: Changes) -> None:
    """Note what a transaction has done, once it is committed."""
    committed.settled.extend(settled)
    for rows in (*changes.updates, *changes.inserts):
        for row in rows:
            if isinstance(row, OutboxEntry):
                committed.emitted.append(row)
            elif not isinstance(row, LANE_MODELS):
                committed.saved.append(row)
    for rows in changes.deletes:
        committed.removed.extend(
            by_key(type(row), getattr(row, row.key)) for row in rows if not isinstance(row, LANE_MODELS)
        )


def whole_deliveries(batch: list[Delivery], commands: int) -> tuple[list[Delivery], list[Delivery]]:
    """The deliveries that so many settled commands complete, and the others."""
    complete = 0
    for delivery in batch:
        commands -= len(delivery.commands)
        if commands < 0:
            break
        complete += 1
    return batch[:complete], batch[complete:]


def settlement_of(deliveries: Sequence[Delivery], committed: Committed) -> Settlement:
    """Put the outcomes back together by delivery."""
    replies: list[Reply] = []
    position = 0
    for delivery in deliveries:
        after = position + len(delivery.commands)
        if delivery.reply_to is not None:
            outcomes = [done.outcome for done in committed.settled[position:after]]
            replies.append(Reply(delivery.reply_to, delivery.correlation_id, delivery.reply_packs, outcomes))
        position = after
    settled = committed.settled[:position]
    return Settlement(
        tags=[delivery.tag for delivery in deliveries],
        outcomes=[done.outcome for done in settled],
        replies=replies,
        dead_letters=[done.dead_letter for done in settled if done.dead_letter is not None],
        emitted=committed.emitted,
        saved=committed.saved,
        removed=committed.removed,
    )
