"""The models of the application, before and after: nothing here knows of lanes."""

import os

from sqlalchemy import BigInteger, Engine, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    stock: Mapped[int] = mapped_column(BigInteger)


def engine() -> Engine:
    """The database of the application."""
    return create_engine(os.environ["WAREHOUSE_DATABASE_URL"])
