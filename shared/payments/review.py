"""How the payments lane ends the review of a payment: an operator has looked, and gives its state at the provider."""

from typing import Final

import msgspec

from coordinator import Rejected, UnitOfWork
from shared.payments.commands import ResolvePayment
from shared.payments.doubts import in_question, known_without
from shared.payments.from_provider import AMOUNT_MISMATCH, check_same, payment_of, sum_without
from shared.payments.model import Payment, Reason
from shared.payments.progress import Progress
from shared.payments.states import REFUND_RETURNED

RESOLVED: Final = "resolved"


def resolve_payment(work: UnitOfWork, command: ResolvePayment) -> Payment:
    payment = payment_of(work, command.id)
    is_under_way = payment.pending_action is not None
    if is_under_way and not command.even_if_under_way:
        text = (
            f"payment {payment.id}: {payment.pending_action} is under way at the provider; resolve it when it is known."
            " Its result may be a dead letter of this lane: then replay that one. If it certainly never comes, such as "
            "after a restored backup, say `even_if_under_way`"
        )
        raise Rejected("action_under_way", text)
    if payment.status != "needs_review" and not is_under_way:
        raise Rejected("not_in_review", f"payment {payment.id} is {payment.status}, and needs no review")
    _check(payment, command)
    progress = Progress(work, payment)
    reason = Reason(RESOLVED, command.reason)
    if is_under_way:
        progress.doubt()
    decided = []
    if command.status == "captured":
        decided = _decide_refunds(work, progress.payment, command.refunded, reason)
        # Only an operator may lower the amounts: otherwise a late event, about money that came back since, would raise
        # them.
        progress.note(captured=command.captured, refunded=command.refunded, amounts_as_of=work.now)
    progress.note(provider_id=command.provider_id, reason=reason)  # whatever the review was for
    progress.move(command.status, reason)
    if 0 < command.refunded == command.captured:
        progress.move("refunded_in_full")
    for refund_id in decided:
        progress.end_refund(refund_id)
    if is_under_way and progress.payment.pending_action == payment.pending_action:
        # What the operator saw is not what it would have led to.
        progress.end()
    progress.note(reason=reason)
    return progress.store()


def _check(payment: Payment, command: ResolvePayment) -> None:
    """Raises Rejected for a state that contradicts known facts."""
    if command.provider_id is not None:
        check_same(payment, command.provider_id)
    is_taken = command.status == "captured"
    if (payment.captured > 0 and not is_taken) or (payment.provider_id is not None and command.status == "declined"):
        text = f"payment {payment.id} was {'captured' if payment.captured else 'authorized'} before, and cannot be "
        raise Rejected("impossible_transition", text + command.status)
    if payment.provider_id is None and command.provider_id is None and command.status in {"authorized", "captured"}:
        text = f"it is not known what payment {payment.id} is at the provider: say so with `provider_id`"
        raise Rejected("provider_id_needed", text)
    # The sum still includes a refund that came back.
    least = 0 if payment.reason_code == REFUND_RETURNED else payment.refunded
    known = payment.captured or command.captured
    is_possible = (
        0 < command.captured == known <= payment.amount and least <= command.refunded <= command.captured
        if is_taken
        else command.captured == command.refunded == 0
    )
    if not is_possible:
        text = (
            f"payment {payment.id} is of {payment.amount} {payment.currency} (minor units), with {payment.captured} "
            f"captured and {payment.refunded} refunded; it cannot be {command.status} with {command.captured} captured "
            f"and {command.refunded} refunded"
        )
        raise Rejected(AMOUNT_MISMATCH, text)


def _decide_refunds(work: UnitOfWork, payment: Payment, total: int, reason: Reason) -> list[int]:
    """Each refund in question was made if the total has room for it beside the sum without it. Their numbers.

    The amounts that events have added to the payment's own sum since it was asked for may be this very refund.
    """
    decided, known = [], 0
    for refund in in_question(work, payment.id):
        is_its_own = refund.id == payment.refund_id
        without = sum_without(payment, refund) if is_its_own else known_without(work, refund, payment.refunded)
        made = max(known, without) + refund.amount
        if total >= made:
            known = made
            work.save(msgspec.structs.replace(refund, status="succeeded", reason_code=None, reason=None))
        else:
            failed = {"status": "failed", "reason_code": reason.code, "reason": reason.message}
            work.save(msgspec.structs.replace(refund, **failed))
        decided.append(refund.id)
    return decided
