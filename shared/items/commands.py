"""The commands of the items lane."""

from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator import AMOUNT_MAX, Command, Id, Name, Quantity, check_normalized
from shared.money import Currency

Price = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Stock = Annotated[int, Meta(ge=0, le=10**9)]


class CreateItem(Command, frozen=True, kw_only=True):
    """Add an item."""

    type: ClassVar[str] = "items.create"

    name: Name
    price: Price
    currency: Currency
    stock: Stock

    def __post_init__(self) -> None:
        check_normalized("name", self.name)


class UpdateItem(Command, frozen=True, kw_only=True):
    """Change the given fields. Rejected: `item_not_found`, `version_conflict`."""

    type: ClassVar[str] = "items.update"

    id: Id
    name: Name | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET
    stock: Stock | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_normalized("name", self.name)


class QuoteItem(Command, frozen=True, kw_only=True):
    """Return an item's price, in the lane's order. Rejected: `item_not_found`."""

    type: ClassVar[str] = "items.quote"

    id: Id


class Quote(Struct, frozen=True, kw_only=True):
    """An item's price, in minor units of `currency`, and the version of the item that has it."""

    item_id: int
    price: int
    currency: str
    version: int


class ReserveItem(Command, frozen=True, kw_only=True):
    """Set a part of the stock aside, if a price is given only at that price.

    Rejected: `item_not_found`, `out_of_stock`, `price_changed`, `version_conflict`.
    """

    type: ClassVar[str] = "items.reserve"

    id: Id
    quantity: Quantity
    price: Price | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET


class ReleaseItem(Command, frozen=True, kw_only=True):
    """Give a reservation's stock back. Rejected: `item_not_found`, `reservation_not_found`, `stock_limit`."""

    type: ClassVar[str] = "items.release"

    id: Id
    reservation_id: Id
