"""How the payments lane applies what comes from the provider: answers to our calls, and events.

Both come late, twice and in any order; an event may overtake the answer to the call that caused it. So each is applied
as a state that is true now, and not as a step: a known fact changes nothing. A guess, which comes from a call without
an answer, counts only while that call's action is under way, unless it is a doubt after a denial (doubts.py).

Totals only grow, so the largest is the latest, until an operator lowers one because a bank sent a refund back. Older
events are included in the operator's amounts, and no longer change the payment. Until then, a refund that came back
stays in the total, and so the order of the events does not matter.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec

from coordinator import Rejected, UnitOfWork
from shared.payments.doubts import doubt_hold, doubt_refund
from shared.payments.model import Action, Payment, Reason, Refund, reason_of
from shared.payments.progress import Progress
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, TakeProviderEvent, VoidResult
from shared.payments.states import REFUND_RETURNED, Guess

AMOUNT_MISMATCH: Final = "amount_mismatch"


def authorize_result(work: UnitOfWork, command: AuthorizeResult) -> Payment:
    progress = Progress(work, payment_of(work, command.id))
    reason = reason_of(command.code, command.message)
    if command.verdict == "authorized":
        check_same(progress.payment, command.provider_id or "")
        _authorized(progress, command.provider_id or "")
    elif command.verdict == "declined":
        _declined(progress, reason)
    else:
        _guess(progress, "authorize", command.verdict, reason)
    return progress.store()


def capture_result(work: UnitOfWork, command: CaptureResult) -> Payment:
    progress = Progress(work, payment_of(work, command.id))
    reason = reason_of(command.code, command.message)
    if command.verdict == "voided":
        _voided(progress)
    elif command.verdict == "captured":
        _taken(progress, "capture", command.amount)
    else:
        _guess(progress, "capture", command.verdict, reason)
    return progress.store()


def void_result(work: UnitOfWork, command: VoidResult) -> Payment:
    progress = Progress(work, payment_of(work, command.id))
    if command.verdict == "voided":
        _voided(progress)
    elif command.verdict == "captured":
        _taken(progress, "void", command.amount)
    else:
        _guess(progress, "void", command.verdict, reason_of(command.code, command.message))
    return progress.store()


def refund_result(work: UnitOfWork, command: RefundResult) -> Payment:
    progress = Progress(work, payment_of(work, command.id))
    refund = work.get(Refund, command.refund_id)
    if refund is None or refund.payment_id != command.id:
        raise Rejected("refund_not_found", f"payment {command.id} has no refund {command.refund_id}")
    if command.verdict == "refunded":
        _refund_made(work, progress, refund, command)
    elif refund.status == "pending":
        reason = reason_of(command.code, command.message)
        is_unknown = command.verdict == "answer_lost"
        work.save(
            msgspec.structs.replace(
                refund,
                status="needs_review" if is_unknown else "failed",
                reason_code=reason.code,
                reason=reason.message,
            )
        )
        progress.move(command.verdict, reason)
        progress.end_refund(refund.id)
    elif command.verdict == "answer_lost":
        doubt_refund(work, progress, refund, reason_of(command.code, command.message))
    return progress.store()


def provider_event(work: UnitOfWork, command: TakeProviderEvent) -> Payment:
    progress = Progress(work, payment_of(work, command.id))
    _check_about(progress.payment, command)
    refund = _refund_sent_back(work, command)
    is_news = refund is None or _note_returned(work, refund, command)
    if not is_news or _is_in_the_amounts(progress.payment, command, refund):
        return progress.store()
    match command.kind:
        case "authorized":
            _authorized(progress, command.provider_id)
        case "declined":
            _declined(progress, reason_of(command.code, None))
        case "voided":
            progress.note(provider_id=command.provider_id)
            _voided(progress)
        case "captured":
            progress.note(provider_id=command.provider_id)
            _captured(progress, command.amount_captured)
        case "refunded":
            # At Stripe, letting go of a hold is a refund too, of a charge of which nothing was captured.
            if command.amount_captured > 0:
                progress.note(provider_id=command.provider_id)
                _refunded_in_all(work, progress, command)
        case "refund_failed":
            progress.note(provider_id=command.provider_id)
            _refund_returned(work, progress, command, refund)
    return progress.store()


def _authorized(progress: Progress, provider_id: str) -> None:
    if progress.payment.provider_id is not None:
        return
    progress.note(provider_id=provider_id)
    if progress.payment.captured:
        # An event that came first has moved the payment past that state.
        return
    progress.move("authorized")
    if progress.payment.status in {"failed", "voided"}:
        # All callers were told that nothing is held: by a guess, or by an operator that saw no hold yet.
        progress.let_go()


def _declined(progress: Progress, reason: Reason) -> None:
    if progress.payment.provider_id is None and not progress.payment.captured:
        progress.move("declined", reason)


def _taken(progress: Progress, action: Action, amount: int) -> None:
    """The amount that was taken, by the answer to a call; it may be less than the held amount."""
    payment = progress.payment
    if 0 < amount <= payment.amount:
        _captured(progress, amount)
    else:
        text = f"the provider took {amount}, of {payment.amount} {payment.currency}"
        _guess(progress, action, "answer_lost", Reason(AMOUNT_MISMATCH, text))


def _captured(progress: Progress, amount: int) -> None:
    if progress.payment.captured == 0:
        progress.note(captured=amount)
        progress.move("captured")


def _voided(progress: Progress) -> None:
    if progress.payment.captured == 0:
        progress.move("voided")


def _guess(progress: Progress, action: Action, guess: Guess, reason: Reason) -> None:
    if progress.payment.pending_action != action:
        if (action, guess) == ("authorize", "answer_lost"):
            doubt_hold(progress, reason)
        return
    progress.move(guess, reason)
    if guess == "capture_failed":
        progress.let_go()


def _refund_made(work: UnitOfWork, progress: Progress, refund: Refund, result: RefundResult) -> None:
    provider_id = result.provider_id
    # If the provider says that somebody else gave all of it back, that refund may have a row already.
    is_new = provider_id is not None and work.find(Refund, "provider_id", provider_id) is None
    known_id = provider_id if is_new else refund.provider_id
    if refund.status == "failed" and provider_id is not None and refund.provider_id == provider_id:
        return  # it was made, and came back since
    work.save(msgspec.structs.replace(refund, status="succeeded", provider_id=known_id, reason_code=None, reason=None))
    if refund.status == "succeeded":  # an event said so before
        return
    payment = progress.payment
    # An event may have counted it before, as a part of all that went back.
    total = max(payment.refunded, result.total or sum_without(payment, refund) + refund.amount)
    _note_refunded(progress, min(payment.captured, total))
    progress.end_refund(refund.id)


def _refunded_in_all(work: UnitOfWork, progress: Progress, command: TakeProviderEvent) -> None:
    """All that was given back, by us and by others.

    The answer to its call tells whether a refund that we wait for is a part of it, unless nothing is left to give.
    """
    payment, total = progress.payment, command.amount_refunded
    if payment.captured == 0:  # the first that we hear of either
        progress.note(captured=command.amount_captured, refunded=total)
        progress.move("captured")
        _note_refunded(progress, total)
        return
    refund = None if payment.refund_id is None else work.get(Refund, payment.refund_id)
    if refund is not None:
        refund = _learnt(work, payment, refund, total)
    if total <= payment.refunded:
        return
    if refund is None:
        _note_refunded(progress, total)
    elif total == payment.captured:
        work.save(msgspec.structs.replace(refund, status="succeeded", reason_code=None, reason=None))
        _note_refunded(progress, total)
        progress.end_refund(refund.id)
    else:
        progress.note(refunded=total)


def _learnt(work: UnitOfWork, payment: Payment, refund: Refund, total: int) -> Refund:
    """If a total has no room for a refund that is not known yet, others made it all, and that refund was not made.

    This relies on totals that only grow, as they do until a refund comes back.
    """
    without = sum_without(payment, refund)
    if total < without + refund.amount and payment.reason_code != REFUND_RETURNED:
        without = max(without, total)
    if without == refund.refunded_without:
        return refund
    return work.save(msgspec.structs.replace(refund, refunded_without=without))


def sum_without(payment: Payment, refund: Refund) -> int:
    """The sum that is known to be given back of a payment, without a refund that may have been made."""
    return payment.refunded if refund.refunded_without is None else refund.refunded_without


def _is_in_the_amounts(payment: Payment, command: TakeProviderEvent, refund: Refund | None) -> bool:
    """Whether the event happened before an operator gave the amounts, or in the same second: it has only whole seconds.

    A refund of that second that the operator has not seen may be missing then. That is the safer error: the provider
    refuses to give back more than was taken, but nobody would notice if we refused to give back the payer's money.
    `refund` is our refund that came back: if it was asked for after the operator's word, it came back after it too,
    whatever the provider's clock says.
    """
    if payment.amounts_as_of is None or command.created_s is None:
        return False
    if refund is not None and refund.created_at >= payment.amounts_as_of:
        return False
    return datetime.fromtimestamp(command.created_s, UTC) <= payment.amounts_as_of


def _note_refunded(progress: Progress, total: int) -> None:
    progress.note(refunded=total)
    progress.move("refunded_in_full" if total == progress.payment.captured else "refunded_in_part")


def _refund_sent_back(work: UnitOfWork, command: TakeProviderEvent) -> Refund | None:
    """Our refund that came back: by its id at the provider or, if no answer had the id, by our number."""
    if command.kind != "refund_failed":
        return None
    refund = None if command.refund_id is None else work.find(Refund, "provider_id", command.refund_id)
    if refund is None and command.refund_number is not None:
        refund = work.get(Refund, command.refund_number)
        if refund is not None and refund.provider_id is not None:
            return None
    return refund if refund is not None and refund.payment_id == command.id else None


def _note_returned(work: UnitOfWork, refund: Refund, command: TakeProviderEvent) -> bool:
    """Note with the refund itself that it came back, which is true whenever the event comes. False: it was noted
    before.

    A failed refund without such an id was not known to be made, and may be in the total: an operator has to look.
    """
    if refund.status == "failed" and refund.provider_id == command.refund_id:
        return False
    reason = _why_returned(command)
    work.save(
        msgspec.structs.replace(
            refund,
            status="failed",
            provider_id=command.refund_id,
            reason_code=reason.code,
            reason=reason.message,
        )
    )
    return True


def _refund_returned(work: UnitOfWork, progress: Progress, command: TakeProviderEvent, refund: Refund | None) -> None:
    _take_out(work, progress.payment, refund, command)
    reason = _why_returned(command)
    progress.move("refund_returned", reason_of(REFUND_RETURNED, f"{reason.message}: {reason.code}"))
    if refund is not None:
        progress.end_refund(refund.id)


def _why_returned(command: TakeProviderEvent) -> Reason:
    return reason_of(command.code, f"the payer's bank did not take refund {command.refund_id}")


def _take_out(work: UnitOfWork, payment: Payment, returned: Refund | None, command: TakeProviderEvent) -> None:
    """Take the amount that came back out of the sum that is given back without the refund that is not known yet.

    The event may be about that very refund if it has our mark and no number, as in an earlier release, and its amount.
    """
    refund = None if payment.refund_id is None else work.get(Refund, payment.refund_id)
    if refund is None or (returned is not None and returned.id == refund.id):
        return
    is_without_number = command.is_signed and command.refund_number is None
    if returned is None and is_without_number and command.amount == refund.amount:
        return
    without = max(0, sum_without(payment, refund) - command.amount)
    work.save(msgspec.structs.replace(refund, refunded_without=without))


def payment_of(work: UnitOfWork, payment_id: int) -> Payment:
    """The payment. Raises Rejected."""
    payment = work.get(Payment, payment_id)
    if payment is None:
        raise Rejected("payment_not_found", f"there is no payment {payment_id}")
    return payment


def check_same(payment: Payment, provider_id: str) -> None:
    """Raises Rejected if the payment is known as another one at the provider, or was never sent there."""
    if payment.payment_method is None:
        raise Rejected("other_payment", f"payment {payment.id} was never sent to the provider")
    if payment.provider_id not in {None, provider_id}:
        text = f"payment {payment.id} is {payment.provider_id} at the provider, and not {provider_id[:100]}"
        raise Rejected("other_payment", text)


def _check_about(payment: Payment, command: TakeProviderEvent) -> None:
    """Raises Rejected if nothing shows that the event is about our payment, or if its amounts contradict it."""
    check_same(payment, command.provider_id)
    if payment.provider_id is None and not command.is_signed:
        text = f"event {command.event_id} names payment {payment.id}, and nothing tells that it is about ours"
        raise Rejected("not_ours", text)
    if command.currency != payment.currency:
        text = f"payment {payment.id} is in {payment.currency}, and event {command.event_id} in {command.currency}"
        raise Rejected("currency_mismatch", text)
    if not _is_of_amount(payment, command):
        text = (
            f"payment {payment.id} is of {payment.amount} {payment.currency}; event {command.event_id} says otherwise"
        )
        raise Rejected(AMOUNT_MISMATCH, text)


def _is_of_amount(payment: Payment, command: TakeProviderEvent) -> bool:
    if command.kind == "refund_failed":
        return command.amount <= payment.amount
    captured = command.amount_captured
    return (
        command.amount == payment.amount
        and captured <= payment.amount
        and (captured > 0 or command.kind != "captured")
        and (captured == 0 or payment.captured in {0, captured})
        and (captured == 0 or command.amount_refunded <= captured)
    )
