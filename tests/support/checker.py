"""The promises of the lane, checked against its own log and what its clients saw. Pure: no I/O.

Used by the simulation and by the tests with real faults: what one of them calls a violation, the other does too.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import from_log

_MISMATCH = "idempotency_mismatch"


class ClientRecord(msgspec.Struct, kw_only=True):
    """One command as one client knows it. Times are those of one clock, in seconds; those of the log are not.

    A client that repeats a command keeps one record of it; one that asks again after the outcome keeps a second
    record with the same id. `confirmed_at`: when the client first knew that the command is safe, if it did.
    A sequence or a result that the client cannot see is None.
    """

    command_id: str
    lane: str
    type: str
    arguments: bytes
    publisher: str | None = None
    publisher_seq: int | None = None
    deadline_ms: int | None = None
    issued_at: float
    confirmed_at: float | None = None
    outcome: Outcome | None = None
    outcome_at: float | None = None

    @property
    def known_at(self) -> float | None:
        """When the client first knew that the command has its place in the order."""
        times = [time for time in (self.confirmed_at, self.outcome_at) if time is not None]
        return min(times, default=None)


def check(
    records: Sequence[ClientRecord],
    log: Sequence[LogEntry],
    given_up: Collection[str] = (),
    waited: Collection[str] = (),
    expired: Collection[str] = (),
    skipped: Collection[int] = (),
) -> list[str]:
    """The violations of one lane's promises, in words; none when all is well.

    `given_up`: commands of publisher sessions that did not come in time, so that their successors went ahead of them.
    `waited`: commands that waited for their key, so that others went ahead of them. `expired`: commands that the broker
    let expire, whoever gave them so little time: they are settled when they come back from its dead letters.
    `skipped`: sequences of commits that a database has lost, as an operator has accepted.
    """
    ordered = sorted(log, key=lambda entry: entry.sequence)
    entries = {entry.command_id: entry for entry in ordered}
    return [
        *_applied_once(ordered),
        *_gapless(ordered, skipped),
        *_epochs_never_decrease(ordered),
        *_outcomes_equal_the_log(records, entries),
        *_nothing_confirmed_is_missing(records, entries),
        *_real_time_order(records, ordered, waited, expired),
        *_publisher_order(records, entries, {*given_up, *waited}),
        *_deadlines(records, entries, expired),
    ]


def _applied_once(ordered: Sequence[LogEntry]) -> Iterator[str]:
    seen: dict[str, LogEntry] = {}
    for entry in ordered:
        first = seen.setdefault(entry.command_id, entry)
        if first is not entry:
            yield f"{_shown(entry)} stands in the log twice: it was settled with sequence {first.sequence} before"


def _gapless(ordered: Sequence[LogEntry], skipped: Collection[int]) -> Iterator[str]:
    expected = 1
    for entry in ordered:
        while expected in skipped:
            expected += 1
        if entry.sequence != expected:
            yield f"{_shown(entry)}: the sequence before it is {expected - 1}"
        expected = entry.sequence + 1


def _epochs_never_decrease(ordered: Sequence[LogEntry]) -> Iterator[str]:
    for before, entry in pairwise(ordered):
        if entry.epoch < before.epoch:
            yield f"{_shown(entry)} has epoch {entry.epoch} after epoch {before.epoch}: a stale consumer committed"


def _outcomes_equal_the_log(records: Sequence[ClientRecord], entries: Mapping[str, LogEntry]) -> Iterator[str]:
    for record in records:
        outcome = record.outcome
        entry = entries.get(record.command_id)
        if outcome is None or (outcome.sequence is None and _code(outcome) == _MISMATCH):
            continue
        if entry is None:
            yield f"{_named(record)}: its client was told {outcome.status}, and it is not in the log"
            continue
        recorded = from_log(entry, replayed=False)
        for what, told, logged in (
            ("status", outcome.status, recorded.status),
            ("sequence", outcome.sequence, recorded.sequence),
            ("error", _code(outcome), _code(recorded)),
            *_results(outcome, recorded),
        ):
            if told != logged and not (what == "sequence" and told is None):
                yield f"{_named(record)}: its client was told {what} {told!r}, and the log has {logged!r}"
        if entry.type != record.type:
            yield f"{_named(record)}: the log has type {entry.type}"


def _results(outcome: Outcome, recorded: Outcome) -> Iterator[tuple[str, object, object]]:
    """What was told and what is recorded, as values: JSON texts may differ in their spacing."""
    if bytes(outcome.result) != bytes(recorded.result):
        yield "result", _value(outcome), _value(recorded)


def _nothing_confirmed_is_missing(records: Sequence[ClientRecord], entries: Mapping[str, LogEntry]) -> Iterator[str]:
    for record in records:
        if record.confirmed_at is not None and record.outcome is None and record.command_id not in entries:
            yield f"{_named(record)} was confirmed and is not in the log"


def _real_time_order(
    records: Sequence[ClientRecord], ordered: Sequence[LogEntry], waited: Collection[str], expired: Collection[str]
) -> Iterator[str]:
    """Whatever was known before another command was issued has the lower sequence."""
    issued_at: dict[str, float] = {}
    known_at: dict[str, float] = {}
    safe_at = _confirmed_with_predecessors(records, expired)
    for record, safe in zip(records, safe_at, strict=True):
        issued_at[record.command_id] = min(record.issued_at, issued_at.get(record.command_id, record.issued_at))
        known = None if record.command_id in waited else safe
        if known is None or (record.outcome_at is not None and record.outcome_at < known):
            known = record.outcome_at
        if known is not None:
            known_at[record.command_id] = min(known, known_at.get(record.command_id, known))
    earliest: tuple[float, LogEntry] | None = None
    for entry in reversed(ordered):
        issued = None if entry.command_id in expired else issued_at.get(entry.command_id)
        if issued is not None and earliest is not None and earliest[0] < issued:
            yield f"{_shown(entry)} was issued {issued - earliest[0]:.3f} s after {_shown(earliest[1])} was known"
        known = known_at.get(entry.command_id)
        if known is not None and (earliest is None or known < earliest[0]):
            earliest = (known, entry)


def _confirmed_with_predecessors(records: Sequence[ClientRecord], expired: Collection[str] = ()) -> list[float | None]:
    """When each record's place in the order was certain from confirms alone: never, of one that expired afterwards.

    A command of a publisher session waits in the lane for its predecessors, so theirs must be confirmed too.
    """
    certain: dict[int, float | None] = {}
    sessions: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for position, record in enumerate(records):
        certain[position] = None if record.command_id in expired else record.confirmed_at
        if record.publisher is not None and record.publisher_seq is not None:
            sessions[record.lane, record.publisher].append((record.publisher_seq, position))
    for session in sessions.values():
        latest: float | None = 0.0
        expected = 1
        for number, position in sorted(session):
            confirmed = None if records[position].command_id in expired else records[position].confirmed_at
            is_complete = latest is not None and number <= expected and confirmed is not None
            latest = max(latest or 0.0, confirmed or 0.0) if is_complete else None
            certain[position] = latest
            expected = number + 1
    return [certain[position] for position in range(len(records))]


def _publisher_order(
    records: Sequence[ClientRecord], entries: Mapping[str, LogEntry], given_up: Collection[str]
) -> Iterator[str]:
    sessions: defaultdict[tuple[str, str], dict[int, LogEntry]] = defaultdict(dict)
    for record in records:
        entry = entries.get(record.command_id)
        if record.command_id in given_up or entry is None:
            continue
        if record.publisher is not None and record.publisher_seq is not None:
            sessions[record.lane, record.publisher][record.publisher_seq] = entry
    for (_, publisher), session in sessions.items():
        for before, after in pairwise(sorted(session)):
            if session[before].sequence > session[after].sequence:
                yield f"{_shown(session[after])}, number {after} of {publisher}, overtook {_shown(session[before])}"


def _deadlines(
    records: Sequence[ClientRecord], entries: Mapping[str, LogEntry], expired: Collection[str]
) -> Iterator[str]:
    for record in records:
        entry = entries.get(record.command_id)
        if entry is None or (entry.status == "expired" and entry.command_id in expired):
            continue
        if record.deadline_ms is None:
            if entry.status == "expired":
                yield f"{_shown(entry)} expired without a deadline"
            continue
        late_ms = entry.settled_at.timestamp() * 1000 - record.deadline_ms
        if entry.status == "applied" and late_ms > 0.5:  # half a millisecond: the float's error
            yield f"{_shown(entry)} was applied {late_ms:.0f} ms after its deadline"
        if entry.status == "expired" and late_ms < -0.5:
            yield f"{_shown(entry)} expired {-late_ms:.0f} ms before its deadline"


def _code(outcome: Outcome) -> str | None:
    return None if outcome.error is None else outcome.error.code


def _value(outcome: Outcome) -> object:
    return msgspec.json.decode(outcome.result)


def _shown(entry: LogEntry) -> str:
    return f"sequence {entry.sequence} ({entry.type} {entry.command_id})"


def _named(record: ClientRecord) -> str:
    return f"{record.type} {record.command_id}"
