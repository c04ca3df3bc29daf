"""The commands of purchases, in the users lane."""

from typing import Annotated, ClassVar

from msgspec import Meta

from shared.commands import Command, Id, Quantity
from shared.continuation import Continuation

PaymentMethod = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\A[A-Za-z0-9_-]+\Z")]
"""The provider's name of a card or another means, such as `pm_card_visa`. Never a card's number."""


class OpenPurchase(Command, frozen=True, kw_only=True):
    """Buy some of an item: the flow begins, and ends later. Rejected: `user_not_found`."""

    type: ClassVar[str] = "users.open_purchase"

    user_id: Id
    item_id: Id
    quantity: Quantity
    payment_method: PaymentMethod


class ContinuePurchase(Continuation, frozen=True, kw_only=True):
    """Go on with a purchase, one of whose steps is settled. Rejected: `unknown_step`."""

    type: ClassVar[str] = "users.continue_purchase"
