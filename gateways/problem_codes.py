"""What the codes of the reference system's services mean: for docs/HTTP.md, and at `/problems/<code>`."""

from typing import Final

from coordinator.http import ProblemCode

PROBLEMS: Final = (
    ProblemCode(
        "action_under_way",
        (409,),
        ("lane",),
        "the provider is being asked for something of this payment: ask again when that is known; a reversal "
        "is remembered instead, and all who wish it get its answer",
    ),
    ProblemCode("bad_signature", (400,), ("request",), "`Stripe-Signature` is missing, or not made with our secret"),
    ProblemCode(
        "captured_in_part",
        (409,),
        ("lane",),
        "somebody at the provider captured less than the payment's amount, and the rest was let go; reverse "
        "the payment to give the captured part back",
    ),
    ProblemCode("credit_limit", (409,), ("lane",), "a user would have a credit of more than 2^53-1"),
    ProblemCode("email_taken", (409,), ("lane",), "another user has this address"),
    ProblemCode("impossible_transition", (409,), ("lane",), "the payment's `status` does not allow it"),
    ProblemCode("insufficient_credit", (409,), ("lane",), "the user has less credit than that"),
    ProblemCode("item_not_found", (404,), ("request", "lane"), "there is no such item"),
    ProblemCode("malformed", (400,), ("request",), "the body has Stripe's signature but is not one of its events"),
    ProblemCode("out_of_stock", (409,), ("lane",), "the item has less in stock"),
    ProblemCode("payment_needs_review", (409,), ("lane",), "an operator must review the payment first"),
    ProblemCode("payment_not_found", (404,), ("request", "lane"), "there is no such payment"),
    ProblemCode(
        "payment_not_known_yet",
        (503,),
        ("away",),
        "an event tells of a refund that came back, and no payment is known by that id at the provider yet",
    ),
    ProblemCode("price_changed", (409,), ("lane",), "the item has another price than the reservation says"),
    ProblemCode("purchase_not_found", (404,), ("request",), "there is no such purchase"),
    ProblemCode("refund_not_found", (404,), ("request",), "the payment has no such refund"),
    ProblemCode("refund_too_large", (409,), ("lane",), "less than that is left to refund"),
    ProblemCode(
        "reservation_not_found", (404,), ("request", "lane"), "the item has no such reservation, or no longer has it"
    ),
    ProblemCode("same_user", (409,), ("lane",), "a transfer from a user to itself"),
    ProblemCode("stale", (400,), ("request",), "the event was signed too long ago, or ahead of our time"),
    ProblemCode("stock_limit", (409,), ("lane",), "the item would have more than 2^53-1 in stock"),
    ProblemCode(
        "too_many_purchases",
        (409,),
        ("lane",),
        "ten purchases of whoever asks have not ended yet, whatever users they are for: buy more, with another key, "
        "when one has",
    ),
    ProblemCode("unknown_currency", (422,), ("lane",), "not a currency of ISO 4217 that amounts can be in"),
    ProblemCode("user_not_found", (404,), ("request", "lane"), "there is no such user"),
    ProblemCode("webhooks_not_configured", (503,), ("away",), "`STRIPE_WEBHOOK_SECRET` is unset"),
)
