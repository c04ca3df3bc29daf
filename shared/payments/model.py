"""Payments, their refunds and who waits for them: rows and tables. Amounts are integers in minor units (ISO 4217)."""

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct
from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, String, Table, UniqueConstraint
from sqlalchemy.dialects.mysql import DATETIME, VARCHAR

from coordinator import Personal, Principal, Row, Value, VersionedRow, storable
from shared.owners import OWNER_CHARACTERS, owned_by
from shared.payments.states import Status

REASON_CODE_CHARACTERS_MAX = 64
REASON_CHARACTERS_MAX = 500
DEFERRED_CHARACTERS_MAX = 256
OTHERS_MAX = 100
"""How many commands may wait for a reversal beside the first: each is answered with it, in one transaction."""

Action = Literal["authorize", "capture", "void", "refund"]
"""The action that the provider is asked for."""

RefundStatus = Literal["pending", "succeeded", "failed", "needs_review"]

metadata = MetaData()

_Time = DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")

# Nobody else's name is the same to the database, whatever the collation of the table.
_Owner = String(OWNER_CHARACTERS).with_variant(VARCHAR(OWNER_CHARACTERS, collation="utf8mb4_bin"), "mysql", "mariadb")

payments = Table(
    "payments",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("status", String(20), nullable=False),
    Column("payment_method", String(255)),
    Column("provider_id", String(255)),
    Column("captured", BigInteger, nullable=False),
    Column("refunded", BigInteger, nullable=False),
    Column("pending_action", String(20)),
    Column("refund_id", BigInteger),
    Column("wanted", String(20)),
    Column("reason_code", String(REASON_CODE_CHARACTERS_MAX)),
    Column("reason", String(REASON_CHARACTERS_MAX)),
    Column("amounts_as_of", _Time),
    Column("version", BigInteger, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("owner", _Owner),
    Index("payments_user", "user_id", "id"),
    Index("payments_owner", "owner", "id"),
    Index("payments_provider_id", "provider_id"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("payment_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("status", String(20), nullable=False),
    Column("provider_id", String(255)),
    Column("reason_code", String(REASON_CODE_CHARACTERS_MAX)),
    Column("reason", String(REASON_CHARACTERS_MAX)),
    Column("refunded_without", BigInteger),
    Column("created_at", _Time, nullable=False),
    UniqueConstraint("provider_id", name="refunds_provider_id_unique"),
    Index("refunds_payment", "payment_id", "id"),
)

Table(
    "payment_waiters",
    metadata,
    Column("payment_id", BigInteger, primary_key=True, autoincrement=False),
    Column("action", String(DEFERRED_CHARACTERS_MAX)),
    Column("reversal", String(DEFERRED_CHARACTERS_MAX)),
    Column("others", BigInteger, nullable=False),
)

Table(
    "payment_reversal_waiters",
    metadata,
    Column("payment_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("waiter", String(DEFERRED_CHARACTERS_MAX), nullable=False),
)


class Payment(VersionedRow, table="payments", key="id", audited=True, review=("status", "needs_review")):
    """A payment. At most `amount` is captured, and at most the captured amount is refunded.

    `pending_action` is the action that the provider is being asked for; `wanted` is the action to take after its
    answer. `refund_id` is the refund that is under way or, in `needs_review`, in question.
    `reason_code` and `reason` say why it is declined, failed or needs a review, or `resolved` and how a review ended.
    `amounts_as_of` is when an operator gave the captured and refunded amounts: they include all older events.
    `owner` is for whom it was opened (shared/owners.py).
    """

    id: int
    user_id: int
    amount: int
    currency: str
    status: Status
    payment_method: str | None = None
    provider_id: str | None = None
    captured: int = 0
    refunded: int = 0
    pending_action: Action | None = None
    refund_id: int | None = None
    wanted: Literal["reverse"] | None = None
    reason_code: str | None = None
    reason: str | None = None
    amounts_as_of: datetime | None = None
    created_at: datetime
    updated_at: datetime
    owner: Personal[str | None] = None

    @classmethod
    def personal_to(cls, who: Principal) -> Mapping[str, Value]:
        return owned_by(who)


class Refund(Row, table="refunds", key="id", unique=("provider_id",), index=("payment_id",), audited=True):
    """A part of a payment that is given back, or all of it. `needs_review`: it is not known whether it was.

    `refunded_without` is the sum that is known to be given back of the payment without this refund; None: an earlier
    release asked for it.
    """

    id: int
    payment_id: int
    amount: int
    status: RefundStatus = "pending"
    provider_id: str | None = None
    reason_code: str | None = None
    reason: str | None = None
    refunded_without: int | None = None
    created_at: datetime


class Waiters(Row, table="payment_waiters", key="payment_id"):
    """The commands whose continuations wait for a payment, encoded: for the pending action, for the wanted reversal.

    So many `others` wait for the reversal beside them, each in a row of its own.
    """

    payment_id: int
    action: str | None = None
    reversal: str | None = None
    others: int = 0


class ReversalWaiter(Row, table="payment_reversal_waiters", key=("payment_id", "number")):
    """One of several commands that wait for the same reversal: those beside the first are numbered from 1."""

    payment_id: int
    number: int
    waiter: str


class Reason(Struct, frozen=True):
    """The reason of a failure. The code is the provider's, or ours."""

    code: str
    message: str


def reason_of(code: str | None, message: str | None) -> Reason:
    """A reason that fits into a row, whatever the text: an earlier release did not clean texts as they came in."""
    return Reason(code_of(code) or "unknown", storable(message or "", REASON_CHARACTERS_MAX))


def code_of(text: str | None) -> str:
    """The part of a text that can be a code: its visible ASCII characters, as many as fit into a row."""
    visible = (letter for letter in text or "" if "!" <= letter <= "~")
    return "".join(itertools.islice(visible, REASON_CODE_CHARACTERS_MAX))
