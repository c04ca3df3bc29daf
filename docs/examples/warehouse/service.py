"""The table's writes as commands. This file stays as it is, wherever its lane runs and whatever its database is."""

from typing import Annotated

from msgspec import Meta

from coordinator import Command, Name, Rejected, Service, UnitOfWork, VersionedRow

from . import models

warehouse = Service("warehouse")

# As its column has it: INTEGER.
ProductId = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]


@warehouse.row(is_public=True)
class Product(VersionedRow, table=models.Product, key="id", unique=("name",)):
    """What is sold, and how many of it there are."""

    id: int
    name: Name
    stock: int


class Sell(Command, type="warehouse.sell"):
    """Take some out of the stock. Rejected: `product_not_found`, `sold_out`."""

    id: ProductId
    quantity: Quantity


@warehouse.handles(Sell, target=lambda command: Product.at(command.id))
def sell(work: UnitOfWork, command: Sell) -> Product:
    product = work.get(Product, command.id)
    if product is None:
        raise Rejected("product_not_found", f"there is no product {command.id}")
    if product.stock < command.quantity:
        raise Rejected("sold_out", f"{product.name}: {product.stock} are left")
    return work.save(product.replace(stock=product.stock - command.quantity))
