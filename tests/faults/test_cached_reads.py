"""A read is judged by the log: what an outcome had told before it began, it must show."""

import msgspec
import pytest

from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import LogEntry
from shared.items.commands import CreateItem, ReleaseItem, ReserveItem
from tests.faults.cached_reads import SeenItem, check_reads
from tests.faults.test_checker import START
from tests.faults.workload import ItemsWorkload
from tests.support.checker import ClientRecord

COMMANDS = [
    CreateItem(name="Thing", price=100, currency="EUR", stock=9),
    ReserveItem(id=1, quantity=1),
    ReserveItem(id=2, quantity=1),
    ReleaseItem(id=1, reservation_id=1),
    ReserveItem(id=1, quantity=8),
]
STATUSES = ("applied", "applied", "applied", "applied", "rejected")


def records() -> list[ClientRecord]:
    return [
        ClientRecord(
            command_id=f"id-{number}",
            lane="items",
            type=command.type,
            arguments=msgspec.json.encode(command),
            issued_at=0.0,
            outcome=Outcome(
                command_id=f"id-{number}",
                type=command.type,
                status=status,  # type: ignore[arg-type]
                sequence=number,
                result=msgspec.Raw(b'{"id":1,"item_id":1,"quantity":1}'),
            ),
        )
        for number, (command, status) in enumerate(zip(COMMANDS, STATUSES, strict=True), 1)
    ]


def log() -> list[LogEntry]:
    return [
        LogEntry(
            command_id=record.command_id,
            sequence=number,
            epoch=1,
            type=record.type,
            fingerprint="f",
            status=STATUSES[number - 1],
            result=None,
            error_code=None,
            error_message=None,
            settled_at=START,
        )
        for number, record in enumerate(records(), 1)
    ]


@pytest.mark.parametrize(
    ("told", "version", "is_right"),
    [(0, 0, True), (0, 1, True), (2, 1, False), (2, 2, True), (3, 2, True), (4, 2, False), (4, 3, True), (4, 0, False)],
)
def test_a_read_shows_what_had_been_told(told: int, version: int, *, is_right: bool) -> None:
    violations = list(check_reads([SeenItem(1, told, version)], records(), log()))
    assert violations == (
        [] if is_right else [f"a read of item 1 gave version {version}, after an outcome had told of {told // 2 + 1}"]
    )


def test_outcomes_tell_of_changes_that_were_made() -> None:
    workload = ItemsWorkload()
    for record in records():
        workload.learn(record)
    assert workload.told == {1: 4, 2: 3}
