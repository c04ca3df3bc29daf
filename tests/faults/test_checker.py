"""A checker that catches nothing proves nothing: each planted violation is found, and a clean run has none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import from_log
from tests.support.checker import ClientRecord, check

START = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = 6


def clean() -> tuple[list[ClientRecord], list[LogEntry]]:
    """One publisher, one command after the other."""
    log = [
        LogEntry(
            command_id=f"id-{number}",
            sequence=number,
            epoch=1 if number < 4 else 2,
            type="users.credit",
            fingerprint="f",
            status="applied",
            result=f'{{"credit":{number}}}',
            error_code=None,
            error_message=None,
            settled_at=START + timedelta(seconds=number),
        )
        for number in range(1, COUNT + 1)
    ]
    records = [
        ClientRecord(
            command_id=entry.command_id,
            lane="users",
            type=entry.type,
            arguments=b"{}",
            publisher="p",
            publisher_seq=entry.sequence,
            deadline_ms=int((entry.settled_at.timestamp() + 1) * 1000),
            issued_at=entry.sequence,
            outcome=from_log(entry, replayed=False),
            outcome_at=entry.sequence + 0.5,
        )
        for entry in log
    ]
    return records, log


def changed(log: list[LogEntry], index: int, **fields: object) -> None:
    log[index] = msgspec.structs.replace(log[index], **fields)


def swap_sequences(records: list[ClientRecord], log: list[LogEntry]) -> None:
    changed(log, 1, sequence=3)
    changed(log, 2, sequence=2)
    for record in records:
        record.outcome = None


def test_a_clean_run_has_no_violation() -> None:
    records, log = clean()
    again = msgspec.structs.replace(records[0], issued_at=9.0, outcome_at=9.5)
    again.outcome = from_log(log[0], replayed=True)
    assert check([*records, again], log) == []


def test_what_was_never_confirmed_may_be_missing() -> None:
    records, log = clean()
    del log[-1]
    records[-1].outcome = records[-1].outcome_at = None
    assert check(records, log) == []


Plant = Callable[[list[ClientRecord], list[LogEntry]], object]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda _, log: log.append(msgspec.structs.replace(log[0], sequence=COUNT + 1, epoch=2)), "in the log twice"),
        (lambda _, log: changed(log, 5, sequence=8), "the sequence before it"),
        (lambda _, log: changed(log, 0, sequence=0), "the sequence before it"),
        (lambda _, log: changed(log, 5, sequence=5), "the sequence before it"),
        (lambda _, log: changed(log, 5, epoch=1), "a stale consumer committed"),
        (lambda _, log: changed(log, 2, result='{"credit":99}'), "told result"),
        (lambda _, log: changed(log, 2, status="rejected", error_code="no"), "told status"),
        (lambda _, log: changed(log, 2, type="users.create"), "the log has type"),
        (lambda _, log: log.pop(), "is not in the log"),
        (swap_sequences, "was known"),
        (swap_sequences, "overtook"),
        (lambda _, log: changed(log, 3, settled_at=START + timedelta(seconds=60)), "after its deadline"),
        (lambda _, log: changed(log, 3, status="expired"), "before its deadline"),
    ],
)
def test_a_planted_violation_is_found(plant: Plant, words: str) -> None:
    records, log = clean()
    plant(records, log)
    assert any(words in violation for violation in check(records, log))


def test_a_confirmed_command_that_is_missing_is_found() -> None:
    records, log = clean()
    del log[-1]
    records[-1].outcome = records[-1].outcome_at = None
    records[-1].confirmed_at = 6.2
    assert any("was confirmed and is not in the log" in violation for violation in check(records, log))


def test_what_the_broker_let_expire_needs_no_deadline() -> None:
    records, log = clean()
    changed(log, 1, status="expired", result=None)
    records[1].outcome, records[1].deadline_ms = None, None
    assert any("without a deadline" in violation for violation in check(records, log))
    assert check(records, log, expired=[log[1].command_id]) == []


def test_what_the_broker_let_expire_may_be_settled_out_of_its_turn() -> None:
    """It has no effect then, whatever it overtakes, and is known to be safe before anybody knows its place."""
    records, log = clean()
    for record in records:
        record.outcome = record.publisher = record.deadline_ms = None
        record.confirmed_at, record.outcome_at = record.outcome_at, None
    for place, sequence in ((4, 2), (1, 3), (2, 4), (3, 5)):
        changed(log, place, sequence=sequence, epoch=1)
    changed(log, 4, status="expired", result=None)
    expired = [log[4].command_id]
    assert any("was known" in violation for violation in check(records, log))
    assert check(records, log, expired=expired) == []


def test_a_sequence_that_the_client_cannot_see_is_not_compared() -> None:
    records, log = clean()
    seen = records[0].outcome
    assert isinstance(seen, Outcome)
    records[0].outcome = msgspec.structs.replace(seen, sequence=None)
    assert check(records, log) == []
