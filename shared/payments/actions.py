"""Asking the provider for something: one action of a payment at a time, and who waits for it."""

import msgspec
from msgspec import Struct

from shared.continuation import Deferred
from shared.errors import Rejected
from shared.payments.effects import Authorize, Capture, GiveBack, Void
from shared.payments.model import Payment, PaymentAction, Refund
from shared.unit_of_work import UnitOfWork


def authorize(work: UnitOfWork, payment: Payment, waiting: Deferred | None) -> None:
    """Have the amount held."""
    if payment.payment_method is None:
        raise ValueError(f"payment {payment.id} has no payment method")
    work.emit(
        Authorize(
            id=payment.id,
            amount=payment.amount,
            currency=payment.currency,
            payment_method=payment.payment_method,
        )
    )
    _begin(work, payment, "authorize", waiting)


def capture(work: UnitOfWork, payment: Payment, waiting: Deferred | None) -> None:
    """Have what is held taken."""
    work.emit(
        Capture(
            id=payment.id,
            provider_id=payment.provider_id or "",
            amount=payment.amount,
            currency=payment.currency,
        )
    )
    _begin(work, payment, "capture", waiting)


def void(work: UnitOfWork, payment: Payment, waiting: Deferred | None) -> None:
    """Have what is held let go."""
    work.emit(Void(id=payment.id, provider_id=payment.provider_id or ""))
    _begin(work, payment, "void", waiting)


def refund(work: UnitOfWork, payment: Payment, amount: int, waiting: Deferred | None) -> Refund:
    """Have an amount given back. Raises Rejected for more than there is."""
    left = payment.captured - payment.refunded
    if amount > left:
        raise Rejected("refund_too_large", f"of payment {payment.id} {left} can be refunded, not {amount}")
    refund = work.add(Refund(id=work.next_id("refunds"), payment_id=payment.id, amount=amount, created_at=work.now))
    work.emit(
        GiveBack(
            id=payment.id,
            refund_id=refund.id,
            provider_id=payment.provider_id or "",
            amount=amount,
            currency=payment.currency,
        )
    )
    _begin(work, payment, "refund", waiting, refund.id)
    return refund


def want_reversal(work: UnitOfWork, action: PaymentAction, waiting: Deferred | None) -> None:
    """Have the payment reversed once what is under way is over."""
    if action.waiting_for_reversal is not None and waiting is not None:
        raise Rejected("action_under_way", f"payment {action.payment_id} is being reversed already")
    encoded = action.waiting_for_reversal if waiting is None else waiting.encode()
    work.save(msgspec.structs.replace(action, is_reversal_wanted=1, waiting_for_reversal=encoded))


def reverse(work: UnitOfWork, payment: Payment, waiting: Deferred | None) -> bool:
    """Begin to give the money back; False: there is nothing to give back, nor to wait for.

    Nothing may be under way. Raises Rejected where it is not known what there is to give back.
    """
    if payment.status == "needs_review":
        raise Rejected("payment_needs_review", f"payment {payment.id} needs a person: {payment.reason}")
    if payment.status == "authorized":
        void(work, payment, waiting)
        return True
    if payment.status == "captured" and payment.captured > payment.refunded:
        refund(work, payment, payment.captured - payment.refunded, waiting)
        return True
    return False


def finish(work: UnitOfWork, payment: Payment, action: PaymentAction, outcome: Struct | Rejected | None) -> None:
    """What was under way is over: tell whoever waits, and go on with the reversal that is wanted."""
    work.remove(action)
    if action.waiting is not None:
        work.resume(Deferred.decode(action.waiting), outcome)
    if not action.is_reversal_wanted:
        return
    waiting = None if action.waiting_for_reversal is None else Deferred.decode(action.waiting_for_reversal)
    try:
        is_begun = reverse(work, payment, waiting)
    except Rejected as rejection:
        if waiting is not None:
            work.resume(waiting, rejection)
        return
    if not is_begun and waiting is not None:
        work.resume(waiting, payment)


def _begin(
    work: UnitOfWork, payment: Payment, action: str, waiting: Deferred | None, refund_id: int | None = None
) -> None:
    work.add(
        PaymentAction(
            payment_id=payment.id,
            action=action,
            refund_id=refund_id,
            waiting=None if waiting is None else waiting.encode(),
            began_at=work.now,
        )
    )
