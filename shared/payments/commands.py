"""The commands of the payments lane."""

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from shared.commands import AMOUNT_MAX, Amount, Command, Currency, Id

PaymentMethod = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\A[A-Za-z0-9_-]+\Z")]
"""The provider's token for a card or the like, such as `pm_card_visa`. Never a card's number."""
ProviderId = Annotated[str, Meta(min_length=1, max_length=100)]
Total = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class OpenPayment(Command, frozen=True, kw_only=True):
    """Open a payment; it is pending. With a payment method the provider is asked to hold the amount.

    Rejected: `unknown_currency`.
    """

    type: ClassVar[str] = "payments.open"

    user_id: Id
    amount: Amount
    currency: Currency
    payment_method: PaymentMethod | UnsetType = UNSET


class CapturePayment(Command, frozen=True, kw_only=True):
    """Take what is held. Rejected: `payment_not_found`, `impossible_transition`, `action_under_way`."""

    type: ClassVar[str] = "payments.capture"

    id: Id


class ReversePayment(Command, frozen=True, kw_only=True):
    """Give the money back, whatever was done: let go of what is held, refund what was taken, or do nothing.

    What is under way is awaited first. Rejected: `payment_not_found`, `payment_needs_review`.
    """

    type: ClassVar[str] = "payments.reverse"

    id: Id


class RefundPayment(Command, frozen=True, kw_only=True):
    """Give back what was taken, or a part of it; without an amount all that is left.

    Rejected: `payment_not_found`, `impossible_transition`, `action_under_way`, `refund_too_large`.
    """

    type: ClassVar[str] = "payments.refund"

    id: Id
    amount: Amount | UnsetType = UNSET


Action = Literal["authorize", "capture", "void", "refund"]


class SettleAction(Command, frozen=True, kw_only=True):
    """What the provider did, as an effect worker tells it.

    `result`: `done`; `declined`; `refused`, with the provider's word for the payment's state in `provider_status`;
    `failed`: given up, and nothing happened; `unsure`: given up, and money may have moved. `amount` is what was taken
    or given back.
    """

    type: ClassVar[str] = "payments.settle_action"

    id: Id
    action: Action
    result: Literal["done", "declined", "refused", "failed", "unsure"]
    provider_id: ProviderId | None = None
    refund_id: Id | None = None
    amount: Total | None = None
    provider_status: str | None = None
    code: str | None = None
    message: str | None = None


class ProviderEvent(Command, frozen=True, kw_only=True):
    """What the provider says by itself of a payment. It may come several times, late, and in any order.

    `captured` and `refunded` are totals. Rejected: `payment_not_found`, `impossible_transition`.
    """

    type: ClassVar[str] = "payments.provider_event"

    id: Id
    event: Literal["authorized", "declined", "captured", "voided", "refunded"]
    provider_id: ProviderId
    captured: Total = 0
    refunded: Total = 0
    code: str | None = None
    message: str | None = None
