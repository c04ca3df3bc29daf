"""The states of a payment, and what leads from one to another: all of it is in TRANSITIONS.

Three kinds of events move a payment. A request is refused if the table does not have it. It changes no state by itself;
the provider's answer does. A fact is what the provider reports. It may come late, twice and in any order, so a fact
that a later one implies leaves the state as it is. A guess follows from a call without an answer, and a fact overrules
it. An operator's report of what the provider shows (review.py) is a fact too.

Declined is final. Refunded is final unless a bank sends a refund back; failed and voided are final unless money was
taken after all, or a hold that came to light late cannot be let go. A refund that came back shows that money was taken,
before anything tells how much.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from coordinator import Rejected

Status = Literal["pending", "authorized", "captured", "refunded", "declined", "voided", "failed", "needs_review"]
"""`failed`: nothing was taken, and the hold is let go. `needs_review`: money may have moved; somebody must look."""

Request = Literal["capture", "refund", "reverse"]

Fact = Literal[
    "authorized", "declined", "captured", "voided", "refunded_in_part", "refunded_in_full", "refund_returned"
]
"""`refund_returned`: a refund that was made came back, days later, since the payer's bank did not take it."""

Guess = Literal["authorize_failed", "capture_failed", "void_failed", "refund_failed", "answer_lost"]
"""`…_failed`: the call certainly had no effect, and is not made again. `answer_lost`: it may have had."""

Event = Request | Fact | Guess

REFUND_RETURNED: Final = "refund_returned"
REFUND_IN_DOUBT: Final = "refund_in_doubt"
"""The reason of a payment that needs a review for another refund than the one that is under way, or in question."""
FOR_OPERATORS: Final = frozenset({REFUND_RETURNED, REFUND_IN_DOUBT})
"""The reasons of a review that only an operator ends: no fact about anything else settles what it is about."""

STATUSES: Final[tuple[Status, ...]] = get_args(Status)
EVENTS: Final[tuple[Event, ...]] = (*get_args(Request), *get_args(Fact), *get_args(Guess))

TRANSITIONS: Final[Mapping[Event, Mapping[Status, Status]]] = {
    "capture": {"authorized": "authorized"},
    "refund": {"captured": "captured"},
    "reverse": {
        "pending": "pending",
        "authorized": "authorized",
        "captured": "captured",
        "refunded": "refunded",
        "declined": "declined",
        "voided": "voided",
        "failed": "failed",
    },
    "authorized": {
        "pending": "authorized",
        "authorized": "authorized",
        "captured": "captured",
        "refunded": "refunded",
        "voided": "voided",
        # All callers were told that it failed: the hold is let go, not used.
        "failed": "failed",
        "needs_review": "authorized",
    },
    "declined": {
        "pending": "declined",
        "declined": "declined",
        "voided": "voided",
        "failed": "failed",
        "needs_review": "declined",
    },
    "captured": {
        "pending": "captured",
        "authorized": "captured",
        "captured": "captured",
        "refunded": "refunded",
        "voided": "captured",
        "failed": "captured",
        "needs_review": "captured",
    },
    "voided": {
        "pending": "voided",
        "authorized": "voided",
        "declined": "declined",
        "voided": "voided",
        "failed": "failed",
        "needs_review": "voided",
    },
    "refunded_in_part": {"captured": "captured", "needs_review": "captured"},
    "refunded_in_full": {"captured": "refunded", "refunded": "refunded", "needs_review": "refunded"},
    "refund_returned": {
        "pending": "needs_review",
        "authorized": "needs_review",
        "captured": "needs_review",
        "refunded": "needs_review",
        "voided": "needs_review",
        "failed": "needs_review",
        "needs_review": "needs_review",
    },
    "authorize_failed": {"pending": "failed"},
    "capture_failed": {"authorized": "failed"},
    # The amount stays held for days: nobody should believe that it was let go.
    "void_failed": {"authorized": "needs_review", "voided": "needs_review", "failed": "needs_review"},
    "refund_failed": {"captured": "captured", "needs_review": "needs_review"},
    "answer_lost": {
        "pending": "needs_review",
        "authorized": "needs_review",
        "captured": "needs_review",
        "voided": "needs_review",
        "failed": "needs_review",
        "needs_review": "needs_review",
    },
}

_ASKED: Final = {"capture": "captured", "refund": "refunded", "reverse": "reversed"}


def after(payment_id: int, status: Status, event: Event) -> Status:
    """The state that `event` brings a payment to.

    Raises Rejected: `payment_needs_review` for a request about a payment that an operator must review first,
    `impossible_transition` for anything else that the table does not have.
    """
    reached = TRANSITIONS[event].get(status)
    if reached is not None:
        return reached
    if event not in _ASKED:
        text = f"payment {payment_id} is {status}, and the provider tells of it: {event}"
        raise Rejected("impossible_transition", text)
    text = f"payment {payment_id} is {status}, and cannot be {_ASKED[event]}"
    raise Rejected("payment_needs_review" if status == "needs_review" else "impossible_transition", text)
