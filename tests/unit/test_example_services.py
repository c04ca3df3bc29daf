"""The services of docs/examples on random histories: whatever clients send is applied or rejected, and fails never."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import pytest

from coordinator import Row, Service
from coordinator.testing import simulate
from docs.examples.bank.service import Account, Entry, bank
from docs.examples.orders import Item, Line, Order, orders
from docs.examples.profiles import Profile, profiles
from docs.examples.stock import Article, stock

pytestmark = pytest.mark.authors

ITEM = Item(article="A", pieces=2, price_cents=150)


@pytest.mark.parametrize(
    ("service", "given"),
    [
        (stock, [Article(id=number, code=f"A{number}", price=Decimal("0.10"), pieces=9) for number in (1, 2, 3)]),
        (profiles, [Profile(id=UUID(int=number), handle=f"h{number}") for number in (1, 2)]),
        (
            orders,
            [
                *(Order(id=number, customer="Ada", last_line=2, total_cents=600) for number in (1, 2, 3)),
                *(Line(order_id=number, line=line, item=ITEM) for number in (1, 2, 3) for line in (1, 2)),
            ],
        ),
        (
            bank,
            [
                Account(id=1, owner="Ada", email="ada@example.org", balance_cents=500, entries=1),
                Entry(account_id=1, number=1, amount_cents=500),
                Account(id=2, owner="Bob", email="bob@example.org"),
            ],
        ),
    ],
    ids=["stock", "profiles", "orders", "bank"],
)
def test_whatever_is_sent_is_applied_or_rejected(service: Service, given: Sequence[Row]) -> None:
    simulate(service, given=given, seeds=5)
