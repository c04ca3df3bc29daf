"""The models of an application that was there first. Nothing here knows of lanes."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    email: Mapped[str] = mapped_column(String(200), unique=True)
    balance_cents: Mapped[int] = mapped_column(BigInteger, default=0)
    entries: Mapped[int] = mapped_column(default=0)
    branch: Mapped[str] = mapped_column(String(20), server_default="main")
    remark: Mapped[str | None] = mapped_column(String(500))


class Entry(Base):
    __tablename__ = "entries"

    account_id: Mapped[int] = mapped_column(ForeignKey(Account.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount_cents: Mapped[int] = mapped_column(BigInteger)
    booked_at: Mapped[datetime] = mapped_column(server_default=func.now())
