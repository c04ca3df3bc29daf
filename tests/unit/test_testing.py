"""`coordinator.testing`: what a service's author tries his handlers with."""

from datetime import timedelta

import pytest
from msgspec import structs

from coordinator.stores.port import BatchFault
from coordinator.stores.row_checks import InvalidRow
from coordinator.testing import NOW, LaneInMemory
from tests.support.ledger import LEDGER, Account, Deposit, Forward, Note, OpenAccount, Tamper

ADA = Account(id=7, owner="ada", balance=0, created_at=NOW)


def test_a_handler_is_tried_on_rows_that_are_given() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    tried = lane.apply(Deposit(id=7, amount=5))
    assert tried.applied
    assert tried.code is None
    assert tried.result(Account).balance == 5
    assert lane.row(Account, 7) == tried.result(Account)
    assert [row.owner for row in lane.rows(Account)] == ["ada"]


def test_rows_may_be_given_between_two_commands() -> None:
    lane = LaneInMemory(LEDGER)
    assert lane.apply(OpenAccount(owner="ada")).applied
    lane.given(structs.replace(ADA, owner="bob", balance=3))
    assert lane.apply(Deposit(id=7, amount=5)).result(Account).balance == 8
    assert lane.apply(Deposit(id=8, amount=5)).code == "account_not_found"


def test_a_repetition_is_one() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    known = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
    first, again = (lane.apply(Deposit(id=7, amount=5), command_id=known) for _ in range(2))
    assert again.applied
    assert again.outcome.replayed
    assert again.outcome.sequence == first.outcome.sequence
    assert lane.row(Account, 7) == first.result(Account)


def test_conditions_are_kept() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    assert lane.apply(Deposit(id=7, amount=5), expected_version=3).code == "version_conflict"
    deadline = lane.now + timedelta(seconds=1)
    lane.now += timedelta(seconds=2)
    assert lane.apply(Deposit(id=7, amount=5), deadline=deadline).outcome.status == "expired"


def test_what_is_emitted_is_seen() -> None:
    lane = LaneInMemory(LEDGER)
    (emitted,) = lane.apply(Forward(id=7, amount=5)).emitted
    assert (emitted.target, emitted.type, emitted.arguments) == ("ledger", Deposit.type, {"id": 7, "amount": 5})


def test_a_stranger_is_one() -> None:
    note = Note(command_id="x", command_type="t", status="applied")
    assert LaneInMemory(LEDGER).apply(note, origin="public").code == "forbidden_command_type"


def test_a_defect_of_a_handler_s_is_told_and_changes_nothing() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    tried = lane.apply(Tamper(id=7, how="crash"))
    assert (tried.outcome.status, tried.code) == ("failed", "handler_error")
    assert lane.row(Account, 7) == ADA


def test_rows_that_no_database_would_take_are_not_given() -> None:
    lane = LaneInMemory(LEDGER)
    with pytest.raises(InvalidRow):
        lane.given(structs.replace(ADA, balance=0.5))
    lane.given(ADA)
    with pytest.raises(BatchFault, match="duplicate key 7"):
        lane.given(ADA)
