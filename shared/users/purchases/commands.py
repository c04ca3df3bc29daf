"""The commands of purchases, in the users lane."""

from typing import ClassVar

from shared.commands import Command, Id, Quantity
from shared.continuation import Continuation
from shared.payments.commands import PaymentMethod


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
