"""The commands of purchases, in the users lane."""

from coordinator import Command, Continuation, Id, Quantity, Resumption
from shared.payments.commands import PaymentMethod


class OpenPurchase(Command, type="users.open_purchase"):
    """Buy some of an item: the flow begins, and ends later. Rejected: `user_not_found`,
    `too_many_purchases`."""

    user_id: Id
    item_id: Id
    quantity: Quantity
    payment_method: PaymentMethod


class ContinuePurchase(Continuation, type="users.continue_purchase"):
    """Go on with a purchase, one of whose steps is settled. Rejected: `unknown_step`."""


class ResumePurchase(Resumption, type="users.resume_purchase"):
    """Take up a purchase that needs a review, at the step where it stopped, with an operator's verdict on that step.

    With the `verdict` `again` the step's lane is asked once more. `done`: the step was done, or taken back. `not_done`:
    it was not done, and the purchase is taken back. For `authorize` the `result` is the payment, `{"id": 7}`.
    Rejected: `purchase_not_found`, `not_in_review`, `other_step`, `impossible_verdict`, `invalid_result`.
    """
