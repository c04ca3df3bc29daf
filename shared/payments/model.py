"""Payments and refunds: tables and rows."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, String, Table
from sqlalchemy.dialects.mysql import DATETIME

from shared.payments.states import State
from shared.rows import Row, VersionedRow

DEFERRED_CHARACTERS_MAX = 256
REASON_CHARACTERS_MAX = 500

_Time = DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")

metadata = MetaData()

payments = Table(
    "payments",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("status", String(20), nullable=False),
    Column("payment_method", String(100)),
    Column("provider_id", String(100)),
    Column("captured", BigInteger, nullable=False),
    Column("refunded", BigInteger, nullable=False),
    Column("reason_code", String(100)),
    Column("reason", String(REASON_CHARACTERS_MAX)),
    Column("version", BigInteger, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Index("payments_user", "user_id", "id"),
)

payment_actions = Table(
    "payment_actions",
    metadata,
    Column("payment_id", BigInteger, primary_key=True, autoincrement=False),
    Column("action", String(20), nullable=False),
    Column("refund_id", BigInteger),
    Column("waiting", String(DEFERRED_CHARACTERS_MAX)),
    Column("is_reversal_wanted", BigInteger, nullable=False),
    Column("waiting_for_reversal", String(DEFERRED_CHARACTERS_MAX)),
    Column("began_at", _Time, nullable=False),
)

refunds = Table(
    "refunds",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("payment_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("status", String(20), nullable=False),
    Column("provider_id", String(100)),
    Column("reason", String(REASON_CHARACTERS_MAX)),
    Column("version", BigInteger, nullable=False),
    Column("created_at", _Time, nullable=False),
    Index("refunds_payment", "payment_id", "id"),
)


class Payment(VersionedRow, frozen=True, kw_only=True):
    """A payment. Amounts are in minor units of `currency`; `captured` and `refunded` are totals."""

    table: ClassVar[str] = "payments"
    key: ClassVar[str] = "id"

    id: int
    user_id: int
    amount: int
    currency: str
    status: State
    payment_method: str | None = None
    provider_id: str | None = None
    captured: int = 0
    refunded: int = 0
    reason_code: str | None = None
    reason: str | None = None
    created_at: datetime
    updated_at: datetime


class PaymentAction(Row, frozen=True, kw_only=True):
    """What the provider is being asked for, while it is: `authorize`, `capture`, `void` or `refund`.

    `waiting` and `waiting_for_reversal` are put-off continuations (`Deferred.encode`) of the commands that wait for
    it, and for the reversal that is wanted after it.
    """

    table: ClassVar[str] = "payment_actions"
    key: ClassVar[str] = "payment_id"

    payment_id: int
    action: str
    refund_id: int | None = None
    waiting: str | None = None
    is_reversal_wanted: int = 0
    waiting_for_reversal: str | None = None
    began_at: datetime


class Refund(VersionedRow, frozen=True, kw_only=True):
    """A part of a payment that goes back. `status`: pending, succeeded, failed, or needs_review."""

    table: ClassVar[str] = "refunds"
    key: ClassVar[str] = "id"

    id: int
    payment_id: int
    amount: int
    status: str = "pending"
    provider_id: str | None = None
    reason: str | None = None
    created_at: datetime
