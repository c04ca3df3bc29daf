"""The payments table and its rows."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, String, Table
from sqlalchemy.dialects.mysql import DATETIME

from shared.rows import VersionedRow

PENDING = "pending"

metadata = MetaData()

payments = Table(
    "payments",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("status", String(20), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column(
        "created_at",
        DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb"),
        nullable=False,
    ),
    Index("payments_user", "user_id", "id"),
)


class Payment(VersionedRow, frozen=True, kw_only=True):
    """A payment. `amount` is in minor units of `currency`."""

    table: ClassVar[str] = "payments"
    key: ClassVar[str] = "id"

    id: int
    user_id: int
    amount: int
    currency: str
    status: str
    created_at: datetime
