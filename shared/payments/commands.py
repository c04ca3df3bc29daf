"""The commands of the payments lane."""

from typing import ClassVar

from shared.commands import Amount, Command, Currency, Id


class OpenPayment(Command, frozen=True, kw_only=True):
    """Open a payment; it is pending."""

    type: ClassVar[str] = "payments.open"

    user_id: Id
    amount: Amount
    currency: Currency
