"""Purchases, their steps and the totals of a user: tables and rows."""

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Index, String, Table

from coordinator import REASON_CHARACTERS_MAX, Personal, Ref, Row, SagaRow, VersionedRow, saga_steps
from shared.owners import OWNER_CHARACTERS
from shared.users.model import User, metadata

RUNNING_MAX: Final = 10
"""How many purchases of one principal may go on at a time: each asks the provider, who takes so many calls a second."""

purchases = Table(
    "purchases",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("payment_method", String(255), nullable=False),
    Column("price", BigInteger),
    Column("amount", BigInteger),
    Column("currency", String(3)),
    Column("payment_id", BigInteger),
    Column("reservation_id", BigInteger),
    Column("status", String(20), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("emitted", BigInteger, nullable=False),
    Column("reason_code", String(100)),
    Column("reason", String(REASON_CHARACTERS_MAX)),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("owner", String(OWNER_CHARACTERS)),
    Index("purchases_user", "user_id", "id"),
    Index("purchases_owner", "owner", "ended_at", "id"),
)

steps = saga_steps(metadata)

purchase_totals = Table(
    "purchase_totals",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("user_id", BigInteger, nullable=False, index=True),
    Column("currency", String(3), nullable=False),
    Column("purchases", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)


class Purchase(SagaRow, table="purchases", key="id", index=(("owner", "ended_at"),)):
    """A purchase. `price` and `amount` are in minor units of `currency`; they are known once the item was asked.

    `status` is `running`, `compensating`, `completed`, `compensated` or `needs_review`; `reason_code` and `reason` say
    why it did not succeed. `position` counts the steps that are done and not undone, `emitted` the commands so far.
    `owner` is who asked for it (shared/owners.py).
    """

    user_id: Personal[int]
    item_id: int
    quantity: int
    payment_method: Personal[str]
    price: int | None = None
    amount: int | None = None
    currency: str | None = None
    payment_id: int | None = None
    reservation_id: int | None = None
    created_at: datetime
    owner: Personal[str | None] = None

    def personal_of(self) -> Ref[Row]:
        return User.at(self.user_id)


class PurchaseTotal(VersionedRow, table="purchase_totals", key="id"):
    """What a user has bought in one currency: completed purchases only. Its id is both, such as `1 EUR`."""

    id: str
    user_id: int
    currency: str
    purchases: int = 0
    amount: int = 0


def total_id(user_id: int, currency: str) -> str:
    """The key of a user's total in a currency."""
    return f"{user_id} {currency}"
