"""The purchase: quote the price, hold the money, set the stock aside, take the money, note it with the user.

step       lane      command          taken back by
quote      items     items.quote      nothing to take back
authorize  payments  payments.open    payments.reverse: lets the money go, or gives it back
reserve    items     items.reserve    items.release
capture    payments  payments.capture payments.reverse, as above
(finish)   users     the user's totals
"""

import msgspec
from msgspec import Struct

from coordinator import AMOUNT_MAX, INTEGER_MAX, Rejected, Saga, Step, UnitOfWork
from shared.items.commands import QuoteItem, ReleaseItem, ReserveItem
from shared.payments.commands import CapturePayment, OpenPayment, ReversePayment
from shared.users.model import User
from shared.users.purchases.commands import ContinuePurchase
from shared.users.purchases.model import Purchase, PurchaseTotal, total_id

UNSURE = frozenset({"payment_needs_review"})
"""Codes of payments whose provider gave no reliable answer."""

RELEASED = frozenset({"reservation_not_found"})
"""The code of a reservation that is given back already, by whoever may do that."""


class _Quoted(Struct, frozen=True):
    price: int
    currency: str


class _Made(Struct, frozen=True):
    id: int


def _quote(purchase: Purchase) -> QuoteItem:
    return QuoteItem(id=purchase.item_id)


def _quoted(purchase: Purchase, result: msgspec.Raw) -> Purchase:
    quote = msgspec.json.decode(result, type=_Quoted)
    amount = quote.price * purchase.quantity
    if amount > AMOUNT_MAX:
        raise Rejected("amount_too_large", f"{purchase.quantity} of item {purchase.item_id} cost {amount}")
    return msgspec.structs.replace(purchase, price=quote.price, amount=amount, currency=quote.currency)


def _authorize(purchase: Purchase) -> OpenPayment | None:
    if not purchase.amount or purchase.currency is None:
        return None
    return OpenPayment(
        user_id=purchase.user_id,
        amount=purchase.amount,
        currency=purchase.currency,
        payment_method=purchase.payment_method,
    )


def _authorized(purchase: Purchase, result: msgspec.Raw) -> Purchase:
    return msgspec.structs.replace(purchase, payment_id=msgspec.json.decode(result, type=_Made).id)


def _reverse(purchase: Purchase) -> ReversePayment | None:
    return None if purchase.payment_id is None else ReversePayment(id=purchase.payment_id)


def _reserve(purchase: Purchase) -> ReserveItem:
    if purchase.price is None or purchase.currency is None:
        raise Rejected("not_quoted", f"the price of item {purchase.item_id} is not known")
    return ReserveItem(
        id=purchase.item_id, quantity=purchase.quantity, price=purchase.price, currency=purchase.currency
    )


def _reserved(purchase: Purchase, result: msgspec.Raw) -> Purchase:
    return msgspec.structs.replace(purchase, reservation_id=msgspec.json.decode(result, type=_Made).id)


def _release(purchase: Purchase) -> ReleaseItem | None:
    if purchase.reservation_id is None:
        return None
    return ReleaseItem(id=purchase.item_id, reservation_id=purchase.reservation_id)


def _capture(purchase: Purchase) -> CapturePayment | None:
    return None if purchase.payment_id is None else CapturePayment(id=purchase.payment_id)


def _finish(work: UnitOfWork, purchase: Purchase) -> None:
    """Add the purchase to the user's totals. Raises Rejected if the user is gone."""
    if work.get(User, purchase.user_id) is None:
        raise Rejected("user_not_found", f"user {purchase.user_id} was deleted meanwhile")
    currency = purchase.currency or ""
    key = total_id(purchase.user_id, currency)
    known = work.get(PurchaseTotal, key)
    total = known or PurchaseTotal(id=key, user_id=purchase.user_id, currency=currency)
    amount = total.amount + (purchase.amount or 0)
    if amount > INTEGER_MAX:
        raise Rejected(
            "total_limit", f"user {purchase.user_id} would have bought for more than {INTEGER_MAX} {currency}"
        )
    total = msgspec.structs.replace(total, purchases=total.purchases + 1, amount=amount)
    work.add(total) if known is None else work.save(total)


PURCHASE = Saga(
    "purchase",
    Purchase,
    ContinuePurchase,
    steps=(
        Step(name="quote", do=_quote, took=_quoted),
        Step(name="authorize", do=_authorize, took=_authorized, undo=_reverse, review=UNSURE),
        Step(name="reserve", do=_reserve, took=_reserved, undo=_release, undone=RELEASED),
        Step(name="capture", do=_capture, review=UNSURE),
    ),
    finish=_finish,
)
