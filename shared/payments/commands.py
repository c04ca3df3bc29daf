"""The commands of the payments lane. Amounts are in minor units of the payment's currency (ISO 4217)."""

from typing import Annotated, Literal

from msgspec import Meta

from coordinator import AMOUNT_MAX, Amount, Command, Id
from shared.money import Currency

PaymentMethod = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"\A[\x21-\x7e]+\Z",
        description="visible ASCII; the provider's token, never a card's number",
    ),
]
"""A provider's token for a card or the like; card numbers never come here."""
ProviderId = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[\x21-\x7e]+\Z")]
Total = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Why = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]


class OpenPayment(Command, omit_defaults=True, type="payments.open"):
    """Open a payment; it is pending. With a `payment_method` the provider is asked to hold the amount.

    Its continuation comes when the provider has answered, with the Payment: authorized, or already captured or refunded
    if somebody did that at the provider meanwhile.
    Rejected: `unknown_currency`; in the continuation also `payment_failed`, `payment_needs_review`, `payment_voided`,
    and the provider's code for a payment that is declined.
    """

    user_id: Id
    amount: Amount
    currency: Currency
    payment_method: PaymentMethod | None = None


class CapturePayment(Command, type="payments.capture"):
    """Take the whole amount of an authorized payment.

    Its continuation comes when the whole amount is taken, with the Payment. If somebody took a part at the provider,
    the rest is let go there: then it is rejected with `captured_in_part`, and the payment can be reversed.
    Rejected: `payment_not_found`, `impossible_transition`, `action_under_way`, `captured_in_part`,
    `payment_needs_review`, `version_conflict`; in the continuation also `payment_failed` and `payment_voided`.
    """

    id: Id


class ReversePayment(Command, type="payments.reverse"):
    """Give the money back, whatever was done: let go of the hold, refund what was taken.

    If nothing is held or taken, there is nothing to do, and the command is applied. While the provider is being asked
    for something, the reversal is remembered, and done after the answer. Its continuation comes at the end, with the
    Payment. Rejected: `payment_not_found`, `action_under_way`, `payment_needs_review`, `version_conflict`; in the
    continuation also `refund_failed`, and `refunded_in_part` if less was given back than was taken.
    """

    id: Id


class RefundPayment(Command, omit_defaults=True, type="payments.refund"):
    """Give back `amount` of the money that was taken, or all that is left of it. Its continuation has the Refund.

    Rejected: `payment_not_found`, `impossible_transition`, `action_under_way`, `refund_too_large`,
    `payment_needs_review`, `version_conflict`; in the continuation also `refund_failed`.
    """

    id: Id
    amount: Amount | None = None


class ResolvePayment(Command, omit_defaults=True, type="payments.resolve"):
    """End the review of a payment with what an operator sees at the provider. The provider itself is not called.

    `authorized`: the amount is held. `voided`: nothing is held, or ever was. `declined`: the payer's bank did not pay.
    `captured`: it was taken; `captured` and `refunded` are the totals so far, and if they are equal the payment is
    refunded. A reversal that was wanted before the review is done then. `provider_id` is needed if it is not known yet;
    `reason` is kept with the payment. `even_if_under_way` is for a payment whose call has an answer that never comes,
    such as one that a restored backup has lost: it ends that call, too, and whoever waits for it is told.
    Rejected: `payment_not_found`, `not_in_review`, `action_under_way`, `provider_id_needed`, `other_payment`,
    `amount_mismatch`, `impossible_transition`, `version_conflict`.
    """

    id: Id
    status: Literal["authorized", "voided", "declined", "captured"]
    reason: Why
    provider_id: ProviderId | None = None
    captured: Total = 0
    refunded: Total = 0
    even_if_under_way: bool = False
