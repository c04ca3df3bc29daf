"""The commands of the items lane."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator import AMOUNT_MAX, Command, Id, Name, Quantity, check_normalized
from shared.money import Currency

Price = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Stock = Annotated[int, Meta(ge=0, le=10**9)]


class CreateItem(Command, type="items.create"):
    """Add an item."""

    name: Name
    price: Price
    currency: Currency
    stock: Stock

    def __post_init__(self) -> None:
        check_normalized("name", self.name)


class UpdateItem(Command, type="items.update"):
    """Change the given fields. Rejected: `item_not_found`, `version_conflict`."""

    id: Id
    name: Name | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET
    stock: Stock | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_normalized("name", self.name)


class QuoteItem(Command, type="items.quote"):
    """Return an item's price, in the lane's order. Rejected: `item_not_found`."""

    id: Id


class Quote(Struct, frozen=True, kw_only=True):
    """An item's price, in minor units of `currency`, and the version of the item that has it."""

    item_id: int
    price: int
    currency: str
    version: int


class ReserveItem(Command, type="items.reserve"):
    """Set a part of the stock aside, if a price is given only at that price.

    Rejected: `item_not_found`, `out_of_stock`, `price_changed`, `version_conflict`.
    """

    id: Id
    quantity: Quantity
    price: Price | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET


class ReleaseItem(Command, type="items.release"):
    """Give a reservation's stock back. Rejected: `item_not_found`, `reservation_not_found`, `stock_limit`."""

    id: Id
    reservation_id: Id
