"""A row that is none of its class is a fault of the command that writes it, at the write."""

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
import sqlalchemy as sa
from msgspec import Meta, Struct

from coordinator import Command, Row, Service, UnitOfWork, VersionedRow
from coordinator.stores.row_checks import InvalidRow, RowChecks
from coordinator.testing import LaneInMemory

orders = Service("orders")

_WIDER = sa.Table(
    "notes",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text()),
    sa.Column("code", sa.String(9)),
)


class Kind(Enum):
    NEW = "new"
    OLD = "old"


class Part(Struct, frozen=True):
    number: Annotated[int, Meta(ge=1)]
    state: Literal["whole", "broken"] = "whole"


@orders.row
class Order(VersionedRow, table="orders", key="id"):
    id: int
    status: Literal["open", "paid"] = "open"
    level: Literal[1, 2, 3] = 1
    reason: Annotated[Literal["lost", "late"] | None, Meta(description="why")] = None
    maybe: Literal["yes"] | None = None
    kind: Kind = Kind.NEW
    count: Annotated[int, Meta(ge=0)] | None = None
    seal: Annotated[bytes, Meta(max_length=4)] = b""
    part: Part | None = None
    states: tuple[Literal["open", "paid"], ...] = ()


class Note(Row, table=_WIDER, key="id"):
    id: int
    text: Annotated[str, Meta(max_length=3)] = ""
    code: Annotated[str, Meta(max_length=20)] = ""


class ChangeOrder(Command, type="orders.change"):
    """Writes a value that its type, for which a handler's author forgot to ask, does not allow."""

    status: str


@orders.handles(ChangeOrder)
def change(work: UnitOfWork, command: ChangeOrder) -> None:
    order = work.get(Order, 1)
    if order is None:
        work.add(Order(id=1, status=command.status))  # type: ignore[arg-type]
    else:
        work.save(order.replace(status=command.status))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("status", "opne", "orders.status: 'opne' is none of 'open', 'paid' (class Order)"),
        ("status", "Open", "orders.status: 'Open' is none of 'open', 'paid' (class Order)"),
        ("level", 4, "orders.level: 4 is none of 1, 2, 3 (class Order)"),
        ("level", True, "orders.level: a bool where an integer belongs (class Order)"),
        ("reason", "lots", "orders.reason: 'lots' is none of 'late', 'lost' (class Order)"),
        ("maybe", "no", "orders.maybe: 'no' is none of 'yes' (class Order)"),
        ("kind", "new", "orders.kind: a str where a Kind belongs (class Order)"),
        ("count", -1, "orders.count: Expected `int` >= 0, and it is -1 (class Order)"),
        ("seal", b"12345", "orders.seal: 5 bytes, and at most 4 fit (class Order)"),
        ("part", Part(number=0), "Expected `int` >= 1 - at `$.number` (class Order)"),
        ("part", Part(1, "split"), "Invalid enum value 'split' - at `$.state` (class Order)"),  # type: ignore[arg-type]
        ("states", ("open", "opne"), "Invalid enum value 'opne' - at `$[1]` (class Order)"),
    ],
)
def test_what_its_type_does_not_allow_is_never_in_a_field(field: str, value: Any, problem: str) -> None:
    check = RowChecks(orders).of(Order)
    row = Order(id=1).replace(**{field: value})
    with pytest.raises(InvalidRow) as added:
        check.new(row)
    with pytest.raises(InvalidRow) as saved:
        check.change(row, Order(id=1))
    assert str(added.value).endswith(problem)
    assert str(saved.value) == str(added.value)


def test_what_its_type_allows_is() -> None:
    check = RowChecks(orders).of(Order)
    for status in ("open", "paid"):
        row = Order(id=1, level=3, reason="late", maybe="yes", count=0, seal=b"1234").replace(status=status)
        assert check.new(row) is row


def test_a_column_that_is_wider_does_not_widen_its_field() -> None:
    check = RowChecks().of(Note)
    assert check.new(Note(id=1, text="abc", code="123456789"))
    with pytest.raises(InvalidRow, match=r"notes.text: 4 characters, and at most 3 fit"):
        check.new(Note(id=1, text="abcd"))
    with pytest.raises(InvalidRow, match=r"notes.code: 10 characters, and at most 9 fit"):
        check.new(Note(id=1, code="1234567890"))


def test_a_command_that_writes_such_a_row_fails_alone() -> None:
    lane = LaneInMemory(orders)
    for _ in range(2):
        tried = lane.apply(ChangeOrder(status="opne"))
        assert tried.failed_with("invalid_row")
        assert "orders.status: 'opne' is none of 'open', 'paid' (class Order)" in (tried.reason or "")
        assert lane.apply(ChangeOrder(status="paid")).applied
    assert [order.status for order in lane.rows(Order)] == ["paid"]


def test_what_others_have_written_hinders_no_change_of_something_else() -> None:
    """A newer release may have more choices."""
    before = Order(id=1, status="shipped")  # type: ignore[arg-type]
    after = before.replace(count=1)
    assert RowChecks(orders).of(Order).change(after, before) is after
