"""The commands of the payments lane."""

from typing import ClassVar

from msgspec import UNSET, UnsetType

from shared.commands import Amount, Command, Currency, Id


class OpenPayment(Command, frozen=True, kw_only=True):
    """Open a payment; it is pending."""

    type: ClassVar[str] = "payments.open"

    user_id: Id
    amount: Amount
    currency: Currency
    payment_method: str | UnsetType = UNSET


class CapturePayment(Command, frozen=True, kw_only=True):
    """Take the money."""

    type: ClassVar[str] = "payments.capture"

    id: Id


class ReversePayment(Command, frozen=True, kw_only=True):
    """Let the money go, or give it back."""

    type: ClassVar[str] = "payments.reverse"

    id: Id
