"""The life of a payment, as a table: in which state it may learn of what, and which state that makes.

    pending ──▶ authorized ──▶ captured ──▶ refunded
       │ │          │              │
       │ └▶ voided ◀┘              └▶ needs_review ◀─ any in which money may have moved unseen
       ├▶ declined
       └▶ failed

What the provider says of money wins over what we concluded: a payment that was given up as failed, or needs a person,
moves on when the provider tells what really happened.
"""

from typing import Final, Literal

from shared.errors import Rejected

State = Literal["pending", "authorized", "captured", "refunded", "declined", "voided", "failed", "needs_review"]
Event = Literal["authorized", "declined", "captured", "voided", "refunded", "failed", "unsure"]

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    ("pending", "authorized"): "authorized",
    ("pending", "declined"): "declined",
    ("pending", "captured"): "captured",
    ("pending", "voided"): "voided",
    ("pending", "failed"): "failed",
    ("pending", "unsure"): "needs_review",
    ("authorized", "captured"): "captured",
    ("authorized", "voided"): "voided",
    ("authorized", "unsure"): "needs_review",
    ("captured", "refunded"): "refunded",
    ("captured", "unsure"): "needs_review",
    ("failed", "authorized"): "needs_review",
    ("failed", "captured"): "captured",
    ("failed", "voided"): "voided",
    ("failed", "declined"): "declined",
    ("needs_review", "authorized"): "needs_review",
    ("needs_review", "declined"): "declined",
    ("needs_review", "captured"): "captured",
    ("needs_review", "voided"): "voided",
    ("needs_review", "refunded"): "refunded",
}

OLD_NEWS: Final[frozenset[tuple[State, Event]]] = frozenset(
    {
        ("authorized", "authorized"),
        ("captured", "authorized"),
        ("captured", "captured"),
        ("refunded", "authorized"),
        ("refunded", "captured"),
        ("refunded", "refunded"),
        ("voided", "authorized"),
        ("voided", "voided"),
        ("declined", "declined"),
        ("failed", "failed"),
        ("needs_review", "unsure"),
    }
)
"""What a payment in this state has been through already: told again, or late, it changes nothing."""

OVER: Final[frozenset[State]] = frozenset({"refunded", "declined", "voided", "failed"})
"""Nothing is held, and nothing that was taken is kept."""


def after(state: State, event: Event, payment_id: int) -> State:
    """The state after an event. Raises Rejected (`impossible_transition`)."""
    if (state, event) in OLD_NEWS:
        return state
    next_state = TRANSITIONS.get((state, event))
    if next_state is None:
        raise impossible(state, event, payment_id)
    return next_state


def impossible(state: State, asked: str, payment_id: int) -> Rejected:
    """What is asked of a payment, or said of it, cannot be in its state."""
    return Rejected("impossible_transition", f"payment {payment_id} is {state}: it cannot be {asked}")
