"""Orders: a command that places one."""

from pathlib import Path

from sqlalchemy import BigInteger, Column, MetaData, String, Table

from coordinator import Command, Handler, Name, Service, UnitOfWork, VersionedRow

metadata = MetaData()
Table(
    "orders",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("title", String(200), nullable=False),
    Column("version", BigInteger, nullable=False),
)


class Order(VersionedRow, table="orders", key="id"):
    id: int
    title: str


class PlaceOrder(Command, type="orders.place"):
    """Place an order."""

    title: Name


def place(work: UnitOfWork, command: PlaceOrder) -> Order:
    return work.add(Order(id=work.next_id("orders"), title=command.title))


SERVICE = Service(
    name="orders",
    models=(Order,),
    handlers=(Handler(PlaceOrder, place),),
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
)
