"""The commands of purchases, in the users lane."""

from typing import ClassVar

from coordinator import Command, Continuation, Id, Quantity, Resumption
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


class ResumePurchase(Resumption, frozen=True, kw_only=True):
    """Take up a purchase that needs a review, at the step where it stopped, with an operator's verdict on that step.

    With the `verdict` `again` the step's lane is asked once more. `done`: the step was done, or taken back. `not_done`:
    it was not done, and the purchase is taken back. For `authorize` the `result` is the payment, `{"id": 7}`.
    Rejected: `purchase_not_found`, `not_in_review`, `other_step`, `impossible_verdict`, `invalid_result`.
    """

    type: ClassVar[str] = "users.resume_purchase"
