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
    """The database, as the application: with a server it has a role of its own, which only reads from step 2 on."""
    return create_engine(os.environ.get("APPLICATION_URL") or os.environ["WAREHOUSE_DATABASE_URL"])
