"""The commands that bring the provider's actions to the payments lane: results of our calls, and its own events.

They are the system's own; gateways do not take them from clients.
"""

from typing import Annotated, Literal

from msgspec import Meta

from coordinator import Command, Id
from shared.payments.commands import ProviderId, Total

_Seconds = Annotated[int, Meta(ge=0, le=253_402_300_799)]
"""Seconds since the Unix epoch, up to the end of the year 9999, the latest time that a row can hold."""

Kind = Literal["authorized", "captured", "voided", "declined", "refunded", "refund_failed"]


class AuthorizeResult(Command, omit_defaults=True, type="payments.authorize_result"):
    """The result of the call that asks to hold an amount.

    Rejected: `payment_not_found`, `other_payment`, `impossible_transition`.
    """

    id: Id
    verdict: Literal["authorized", "declined", "authorize_failed", "answer_lost"]
    provider_id: ProviderId | None = None
    code: str | None = None
    message: str | None = None


class CaptureResult(Command, omit_defaults=True, type="payments.capture_result"):
    """The result of the call that takes a held amount. `amount` is the amount that was taken.

    Rejected: `payment_not_found`, `impossible_transition`.
    """

    id: Id
    verdict: Literal["captured", "voided", "capture_failed", "answer_lost"]
    amount: int = 0
    code: str | None = None
    message: str | None = None


class VoidResult(Command, omit_defaults=True, type="payments.void_result"):
    """The result of the call that lets go of a hold. `captured`: `amount` of it was taken before.

    Rejected: `payment_not_found`, `impossible_transition`.
    """

    id: Id
    verdict: Literal["voided", "captured", "void_failed", "answer_lost"]
    amount: int = 0
    code: str | None = None
    message: str | None = None


class RefundResult(Command, omit_defaults=True, type="payments.refund_result"):
    """The result of the call that gives back. `provider_id` is the refund's; `total` is the sum that went back so far.

    Rejected: `payment_not_found`, `refund_not_found`, `impossible_transition`.
    """

    id: Id
    refund_id: Id
    verdict: Literal["refunded", "refund_failed", "answer_lost"]
    provider_id: ProviderId | None = None
    total: Total = 0
    code: str | None = None
    message: str | None = None


class TakeProviderEvent(Command, omit_defaults=True, type="payments.provider_event"):
    """An event of the provider's. Amounts are in minor units; the captured and refunded amounts are totals so far.

    `is_signed`: the object of the event has the mark that only this deployment makes. Without it, as for payments that
    an earlier release made, the event counts only for a payment that is known by its id at the provider. `created_s` is
    when it happened, by the provider's clock: events come in any order. For a refund that came back, `refund_id` is the
    provider's id, and `refund_number` ours, if its metadata have it. A gateway of an earlier release does not send
    `refund_number` and `created_s`.
    Rejected: `payment_not_found`; `other_payment`, if our payment is another one at the provider, or was never sent
    there; `not_ours`, if nothing shows that the event is about our payment; `currency_mismatch` and `amount_mismatch`;
    `impossible_transition`.
    """

    event_id: str
    kind: Kind
    id: Id
    provider_id: ProviderId
    is_signed: bool = False
    currency: str
    amount: Total
    amount_captured: Total = 0
    amount_refunded: Total = 0
    refund_id: str | None = None
    refund_number: Id | None = None
    code: str | None = None
    created_s: _Seconds | None = None
