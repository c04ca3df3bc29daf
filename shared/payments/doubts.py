"""What a doubt does that comes after a denial of the same call.

Copies of a call that never meet may be given up differently: one says that nothing happened, and another, whose answer
was lost, that something may have. The denial has ended the action, and everybody was told that it failed. The doubt
overrules it: the payment needs a review, for its amounts are not known. Whatever turns out to have happened is undone
if nobody wants it any more (a hold), and counted otherwise (a refund).

A capture needs nothing of this: its denial has the hold let go, and the provider's answer to that tells what was taken.
A void that is denied needs a review in any case.
"""

from collections.abc import Iterator

import msgspec

from coordinator import SELECTED_MAX, UnitOfWork
from shared.payments.effects import PROVIDER_UNAVAILABLE
from shared.payments.model import Reason, Refund, reason_of
from shared.payments.progress import Progress
from shared.payments.states import REFUND_IN_DOUBT, REFUND_RETURNED


def doubt_hold(progress: Progress, reason: Reason) -> None:
    """The hold that was denied may be there: once it shows it is let go, for everybody was told that there is none."""
    payment = progress.payment
    is_denied = payment.status == "failed" and payment.reason_code == PROVIDER_UNAVAILABLE
    if is_denied and payment.provider_id is None:
        progress.move("answer_lost", reason)
        progress.want_reversal()


def doubt_refund(work: UnitOfWork, progress: Progress, refund: Refund, reason: Reason) -> None:
    """The refund that was denied may have been made, unless so much was given back that it has no room any more."""
    payment = progress.payment
    if refund.status != "failed" or refund.reason_code != PROVIDER_UNAVAILABLE:
        return
    without = known_without(work, refund, payment.refunded)
    if payment.refunded + refund.amount > payment.captured:
        if payment.refunded >= without + refund.amount:
            work.save(msgspec.structs.replace(refund, status="succeeded", reason_code=None, reason=None))
        return
    doubted = msgspec.structs.replace(refund, status="needs_review", reason_code=reason.code, reason=reason.message)
    progress.move("answer_lost", reason)
    if payment.refund_id is None:
        work.save(msgspec.structs.replace(doubted, refunded_without=without))
        progress.question(refund.id)
        return
    work.save(doubted)
    if payment.reason_code != REFUND_RETURNED:
        # The result of the other refund must not end the review.
        progress.note(reason=reason_of(REFUND_IN_DOUBT, f"refund {refund.id}: {reason.message}"))


def known_without(work: UnitOfWork, refund: Refund, refunded: int) -> int:
    """Of the sum that is given back, what is known to be others' than this refund.

    That is what there was when it was asked for, and what was asked for later and made.
    """
    if refund.refunded_without is None:
        return refunded
    later = sum(each.amount for each in _refunds(work, refund.payment_id, refund.id) if each.status == "succeeded")
    return min(refunded, refund.refunded_without + later)


def in_question(work: UnitOfWork, payment_id: int) -> list[Refund]:
    """The refunds of which nobody knows whether they were made, in the order in which they were asked for."""
    return [refund for refund in _refunds(work, payment_id, 0) if refund.status == "needs_review"]


def _refunds(work: UnitOfWork, payment_id: int, after: int) -> Iterator[Refund]:
    while True:
        page = work.select(Refund, payment_id=payment_id, after=after, limit=SELECTED_MAX)
        yield from page
        if len(page) < SELECTED_MAX:
            return
        after = page[-1].id
