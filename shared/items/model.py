"""Items and reservations: the documents of two collections."""

from datetime import datetime

import msgspec

from coordinator import INTEGER_MAX, Rejected, Row, VersionedRow


class Item(VersionedRow, table="items", key="id"):
    """Something for sale. `price` is in minor units of `currency`; `stock` is the quantity that is left to reserve."""

    id: int
    name: str
    price: int
    currency: str
    stock: int
    created_at: datetime

    def taken(self, quantity: int) -> "Item":
        """This item with `quantity` less in stock. Raises Rejected when there is not enough."""
        if quantity > self.stock:
            raise Rejected("out_of_stock", f"item {self.id} has {self.stock} in stock, not {quantity}")
        return msgspec.structs.replace(self, stock=self.stock - quantity)

    def given_back(self, quantity: int) -> "Item":
        """This item with `quantity` more in stock. Raises Rejected when there is more than can be counted."""
        stock = self.stock + quantity
        if stock > INTEGER_MAX:
            raise Rejected("stock_limit", f"item {self.id} would have more than {INTEGER_MAX} in stock")
        return msgspec.structs.replace(self, stock=stock)


class Reservation(Row, table="reservations", key="id"):
    """A part of an item's stock that is set aside."""

    id: int
    item_id: int
    quantity: int
