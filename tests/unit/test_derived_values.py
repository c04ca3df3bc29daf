"""What handlers make of what they are given fits where it is kept: of the reference system's rows."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import MetaData, String

from coordinator.service.commands import AMOUNT_MAX, INTEGER_MAX
from coordinator.service.errors import Rejected
from coordinator.service.outcome import OutcomeError
from coordinator.service.rows import Row, key_of
from coordinator.service.saga_timeline import SagaStep
from shared.items.model import Item
from shared.payments.model import REASON_CHARACTERS_MAX, Payment, Refund
from shared.payments.model import metadata as payments_metadata
from shared.payments.results import AuthorizeResult, RefundResult
from shared.users.model import User
from shared.users.model import metadata as users_metadata
from shared.users.purchases.model import Purchase, PurchaseTotal, total_id
from shared.users.purchases.saga import PURCHASE, _finish
from tests.support.payment_lane import PaymentLane, event
from tests.support.store_contract import NOW

LONG = "x" * 3000


def assert_fits(rows: list[Any], metadata: MetaData) -> None:
    for row in rows:
        for column in metadata.tables[row.table].columns:
            value = getattr(row, column.name)
            if isinstance(column.type, String) and column.type.length is not None and value is not None:
                assert len(value) <= column.type.length, (column, value)
            if isinstance(value, int):
                assert -INTEGER_MAX <= value <= INTEGER_MAX, (column, value)


class Work:
    """A unit of work's rows, and nothing else of it."""

    now = NOW

    def __init__(self, *rows: Row) -> None:
        self.rows: dict[tuple[type, Any], Any] = {(type(row), key_of(row)): row for row in rows}
        self.emitted: list[Any] = []

    def get(self, model: type, key: Any) -> Any:
        return self.rows.get((model, key))

    def select(self, model: type, *, limit: int, after: Any, **equals: Any) -> Any:
        return [row for (kind, _), row in self.rows.items() if kind is model]

    def save(self, row: Any) -> Any:
        self.rows[type(row), key_of(row)] = row
        return row

    add = save

    def emit(self, command: Any, *, continuation: Any = None, limit: Any = None) -> str:
        self.emitted.append((command, continuation))
        return f"00000000-0000-4000-8000-{len(self.emitted):012}"


def opened() -> Purchase:
    return Purchase(id=1, user_id=7, item_id=5, quantity=1, payment_method="pm", created_at=NOW)


def test_why_a_refund_came_back_fits() -> None:
    lane = PaymentLane()
    lane.captured()
    lane.applied(event("refund_failed", captured=1000, refund_id="r" * 600, code="c" * 300))
    assert lane.payment.reason_code == "refund_returned"
    assert len(lane.payment.reason or "") == REASON_CHARACTERS_MAX
    assert_fits([lane.payment, *lane.refunds], payments_metadata)


@pytest.mark.parametrize(
    "command",
    [
        AuthorizeResult(id=1, verdict="authorized", provider_id=LONG),
        event("authorized", provider_id=LONG),
        event("authorized", provider_id=""),
        event("captured", amount_captured=INTEGER_MAX + 1),
        event("refunded", amount_refunded=-1),
        RefundResult(id=1, refund_id=1, verdict="refunded", provider_id=LONG),
    ],
)
def test_what_no_row_could_hold_of_the_provider_s_is_refused(command: Any) -> None:
    lane = PaymentLane()
    lane.opened(waits=False)
    outcome = lane.do(command)
    assert outcome.error is not None
    assert outcome.error.code == "invalid_arguments"
    assert_fits([*lane.lane.rows(Payment), *lane.lane.rows(Refund)], payments_metadata)


@pytest.mark.parametrize("status", ["rejected", "failed"])
def test_why_a_step_of_a_purchase_was_refused_fits(status: Any) -> None:
    work: Any = Work()
    row = PURCHASE.begin(work, opened())
    step = next(each for each in work.rows.values() if isinstance(each, SagaStep))
    continuation = work.emitted[0][1]
    outcome = continuation(
        command_id=step.command_id,
        command_type="items.quote",
        status=status,
        error=OutcomeError(code=LONG, message=LONG),
    )
    assert PURCHASE.go_on(work, outcome).id == row.id
    assert_fits(list(work.rows.values()), users_metadata)


def test_a_user_cannot_have_bought_for_more_than_can_be_told() -> None:
    user = User(id=7, name="A", email="a@x", credit=0, created_at=NOW)
    key = total_id(7, "EUR")
    full = PurchaseTotal(id=key, user_id=7, currency="EUR", purchases=9, amount=INTEGER_MAX - AMOUNT_MAX + 1)
    purchase = msgspec.structs.replace(opened(), currency="EUR", amount=AMOUNT_MAX)
    work: Any = Work(user, full)
    with pytest.raises(Rejected) as raised:
        _finish(work, purchase)
    assert raised.value.code == "total_limit"
    assert work.get(PurchaseTotal, key) == full
    _finish(work, msgspec.structs.replace(purchase, amount=1))
    assert_fits(list(work.rows.values()), users_metadata)
    widest = total_id(INTEGER_MAX, "EUR")
    column = users_metadata.tables["purchase_totals"].c.id.type
    assert isinstance(column, String)
    assert column.length is not None
    assert len(widest) <= column.length


def test_more_stock_than_can_be_told_is_not_given_back() -> None:
    item = Item(id=5, name="Lamp", price=1, currency="EUR", stock=INTEGER_MAX - 1, created_at=NOW)
    assert item.given_back(1).stock == INTEGER_MAX
    with pytest.raises(Rejected) as raised:
        item.given_back(2)
    assert raised.value.code == "stock_limit"
