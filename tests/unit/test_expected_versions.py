"""A command that expects a version of its target is applied to that version only, also where there is no such row."""

import pytest

from coordinator import Command, Rejected, Service, UnitOfWork, VersionedRow
from coordinator.testing import LaneInMemory

shop = Service("shop")


@shop.row
class Price(VersionedRow, table="prices", key="id"):
    id: int
    cents: int


class SetPrice(Command, type="shop.set"):
    """Change it, or make it."""

    id: int
    cents: int


class DropPrice(Command, type="shop.drop"):
    """Remove it, if it is there."""

    id: int


class RaisePrice(Command, type="shop.raise"):
    """Has a word of its own for one that is missing."""

    id: int


@shop.handles(SetPrice, target=lambda command: Price.at(command.id))
def set_price(work: UnitOfWork, command: SetPrice) -> Price:
    found = work.get(Price, command.id)
    if found is None:
        return work.add(Price(id=command.id, cents=command.cents))
    return work.save(found.replace(cents=command.cents))


@shop.handles(DropPrice, target=lambda command: Price.at(command.id))
def drop_price(work: UnitOfWork, command: DropPrice) -> None:
    found = work.get(Price, command.id)
    if found is not None:
        work.remove(found)


@shop.handles(RaisePrice, target=lambda command: Price.at(command.id))
def raise_price(work: UnitOfWork, command: RaisePrice) -> Price:
    found = work.get(Price, command.id)
    if found is None:
        raise Rejected("price_not_found", f"there is no price {command.id}")
    return work.save(found.replace(cents=found.cents + 1))


@pytest.fixture
def lane() -> LaneInMemory:
    return LaneInMemory(shop)


@pytest.mark.parametrize("expected", [0, 1, 7])
@pytest.mark.parametrize("command", [SetPrice(id=1, cents=5), DropPrice(id=1)])
def test_no_version_of_a_row_that_is_not_there_is_the_expected_one(
    lane: LaneInMemory, command: Command, expected: int
) -> None:
    """One client's row was removed by another: the first one's change does not make it again."""
    assert lane.apply(command, expected_version=expected).rejected_with("version_conflict")
    assert lane.rows(Price) == []
    assert lane.apply(command).applied


def test_a_handler_s_own_word_for_a_missing_row_stands(lane: LaneInMemory) -> None:
    assert lane.apply(RaisePrice(id=1), expected_version=1).rejected_with("price_not_found")


def test_of_a_row_that_is_there_its_version_decides(lane: LaneInMemory) -> None:
    lane.given(Price(id=1, cents=5))
    assert lane.apply(SetPrice(id=1, cents=6), expected_version=2).rejected_with("version_conflict")
    assert lane.apply(SetPrice(id=1, cents=6), expected_version=1).applied
    assert lane.apply(DropPrice(id=1), expected_version=1).rejected_with("version_conflict")
    assert lane.apply(DropPrice(id=1), expected_version=2).applied


class Slot(VersionedRow, table="slots", key=("doctor", "number")):
    doctor: str
    number: int


class TakeSlot(Command, type="clinic.take"):
    doctor: str
    number: int


clinic = Service("clinic", models=[Slot])


@clinic.handles(TakeSlot, target=lambda command: Slot.at(command.doctor, command.number))
def take_slot(work: UnitOfWork, command: TakeSlot) -> Slot:
    found = work.get(Slot, (command.doctor, command.number))
    return work.add(Slot(doctor=command.doctor, number=command.number)) if found is None else work.save(found)


def test_a_key_of_several_columns_is_named_as_everywhere() -> None:
    lane = LaneInMemory(clinic)
    missing = lane.apply(TakeSlot(doctor="kim", number=17), expected_version=1).outcome.error
    lane.apply(TakeSlot(doctor="kim", number=17))
    conflict = lane.apply(TakeSlot(doctor="kim", number=17), expected_version=2).outcome.error
    assert missing is not None
    assert missing.message == "slots kim/17 is not there, nor its version 1"
    assert conflict is not None
    assert conflict.message == "slots kim/17 has version 1, not 2"
