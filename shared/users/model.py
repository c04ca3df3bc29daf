"""The users table and its rows."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from coordinator import INTEGER_MAX, Personal, Principal, Rejected, Value, VersionedRow
from shared.owners import OWNER_CHARACTERS, owned_by
from shared.users.emails import EMAIL_CHARACTERS_MAX

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(200), nullable=False),
    Column("email", String(EMAIL_CHARACTERS_MAX), nullable=False),
    Column("credit", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("owner", String(OWNER_CHARACTERS)),
    UniqueConstraint("email", name="users_email_unique"),
    CheckConstraint("credit >= 0", name="users_credit_not_negative"),
    Index("users_owner", "owner", "id"),
)


class User(VersionedRow, table="users", key="id", unique=("email",), audited=True):
    """A user. `credit` is in minor units (cents); `email` is as shared/users/emails.py keeps it, and unique.

    `owner` is whose account it is (shared/owners.py).
    """

    id: int
    name: Personal[str]
    email: Personal[str]
    credit: int
    created_at: datetime
    owner: Personal[str | None] = None

    @classmethod
    def personal_to(cls, who: Principal) -> Mapping[str, Value]:
        return owned_by(who)

    def credited(self, amount: int) -> "User":
        """This user with `amount` more credit, or less if it is negative. Raises Rejected below zero."""
        credit = self.credit + amount
        if credit < 0:
            # Whoever may change a credit, such as a cashier, may not always see it.
            raise Rejected("insufficient_credit", f"user {self.id} has less credit than {-amount}")
        if credit > INTEGER_MAX:
            raise Rejected("credit_limit", f"user {self.id} would have a credit of more than {INTEGER_MAX}")
        return msgspec.structs.replace(self, credit=credit)
